//! Custom runtimes: programs that speak the Lambda Runtime API.

use lacewing_model::usage::Ending;

use crate::bed::{Bed, Source, call, failed, returned, tail};

/// The example of AWS's tutorial for custom runtimes, in the portable shell.
const SHELL: &str = r#"#!/bin/sh
set -eu
API="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
while true; do
  HEADERS="$(mktemp)"
  EVENT=$(curl -sS -LD "$HEADERS" "$API/invocation/next")
  ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  echo "got $EVENT"
  curl -sS "$API/invocation/$ID/response" -d "{\"echo\":$EVENT,\"handler\":\"$_HANDLER\"}" >/dev/null
done
"#;

/// The same in Python, with what a shell cannot do well.
const PYTHON: &str = r#"#!/usr/bin/python3
import http.client, json, os
host = os.environ['AWS_LAMBDA_RUNTIME_API']
base = '/2018-06-01/runtime/'
assert 'AWS_EXECUTION_ENV' not in os.environ
def post(path, body, headers={}):
    connection = http.client.HTTPConnection(host)
    connection.request('POST', base + path, body, headers)
    reply = connection.getresponse()
    reply.read()
    return reply.status
while True:
    connection = http.client.HTTPConnection(host)
    connection.request('GET', base + 'invocation/next')
    reply = connection.getresponse()
    event = json.loads(reply.read())
    request_id = reply.headers['Lambda-Runtime-Aws-Request-Id']
    if event == 'error':
        kind = {'Lambda-Runtime-Function-Error-Type': 'My.Kind'}
        post('invocation/' + request_id + '/error', '{"errorType":"My.Kind","deep":{"er":1}}', kind)
    elif event == 'large':
        print('status', post('invocation/' + request_id + '/response', b'x' * (7 << 20)), flush=True)
    elif event == 'exit':
        os._exit(5)
    else:
        post('invocation/' + request_id + '/response', json.dumps(dict(reply.headers)))
"#;

#[tokio::test]
async fn a_shell_script_serves() {
    let Some(bed) = Bed::new() else { return };
    let mut source = Source::custom(SHELL);
    source.timeout_seconds = 10;
    let mut instance = bed.start(&source).await;
    for number in 0..3 {
        let done = instance.invoke(&call(format!("{{\"n\":{number}}}"))).await;
        let expected = format!("{{\"echo\":{{\"n\":{number}}},\"handler\":\"main\"}}");
        assert_eq!(returned(&done), expected);
        assert!(tail(&done).contains(&format!("got {{\"n\":{number}}}\n")), "{}", tail(&done));
        assert_eq!(done.init.is_some(), number == 0);
        assert!(instance.is_reusable());
    }
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn errors_sizes_and_exits_of_a_custom_runtime_reach_the_caller() {
    let Some(bed) = Bed::new() else { return };
    let mut instance = bed.start(&Source::custom(PYTHON)).await;
    let done = instance.invoke(&call("\"error\"")).await;
    assert_eq!(failed(&done).to_string(), "{\"deep\":{\"er\":1},\"errorType\":\"My.Kind\"}");
    let large = instance.invoke(&call("\"large\"")).await;
    assert_eq!(failed(&large)["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(large.ending, Ending::ResponseTooLarge);
    assert!(instance.is_reusable());
    let request = call("\"headers\"");
    let done = instance.invoke(&request).await;
    let headers = returned(&done).to_lowercase();
    assert!(headers.contains(&request.request_id.to_string()), "{headers}");
    assert!(headers.contains("lambda-runtime-deadline-ms"), "{headers}");
    assert!(headers.contains(":function:called\""), "{headers}");
    // The caller does not wait until the runtime has read its refusal.
    let logged = tail(&large) + &tail(&done);
    assert!(logged.contains("status 413\n"), "{logged}");
    let request = call("\"exit\"");
    let error = failed(&instance.invoke(&request).await);
    let id = request.request_id;
    let reason = format!("RequestId: {id} Error: Runtime exited with error: exit status 5");
    assert_eq!(error["errorMessage"], reason);
    assert!(!instance.is_reusable());
    bed.close(vec![instance]).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_an_invalid_entrypoint() {
    let Some(bed) = Bed::new() else { return };
    let mut absent = Source::custom("");
    absent.files[0].0 = "other";
    let mut locked = Source::custom("#!/bin/sh\n");
    locked.files[0].2 = 0o644;
    let foreign = Source::custom("neither a script nor a program");
    let lost = Source::custom("#!/not/there\n");
    for (source, reason) in [
        (absent, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        (locked, "fork/exec /var/task/bootstrap: permission denied"),
        (foreign, "fork/exec /var/task/bootstrap: exec format error"),
        (lost, "fork/exec /var/task/bootstrap: no such file or directory"),
    ] {
        let mut instance = bed.start(&source).await;
        let request = call("{}");
        let done = instance.invoke(&request).await;
        let error = failed(&done);
        assert_eq!(error["errorType"], "Runtime.InvalidEntrypoint");
        let id = request.request_id;
        assert_eq!(error["errorMessage"], format!("RequestId: {id} Error: {reason}"));
        let tail = tail(&done);
        let status = "Phase: invoke\tStatus: error\tError Type: Runtime.InvalidEntrypoint\n";
        assert!(tail.contains(status), "{tail}");
        instance.retire().await;
    }
    bed.close(Vec::new()).await;
}
