//! Functions that fail in every way that Lambda knows.

use std::time::Duration;

use lacewing_model::Family;
use lacewing_model::usage::Ending;

use crate::bed::{Bed, Source, call, eventually, failed, returned, tail};

fn message(request: &lacewing_model::Invocation, reason: &str) -> String {
    format!("RequestId: {} Error: {reason}", request.request_id)
}

#[tokio::test]
async fn a_timeout_is_exact_and_spends_the_instance() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "import time\ndef handler(event, context):\n    print('zzz')\n    time.sleep(60)\n";
    let mut source = Source::python(code);
    source.timeout_seconds = 1;
    let mut instance = bed.start(&source).await;
    let request = call("{}");
    let done = instance.invoke(&request).await;
    let error = failed(&done);
    assert_eq!(error["errorType"], "Sandbox.Timedout");
    assert_eq!(error["errorMessage"], message(&request, "Task timed out after 1.00 seconds"));
    assert_eq!(done.duration, Duration::from_secs(1));
    assert_eq!(done.ending, Ending::Timeout);
    assert!(!instance.is_reusable());
    let tail = tail(&done);
    let id = request.request_id;
    assert!(tail.contains("zzz\n"), "{tail}");
    assert!(tail.contains(&format!("Z {id} Task timed out after 1.00 seconds\n")), "{tail}");
    assert!(tail.contains("Duration: 1000.00 ms\t"), "{tail}");
    assert!(tail.ends_with("\tStatus: timeout\n"), "{tail}");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn exits_and_signals_are_told_apart() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "
import os, signal, sys
def handler(event, context):
    if event == 'signal':
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(int(event))
";
    for (event, reason) in [
        ("0", "Runtime exited without providing a reason"),
        ("127", "Runtime exited with error: exit status 127"),
        ("\"signal\"", "Runtime exited with error: signal: segmentation fault"),
    ] {
        let mut instance = bed.start(&Source::python(code)).await;
        let request = call(event);
        let done = instance.invoke(&request).await;
        let error = failed(&done);
        assert_eq!(error["errorType"], "Runtime.ExitError");
        assert_eq!(error["errorMessage"], message(&request, reason));
        assert_eq!(done.ending, Ending::Exited);
        assert!(!instance.is_reusable());
        let tail = tail(&done);
        assert!(tail.ends_with("\tStatus: error\tError Type: Runtime.ExitError\n"), "{tail}");
        instance.retire().await;
    }
    bed.close(Vec::new()).await;
}

#[tokio::test]
async fn the_end_of_memory_is_measured_and_named() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "
def handler(event, context):
    hoard = []
    while True:
        hoard.append(bytearray(b'x') * (1 << 20))
";
    let mut source = Source::python(code);
    source.memory_mb = 128;
    source.timeout_seconds = 20;
    let mut instance = bed.start(&source).await;
    let request = call("{}");
    let done = instance.invoke(&request).await;
    let error = failed(&done);
    assert_eq!(error["errorType"], "Runtime.ExitError");
    let reason = "Runtime exited with error: signal: killed";
    assert_eq!(error["errorMessage"], message(&request, reason));
    assert_eq!(done.ending, Ending::OutOfMemory);
    assert_eq!(done.max_memory.as_mebibytes_rounded_up(), 128);
    let tail = tail(&done);
    assert!(tail.contains("Memory Size: 128 MB\tMax Memory Used: 128 MB\t"), "{tail}");
    assert!(tail.ends_with("\tStatus: error\tError Type: Runtime.OutOfMemory\n"), "{tail}");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn memory_that_ran_out_in_init_is_measured_too() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (1 << 20))\n";
    let mut source = Source::python(code);
    source.memory_mb = 128;
    source.timeout_seconds = 20;
    let mut instance = bed.start(&source).await;
    let done = instance.invoke(&call("{}")).await;
    assert_eq!(done.ending, Ending::OutOfMemory);
    assert_eq!(done.max_memory.as_mebibytes_rounded_up(), 128);
    let tail = tail(&done);
    assert!(tail.contains("Memory Size: 128 MB\tMax Memory Used: 128 MB\t"), "{tail}");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn a_failed_init_is_repeated_by_the_first_invocation() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let mut instance = bed.start(&Source::python("import not_there\n")).await;
    let request = call("{}");
    let done = instance.invoke(&request).await;
    let error = failed(&done);
    assert_eq!(error["errorType"], "Runtime.ImportModuleError");
    assert_eq!(error["errorMessage"], "Unable to import module 'app': No module named 'not_there'");
    assert_eq!(done.ending, Ending::HandlerError);
    assert!(done.init.is_none() && !instance.is_reusable());
    assert!(done.max_memory.as_bytes() > 1 << 20 && done.max_memory.as_bytes() < 256 << 20);
    let lines = bed.lines().await;
    let reports: Vec<_> = lines.iter().filter(|line| line.starts_with("INIT_REPORT")).collect();
    assert_eq!(reports.len(), 2, "{lines:?}");
    let ending = "\tStatus: error\tError Type: Runtime.ImportModuleError";
    assert!(reports[0].ends_with(&format!("\tPhase: init{ending}")), "{lines:?}");
    assert!(reports[1].ends_with(&format!("\tPhase: invoke{ending}")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("[ERROR] Runtime.ImportModuleError")));
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn an_init_that_takes_too_long_is_cut_in_both_phases() {
    let Some(bed) = Bed::new() else { return };
    let bootstrap = "#!/bin/sh\nsleep 12\n";
    let mut source = Source::custom(bootstrap);
    source.timeout_seconds = 1;
    let began = tokio::time::Instant::now();
    let mut instance = bed.start(&source).await;
    assert!(began.elapsed() >= Duration::from_secs(10));
    let request = call("{}");
    let done = instance.invoke(&request).await;
    let error = failed(&done);
    assert_eq!(error["errorType"], "Sandbox.Timedout");
    assert_eq!(error["errorMessage"], message(&request, "Task timed out after 1.00 seconds"));
    let tail = tail(&done);
    assert!(tail.starts_with("INIT_REPORT Init Duration: "), "{tail}");
    assert!(tail.contains("\tPhase: invoke\tStatus: timeout\nSTART RequestId: "), "{tail}");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn a_process_that_died_between_invocations_is_replaced() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "
import os, threading
def handler(event, context):
    if event == 'die':
        threading.Timer(0.5, lambda: os._exit(3)).start()
    return os.getpid()
";
    let mut instance = bed.start(&Source::python(code)).await;
    returned(&instance.invoke(&call("\"die\"")).await);
    eventually("it dies", || !instance.is_alive()).await;
    let done = instance.invoke(&call("\"live\"")).await;
    returned(&done);
    assert!(instance.is_alive());
    bed.close(vec![instance]).await;
}
