//! Instances come and go, many at once, and leave nothing behind.

use std::time::Duration;

use futures_util::future::join_all;

use lacewing_model::{Family, Kind, RuntimeId};

use crate::bed::{Bed, Source, Wanted, call, eventually, returned, tail};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list").count()
}

#[tokio::test]
async fn retired_and_dropped_instances_leave_no_descriptor_behind() {
    let Some(mut bed) = Bed::new() else { return };
    let bootstrap = "#!/usr/bin/python3\nimport http.client, os\n\
        c = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])\n\
        c.request('GET', '/2018-06-01/runtime/invocation/next')\nc.getresponse()\n";
    let stock = bed.function(&Source::python("def handler(e, c):\n    return e\n")).await;
    let custom = bed.function(&Source::custom(bootstrap)).await;
    let mut before = 0;
    for round in 0..4 {
        bed.start_function(stock.clone()).await.retire().await;
        bed.start_function(custom.clone()).await.retire().await;
        drop(bed.start_function(custom.clone()).await);
        for _ in 0..3 {
            drop(bed.endpoints.next().await.expect("a listener"));
        }
        bed.lines().await;
        if round == 0 {
            before = descriptors();
        }
    }
    assert_eq!(descriptors(), before);
    tokio::time::timeout(Duration::from_secs(30), bed.close(Vec::new()))
        .await
        .expect("no task left");
}

#[tokio::test]
async fn programs_that_were_just_unpacked_can_be_run_at_once() {
    let Some(bed) = Bed::new() else { return };
    let bed = &bed;
    let one = async |number: usize| {
        let script = format!(
            "#!/bin/sh\n# {number}\nwhile :; do\n\
             I=$(curl -sSD - -o /tmp/e \"http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next\" \
             | grep -i request-id | tr -d '[:space:]' | cut -d: -f2)\n\
             curl -sS \"http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$I/response\" \
             -d {number} >/dev/null\ndone\n"
        );
        let mut source = Source::custom(&script);
        source.timeout_seconds = 20;
        let mut instance = bed.start(&source).await;
        assert_eq!(returned(&instance.invoke(&call("{}")).await), number.to_string());
        instance.retire().await;
    };
    join_all((0..12).map(one)).await;
}

#[tokio::test]
async fn what_is_written_between_invocations_belongs_to_the_next_one() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let code = "
import threading
def handler(event, context):
    threading.Timer(1, lambda: print('late', flush=True)).start()
";
    let mut instance = bed.start(&Source::python(code)).await;
    instance.invoke(&call("{}")).await;
    eventually("it writes", || instance.has_unread_output()).await;
    assert!(!bed.lines().await.contains(&"late".to_owned()));
    instance.invoke(&call("{}")).await;
    assert!(bed.lines().await.contains(&"late".to_owned()));
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn what_is_written_early_in_a_long_invocation_can_be_read_before_its_end() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let code = "import time\ndef handler(event, context):\n    print('early')\n    \
                time.sleep(4)\n    print('late')\n";
    let mut source = Source::python(code);
    source.timeout_seconds = 10;
    let mut instance = bed.start(&source).await;
    bed.lines().await;
    let request = call("{}");
    let mut invocation = Box::pin(instance.invoke(&request));
    let batch = tokio::select! {
        _ = &mut invocation => panic!("it was over before"),
        batch = bed.logs.next() => batch.expect("a batch"),
    };
    let texts: Vec<_> = batch.lines.iter().map(|line| line.text.as_ref()).collect();
    let start = format!("START RequestId: {} Version: $LATEST", request.request_id);
    assert_eq!(texts, [start.as_bytes(), b"early"]);
    assert!(tail(&invocation.await).contains("early\nlate\nEND "));
    assert_eq!(bed.lines().await.first().map(String::as_str), Some("late"));
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn a_missing_version_is_refused_or_substituted_and_named() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let mut source =
        Source::python("import sys\ndef handler(e, c):\n    return sys.version_info[0]\n");
    source.runtime = Wanted::This(RuntimeId::python(3, 77));
    let mut request = Bed::request(bed.function(&source).await);
    let error = bed.starter.start(request.clone()).await.expect_err("not there");
    assert_eq!(error.kind(), Kind::Invalid);
    request.substitute = true;
    let mut instance = bed.starter.start(request).await.expect("a substitute");
    assert_eq!(returned(&instance.invoke(&call("{}")).await), "3");
    let lines = bed.lines().await;
    assert!(lines[0].ends_with("\tSubstitute for: python3.77"), "{lines:?}");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn an_invocation_that_nobody_waits_for_ends_with_its_sandbox() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return 1\n";
    let mut instance = bed.start(&Source::python(code)).await;
    let soon = Duration::from_millis(100);
    let slow = call("2");
    tokio::time::timeout(soon, instance.invoke(&slow)).await.expect_err("given up");
    assert!(!instance.is_reusable());
    bed.close(vec![instance]).await;
}
