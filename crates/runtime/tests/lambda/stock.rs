//! Functions of the stock runtimes that do as they are told.

use std::time::Duration;

use lacewing_model::Family;
use lacewing_model::usage::Ending;

use crate::bed::{Bed, Source, Wanted, call, failed, returned, tail};

const HELLO: &str = "
import os
print('loading')
COUNT = 0
def handler(event, context):
    global COUNT
    COUNT += 1
    print('hello', event['name'])
    return {'greeting': 'Hello, ' + event['name'], 'count': COUNT, 'id': context.aws_request_id}
";

#[tokio::test]
async fn python_says_hello_and_is_reused() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let mut instance = bed.start(&Source::python(HELLO)).await;
    let first = call("{\"name\":\"Ada\"}");
    let cold = instance.invoke(&first).await;
    let expected =
        format!("{{\"greeting\": \"Hello, Ada\", \"count\": 1, \"id\": \"{}\"}}", first.request_id);
    assert_eq!(returned(&cold), expected);
    assert_eq!(cold.ending, Ending::Returned);
    let init = cold.init.expect("a cold start");
    assert_eq!(cold.billed.as_millis(), (init + cold.duration).as_nanos().div_ceil(1_000_000));
    assert!(cold.max_memory.as_bytes() > 1 << 20 && cold.max_memory.as_bytes() < 256 << 20);
    assert!(instance.is_reusable() && instance.generation() == 7);
    let warm = instance.invoke(&call("{\"name\":\"Bob\"}")).await;
    assert!(returned(&warm).contains("\"count\": 2") && warm.init.is_none());
    let lines = bed.lines().await;
    let id = first.request_id;
    assert!(lines[0].starts_with(&bed.init_start(Family::Python)), "{lines:?}");
    assert_eq!(lines[1], "loading");
    assert_eq!(lines[2], format!("START RequestId: {id} Version: $LATEST"));
    assert_eq!(lines[3], "hello Ada");
    assert_eq!(lines[4], format!("END RequestId: {id}"));
    assert!(lines[5].starts_with(&format!("REPORT RequestId: {id}\tDuration: ")), "{lines:?}");
    assert!(lines[5].contains(" MB\tInit Duration: "), "{lines:?}");
    let warm_tail = tail(&warm);
    assert!(warm_tail.contains("hello Bob\n") && !warm_tail.contains("Ada"), "{warm_tail}");
    assert!(warm_tail.ends_with("MB\t\n"), "{warm_tail}");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn the_seed_example_of_node_answers_as_written() {
    let Some(bed) = Bed::offering(Family::Node) else { return };
    let code = "exports.handler = async (event) => { let responseMessage = \"Hello, \" + event.name; \
                return { statusCode: 200, body: JSON.stringify({ message: responseMessage }) }; };";
    let mut instance = bed.start(&Source::node(code)).await;
    for _ in 0..2 {
        let done = instance.invoke(&call("{\"name\":\"Ada\"}")).await;
        let expected = "{\"statusCode\":200,\"body\":\"{\\\"message\\\":\\\"Hello, Ada\\\"}\"}";
        assert_eq!(returned(&done), expected);
    }
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn every_python_of_this_machine_runs_isolated() {
    let Some(bed) = Bed::new() else { return };
    let code = "
import json, sys, ssl, os
def handler(event, context):
    return {'version': '%d.%d' % sys.version_info[:2], 'path': sys.path, 'uid': os.getuid(),
            'user': __import__('pwd').getpwuid(os.getuid())[0], 'hosts': open('/etc/hosts').read(),
            'env': dict(os.environ), 'command': open('/proc/self/cmdline').read(), 'certs': os.path.exists('/etc/ssl/certs/ca-certificates.crt')}
";
    for interpreter in bed.runtimes.list() {
        let name = interpreter.runtime.to_string();
        let Some(version) = name.strip_prefix("python") else { continue };
        let mut source = Source::python(code);
        source.runtime = Wanted::This(interpreter.runtime);
        let mut instance = bed.start(&source).await;
        let done = instance.invoke(&call("{}")).await;
        let seen: serde_json::Value = serde_json::from_str(&returned(&done)).expect("JSON");
        assert_eq!(seen["version"], version);
        let compiled = format!("\0/var/runtime/bootstrap.py.{name}.pyc\0");
        assert!(seen["command"].as_str().expect("text").ends_with(&compiled), "{seen}");
        assert_eq!(seen["user"], "sbx_user1051");
        assert_eq!(seen["env"]["AWS_EXECUTION_ENV"], format!("AWS_Lambda_{name}"));
        assert!(seen["hosts"].as_str().expect("text").contains("sandbox.localdomain"));
        for entry in seen["path"].as_array().expect("a list") {
            let entry = entry.as_str().expect("text");
            let is_ours = ["/var/", "/opt/", "/usr/lib/"].iter().any(|own| entry.starts_with(own));
            assert!(is_ours && !entry.contains("dist-packages"), "{entry}");
        }
        instance.retire().await;
    }
    bed.close(Vec::new()).await;
}

#[tokio::test]
async fn handler_errors_keep_the_instance() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "def handler(event, context):\n    raise ValueError('no ' + str(event))\n";
    let mut instance = bed.start(&Source::python(code)).await;
    for _ in 0..2 {
        let request = call("7");
        let done = instance.invoke(&request).await;
        let error = failed(&done);
        assert_eq!(error["errorType"], "ValueError");
        assert_eq!(error["errorMessage"], "no 7");
        assert_eq!(error["requestId"], request.request_id.to_string());
        assert_eq!(done.ending, Ending::HandlerError);
        assert!(instance.is_reusable());
        assert!(tail(&done).contains("[ERROR] ValueError: no 7"), "{}", tail(&done));
    }
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn six_megabytes_go_in_and_out_and_one_more_is_refused() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "
def handler(event, context):
    return 'x' * (6291556 - 1 if len(event) < 10 else len(event))
";
    let mut instance = bed.start(&Source::python(code)).await;
    let text = format!("\"{}\"", "y".repeat(6 * 1024 * 1024 - 2));
    let done = instance.invoke(&call(text)).await;
    assert_eq!(returned(&done).len(), 6 * 1024 * 1024);
    let done = instance.invoke(&call("\"\"")).await;
    let error = failed(&done);
    assert_eq!(error["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(
        error["errorMessage"],
        "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
    );
    assert_eq!(done.ending, Ending::ResponseTooLarge);
    assert!(instance.is_reusable());
    let done = instance.invoke(&call("\"0123456789\"")).await;
    assert_eq!(returned(&done), "\"xxxxxxxxxx\"");
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn all_output_is_in_the_log_of_its_own_invocation() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let code = "
import logging, os, sys
def handler(event, context):
    for number in range(5000):
        print('line', number)
    sys.stderr.write('to stderr\\n')
    logging.getLogger().error('first\\nsecond')
    os.write(1, b'no line end')
";
    let mut instance = bed.start(&Source::python(code)).await;
    for _ in 0..2 {
        let done = instance.invoke(&call("{}")).await;
        assert_eq!(returned(&done), "null");
        let lines = bed.lines().await;
        let printed = lines.iter().filter(|line| line.starts_with("line ")).count();
        assert_eq!(printed, 5000);
        assert!(lines.contains(&"to stderr".to_owned()));
        assert!(lines.contains(&"no line end".to_owned()));
        let whole = lines.iter().find(|line| line.contains("first")).expect("a record");
        assert!(whole.contains("first\nsecond"), "{whole}");
        assert!(tail(&done).len() == 4096);
    }
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn the_platforms_endpoint_answers_inside() {
    let Some(mut bed) = Bed::offering(Family::Python) else { return };
    let code = "
import os, urllib.request
def handler(event, context):
    return urllib.request.urlopen(os.environ['AWS_ENDPOINT_URL'] + '/health').read().decode()
";
    let mut instance = bed.start(&Source::python(code)).await;
    let endpoint = bed.endpoints.next().await.expect("a listener");
    let listener = tokio::net::TcpListener::from_std(endpoint.listener).expect("non-blocking");
    let request = call("{}");
    let serve = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut seen = [0; 1024];
        let read = stream.read(&mut seen).await.expect("a request");
        assert!(seen[..read].starts_with(b"GET /health "));
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        stream.write_all(reply).await.expect("sent");
    };
    let (done, ()) = tokio::join!(instance.invoke(&request), serve);
    assert_eq!(returned(&done), "\"hi\"");
    bed.close(vec![instance]).await;
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, endpoint.closed.cancelled()).await.expect("closed with it");
}

#[tokio::test]
async fn an_exec_wrapper_starts_the_runtime() {
    let Some(bed) = Bed::offering(Family::Python) else { return };
    let code = "import os\ndef handler(event, context):\n    return os.environ['WRAPPED']\n";
    let mut source = Source::python(code);
    let wrapper = "#!/bin/sh\nexport WRAPPED=yes\nexec \"$@\"\n";
    source.files.push(("wrap", wrapper.as_bytes().to_vec(), 0o755));
    source.environment.push(("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap"));
    let mut instance = bed.start(&source).await;
    assert_eq!(returned(&instance.invoke(&call("{}")).await), "\"yes\"");
    bed.close(vec![instance]).await;
}
