//! Responses that go out as they come, and runtimes that do it wrong, byte by byte.

use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;
use crate::stream::{self, Pieces};

/// A runtime that writes its requests by hand, with the event `a` under way.
struct Raw {
    shared: Arc<Shared>,
    connection: DuplexStream,
    pieces: Pieces,
    tasks: TaskTracker,
}

const HEAD_LINES: &str = "POST /2018-06-01/runtime/invocation/a/response HTTP/1.1\r\nhost: x\r\n\
     lambda-runtime-function-response-mode: streaming\r\n";

impl Raw {
    async fn new() -> Self {
        let (outlet, pieces) = stream::channel();
        let shared = Arc::new(Shared::new(1, None));
        shared.offer(event("a"), Some(outlet));
        shared.state.lock().next().expect("allowed").expect("an event");
        let tasks = TaskTracker::new();
        let connection = connect_raw(&shared, &tasks);
        Self { shared, connection, pieces, tasks }
    }

    async fn send(&mut self, text: &str) {
        self.connection.write_all(text.as_bytes()).await.expect("sent");
    }

    /// Begins a chunked response with these headers more.
    async fn begin(&mut self, headers: &str) {
        self.send(&format!("{HEAD_LINES}{headers}transfer-encoding: chunked\r\n\r\n")).await;
    }

    async fn chunk(&mut self, text: &str) {
        self.send(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    async fn status(&mut self) -> String {
        status(&mut self.connection).await
    }

    async fn failure(&self) -> FunctionError {
        match self.shared.answer("a").await {
            Answer::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn connect_raw(shared: &Arc<Shared>, tasks: &TaskTracker) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tasks.spawn(serve_connection(theirs, 0, Arc::clone(shared)));
    ours
}

async fn status(reader: &mut (impl AsyncRead + Unpin)) -> String {
    let mut reply = [0; 4096];
    let length = reader.read(&mut reply).await.expect("a reply");
    String::from_utf8_lossy(&reply[..length]).split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Posts to another connection of the same runtime.
async fn post(raw: &Raw, id: &str, what: &str) -> String {
    let mut other = connect_raw(&raw.shared, &raw.tasks);
    let path = format!("/2018-06-01/runtime/invocation/{id}/{what}");
    let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1");
    other.write_all(request.as_bytes()).await.expect("sent");
    status(&mut other).await
}

#[tokio::test]
async fn each_part_goes_out_before_the_next_one_comes() {
    let mut raw = Raw::new().await;
    raw.begin("content-type: text/event-stream\r\n").await;
    assert_eq!(raw.pieces.begun().await.as_deref(), Some("text/event-stream"));
    for part in ["one", "two"] {
        raw.chunk(part).await;
        assert_eq!(raw.pieces.next().await, Some(Bytes::from_static(part.as_bytes())));
        assert!(!raw.shared.is_answered());
    }
    raw.send("0\r\n\r\n").await;
    assert_eq!(raw.shared.answer("a").await, Answer::Streamed);
    assert_eq!(raw.status().await, "202");
}

#[tokio::test]
async fn nothing_else_can_answer_while_one_is_streamed() {
    let mut raw = Raw::new().await;
    raw.begin("").await;
    raw.pieces.begun().await;
    for (id, what, refused) in
        [("a", "response", "403"), ("a", "error", "403"), ("b", "response", "400")]
    {
        assert_eq!(post(&raw, id, what).await, refused, "{id} {what}");
    }
    let refused = raw.shared.state.lock().next();
    assert_eq!(refused, Err(Refusal::Transition), "it has not answered yet");
    raw.chunk("x").await;
    raw.send("0\r\n\r\n").await;
    assert_eq!(raw.shared.answer("a").await, Answer::Streamed);
    assert_eq!(raw.status().await, "202");
    assert_eq!(post(&raw, "a", "response").await, "403", "answered twice");
    assert!(!raw.shared.is_answered());
}

#[tokio::test]
async fn an_error_in_the_trailers_ends_it() {
    let document = "eyJlcnJvclR5cGUiOiJBIn0="; // {"errorType":"A"}
    let unworded = "{\"errorType\":\"My.Kind\",\"errorMessage\":\"The function failed while it was \
                    streaming its response.\"}";
    for (body, expected) in [
        (document, "{\"errorType\":\"A\"}"),
        ("no base64!", unworded),
        ("//8=", unworded), // two bytes that are no UTF-8
        ("", unworded),
    ] {
        let mut raw = Raw::new().await;
        raw.begin("trailer: lambda-runtime-function-error-type\r\n").await;
        raw.chunk("half").await;
        raw.send(&format!(
            "0\r\nLambda-Runtime-Function-Error-Type: My.Kind\r\n\
             Lambda-Runtime-Function-Error-Body: {body}\r\n\r\n"
        ))
        .await;
        let error = raw.failure().await;
        assert_eq!(
            (error.error_type.as_str(), &error.payload[..]),
            ("My.Kind", expected.as_bytes())
        );
        assert_eq!(raw.pieces.next().await, Some(Bytes::from_static(b"half")));
        assert_eq!(raw.status().await, "202");
    }
}

#[tokio::test]
async fn trailers_without_an_error_are_none() {
    let mut raw = Raw::new().await;
    raw.begin("").await;
    raw.send("0\r\nX-Other: 1\r\nLambda-Runtime-Function-Error-Body: e30=\r\n\r\n").await;
    assert_eq!(raw.shared.answer("a").await, Answer::Streamed);
}

#[tokio::test]
async fn what_breaks_off_is_told_as_truncated() {
    let too_long = format!("0\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    for end in ["5\r\nha", "zz\r\n", "0\r\nno trailer\r\n\r\n", &too_long] {
        let mut raw = Raw::new().await;
        raw.begin("").await;
        raw.chunk("x").await;
        // The server may have closed before all of it was sent.
        raw.connection.write_all(end.as_bytes()).await.ok();
        raw.connection.shutdown().await.ok();
        assert_eq!(raw.shared.answer("a").await, Answer::Truncated, "{end:.20}");
        assert_eq!(raw.pieces.next().await, Some(Bytes::from_static(b"x")));
    }
}

#[tokio::test]
async fn a_length_instead_of_chunks_streams_as_well() {
    let mut raw = Raw::new().await;
    raw.send(&format!("{HEAD_LINES}content-length: 5\r\n\r\nwh")).await;
    assert_eq!(raw.pieces.next().await, Some(Bytes::from_static(b"wh")));
    raw.send("ole").await;
    assert_eq!(raw.shared.answer("a").await, Answer::Streamed);
    assert_eq!(raw.pieces.next().await, Some(Bytes::from_static(b"ole")));
}

#[tokio::test]
async fn endless_bytes_end_at_the_limit() {
    let mut raw = Raw::new().await;
    raw.begin("").await;
    let (shared, tasks) = (Arc::clone(&raw.shared), raw.tasks.clone());
    let Raw { connection, mut pieces, .. } = raw;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let endless = tasks.spawn(async move {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let mut size = 0;
    let taking = async {
        while let Some(piece) = pieces.next().await {
            size += piece.len() as u64;
        }
    };
    tokio::select! {
        () = taking => panic!("the platform closes it, not the runtime's connection"),
        answer = shared.answer("a") => assert_eq!(answer, Answer::StreamTooLarge),
    }
    while let Some(piece) = futures_util::FutureExt::now_or_never(pieces.next()).flatten() {
        size += piece.len() as u64;
    }
    assert_eq!(size, limits::STREAMED_RESPONSE.as_bytes());
    assert_eq!(status(&mut reader).await, "413");
    endless.abort();
}
