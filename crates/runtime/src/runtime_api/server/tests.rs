//! The API as clients see it, over an in-memory connection.

use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http1 as client;
use tokio_util::task::TaskTracker;

mod snap_start;
mod streaming;

use super::*;

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

struct Client {
    shared: Arc<Shared>,
    sender: client::SendRequest<Body>,
    tasks: TaskTracker,
}

struct Seen {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

async fn client() -> Client {
    let shared = Arc::new(Shared::new(1, None));
    let tasks = TaskTracker::new();
    let sender = connect(&shared, &tasks).await;
    Client { shared, sender, tasks }
}

async fn connect(shared: &Arc<Shared>, tasks: &TaskTracker) -> client::SendRequest<Body> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tasks.spawn(serve_connection(theirs, 0, Arc::clone(shared)));
    let (sender, connection) = client::handshake(TokioIo::new(ours)).await.expect("a connection");
    tasks.spawn(async { connection.await.unwrap_or_default() });
    sender
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

impl Client {
    async fn send(&mut self, request: Request<Body>) -> Seen {
        self.sender.ready().await.expect("open");
        let reply = self.sender.send_request(request).await.expect("a reply");
        let (parts, mut body) = reply.into_parts();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.expect("a frame").into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Seen { status: parts.status.as_u16(), headers: parts.headers, body: whole.freeze() }
    }

    async fn call(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Seen {
        let request = Request::builder().method(method).uri(path).header("host", "x");
        self.send(request.body(full(body)).expect("a request")).await
    }

    async fn next(&mut self) -> Seen {
        self.call("GET", "/2018-06-01/runtime/invocation/next", "").await
    }

    async fn post(&mut self, id: &str, what: &str, body: impl Into<Bytes>) -> Seen {
        self.call("POST", &format!("/2018-06-01/runtime/invocation/{id}/{what}"), body).await
    }
}

fn event(id: &str) -> Event {
    Event {
        request_id: id.to_owned(),
        deadline_ms: 1_700_000_000_123,
        arn: "arn:aws:lambda:us-east-1:000000000000:function:hello".to_owned(),
        trace: Some("Root=1".to_owned()),
        client_context: None,
        payload: Bytes::from_static(b"{\"a\":1}"),
    }
}

fn has(seen: &Seen, text: &str) -> bool {
    String::from_utf8_lossy(&seen.body).contains(text)
}

#[tokio::test]
async fn an_event_goes_in_and_its_answer_comes_out() {
    let mut client = client().await;
    client.shared.offer(event("a"), None);
    let seen = client.next().await;
    assert_eq!((seen.status, &seen.body[..]), (200, &b"{\"a\":1}"[..]));
    for (name, value) in [
        ("lambda-runtime-aws-request-id", "a"),
        ("lambda-runtime-deadline-ms", "1700000000123"),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:000000000000:function:hello",
        ),
        ("lambda-runtime-trace-id", "Root=1"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(seen.headers[name], value, "{name}");
    }
    assert!(!seen.headers.contains_key("lambda-runtime-client-context"));
    let seen = client.post("a", "response", "\"done\"").await;
    assert_eq!((seen.status, &seen.body[..]), (202, &b"{\"status\":\"OK\"}\n"[..]));
    assert_eq!(client.shared.answer("a").await, Answer::Returned(Bytes::from_static(b"\"done\"")));
}

#[tokio::test]
async fn next_waits_for_an_event_and_ends_the_init() {
    let mut client = client().await;
    let shared = Arc::clone(&client.shared);
    let later = client.tasks.spawn(async move {
        assert_eq!(shared.readiness().await, Readiness::Ready);
        shared.offer(event("a"), None);
    });
    assert_eq!(client.next().await.status, 200);
    later.await.expect("ready was seen");
}

#[tokio::test]
async fn wrong_ids_and_wrong_moments_are_refused() {
    let mut client = client().await;
    let seen = client.post("a", "response", "1").await;
    assert!(seen.status == 400 && has(&seen, "\"errorType\":\"InvalidRequestID\""));
    client.shared.offer(event("a"), None);
    client.next().await;
    let seen = client.post("b", "error", "{}").await;
    assert!(seen.status == 400 && has(&seen, "InvalidRequestID"));
    let seen = client.next().await;
    assert!(seen.status == 403 && has(&seen, "\"errorType\":\"InvalidStateTransition\""));
    assert_eq!(client.post("a", "response", "1").await.status, 202);
    assert_eq!(client.post("a", "response", "2").await.status, 403);
    assert_eq!(client.call("POST", "/2018-06-01/runtime/init/error", "{}").await.status, 403);
}

#[tokio::test]
async fn an_error_is_passed_on_unchanged_with_its_type() {
    let mut client = client().await;
    client.shared.offer(event("a"), None);
    client.next().await;
    let document = "{ \"errorMessage\" : \"no\",  \"more\": [1] }";
    let request = Request::post("/2018-06-01/runtime/invocation/a/error")
        .header("host", "x")
        .header("content-type", "application/vnd.aws.lambda.error.cause+json")
        .header("lambda-runtime-function-error-type", "Custom.Kind");
    let seen = client.send(request.body(full(document)).expect("a request")).await;
    assert_eq!(seen.status, 202);
    let expected = FunctionError { error_type: "Custom.Kind".to_owned(), payload: document.into() };
    assert_eq!(client.shared.answer("a").await, Answer::Failed(expected));
}

#[tokio::test]
async fn an_init_error_is_kept_for_the_platform() {
    let mut client = client().await;
    let seen = client.call("POST", "/2018-06-01/runtime/init/error", "{\"x\":1}").await;
    assert_eq!(seen.status, 202);
    let expected =
        FunctionError { error_type: "Runtime.Unknown".to_owned(), payload: "{\"x\":1}".into() };
    assert_eq!(client.shared.readiness().await, Readiness::Failed(expected));
}

#[tokio::test]
async fn the_largest_answer_is_taken_and_a_larger_one_is_told_to_both_sides() {
    let mut client = client().await;
    let most = usize::try_from(MOST).expect("it fits");
    client.shared.offer(event("a"), None);
    client.next().await;
    assert_eq!(client.post("a", "response", vec![b'x'; most]).await.status, 202);
    assert!(
        matches!(client.shared.answer("a").await, Answer::Returned(body) if body.len() == most)
    );
    client.shared.offer(event("b"), None);
    client.next().await;
    let seen = client.post("b", "response", vec![b'x'; most + 1]).await;
    assert!(seen.status == 413 && has(&seen, "RequestEntityTooLarge"));
    assert_eq!(client.shared.answer("b").await, Answer::TooLarge);
    client.shared.offer(event("c"), None);
    assert_eq!(client.next().await.status, 200);
}

#[tokio::test]
async fn a_streamed_answer_is_collected() {
    let mut client = client().await;
    client.shared.offer(event("a"), None);
    client.next().await;
    let parts = ["one ", "two"].map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(parts)));
    let request = Request::post("/2018-06-01/runtime/invocation/a/response")
        .header("host", "x")
        .header(RESPONSE_MODE, "streaming");
    assert_eq!(client.send(request.body(body).expect("a request")).await.status, 202);
    assert_eq!(client.shared.answer("a").await, Answer::Returned(Bytes::from_static(b"one two")));
    client.shared.offer(event("b"), None);
    client.next().await;
    let request = Request::post("/2018-06-01/runtime/invocation/b/response")
        .header("host", "x")
        .header(RESPONSE_MODE, "backwards");
    let seen = client.send(request.body(full("x")).expect("a request")).await;
    assert!(seen.status == 400 && has(&seen, "InvalidFunctionResponseMode"));
}

#[tokio::test]
async fn a_truncated_answer_reaches_the_caller_as_an_error() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Client { shared, tasks, .. } = client().await;
    shared.offer(event("a"), None);
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    tasks.spawn(serve_connection(theirs, 0, Arc::clone(&shared)));
    ours.write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut chunk = [0; 4096];
    assert!(ours.read(&mut chunk).await.expect("an event") > 0);
    ours.write_all(
        b"POST /2018-06-01/runtime/invocation/a/response HTTP/1.1\r\nhost: x\r\n\
          content-length: 10\r\n\r\nhalf",
    )
    .await
    .expect("sent");
    ours.shutdown().await.expect("closed");
    assert_eq!(shared.answer("a").await, Answer::Truncated);
}

#[tokio::test]
async fn other_paths_answer_as_documented() {
    let mut client = client().await;
    for (method, path, status) in [
        ("GET", "/2018-06-01/ping", 200),
        ("PUT", "/2020-08-15/logs", 202),
        ("PUT", "/2022-07-01/telemetry", 202),
        ("POST", "/2020-01-01/extension/register", 404),
        ("GET", "/2018-06-01/runtime/restore/next", 404),
        ("GET", "/", 404),
    ] {
        assert_eq!(client.call(method, path, "").await.status, status, "{path}");
    }
}
