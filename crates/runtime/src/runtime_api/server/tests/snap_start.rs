//! What is there for runtimes with SnapStart.

use std::net::Ipv4Addr;

use lacewing_model::Secret;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use super::*;

fn terms() -> SnapStart {
    SnapStart::new(credentials("A"))
}

fn credentials(key: &str) -> Credentials {
    Credentials {
        access_key_id: key.to_owned(),
        secret_access_key: Secret::new("secret".to_owned()),
        session_token: None,
        expires: None,
    }
}

async fn client_of(terms: &SnapStart) -> Client {
    let shared = Arc::new(Shared::new(1, Some(terms.clone())));
    let tasks = TaskTracker::new();
    let sender = connect(&shared, &tasks).await;
    Client { shared, sender, tasks }
}

/// Waits until a call waits.
async fn asked(shared: &Shared) {
    while shared.of_copy(credentials("B")).expect("terms").asked().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn keys_are_for_who_has_the_word() {
    let terms = terms();
    let mut client = client_of(&terms).await;
    for (word, status) in [(terms.authorization().expose().as_str(), 200), ("x", 403), ("", 403)] {
        let request = Request::get("/2021-04-23/credentials").header("host", "x");
        let request = request.header("authorization", word).body(full("")).expect("valid");
        assert_eq!(client.send(request).await.status, status);
    }
    let mut usual = super::client().await;
    assert_eq!(usual.call("GET", "/2021-04-23/credentials", "").await.status, 404);
    assert_eq!(usual.call("POST", "/2018-06-01/runtime/restore/error", "{}").await.status, 404);
}

#[tokio::test]
async fn only_a_copy_can_fail_to_go_on() {
    let terms = terms();
    let mut client = client_of(&terms).await;
    let path = "/2018-06-01/runtime/restore/error";
    assert_eq!(client.call("POST", path, "{}").await.status, 403);
    let copy = terms.of_copy(credentials("B"), Vec::new());
    let mut client = client_of(&copy).await;
    assert_eq!(client.call("GET", "/2018-06-01/runtime/restore/next", "").await.status, 200);
    assert_eq!(client.call("POST", path, "{\"errorMessage\": \"no\"}").await.status, 202);
    let Readiness::Failed(error) = client.shared.readiness().await else { panic!("it failed") };
    assert_eq!(&error.payload[..], b"{\"errorMessage\": \"no\"}");
    assert_eq!(client.call("GET", "/2018-06-01/runtime/invocation/next", "").await.status, 403);
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        assert!(stream.read_buf(&mut read).await.expect("read") > 0);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// A copy's connection comes from the same port, and says nothing more.
#[tokio::test]
async fn a_call_that_waited_when_it_was_copied_is_answered_in_the_copy() {
    for (path, readiness) in [("restore/next", false), ("invocation/next", true)] {
        let tasks = TaskTracker::new();
        let listen = async || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
            (listener.local_addr().expect("bound"), listener)
        };
        let (place, listener) = listen().await;
        let shared = Arc::new(Shared::new(1, Some(terms())));
        let serving = tasks.spawn(serve(listener, Arc::clone(&shared)));
        let mut first = TcpStream::connect(place).await.expect("connected");
        let port = first.local_addr().expect("connected").port();
        let head = format!("GET /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        first.write_all(head.as_bytes()).await.expect("sent");
        asked(&shared).await;
        assert_eq!(shared.readiness().await, Readiness::Ready);
        let copied = shared.of_copy(credentials("B")).expect("terms");
        serving.abort();
        first.set_zero_linger().expect("set");
        drop(first);

        let (place, listener) = listen().await;
        let copy = Arc::new(Shared::new(1, Some(copied)));
        let serving = tasks.spawn(serve(listener, Arc::clone(&copy)));
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("set");
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).expect("the same port");
        let mut anew = socket.connect(place).await.expect("connected");
        if readiness {
            assert_eq!(copy.readiness().await, Readiness::Ready);
            copy.offer(event("a"), None);
        }
        let reply = read_until(&mut anew, "\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
        assert_eq!(reply.contains("lambda-runtime-aws-request-id: a"), readiness, "{reply}");
        // It goes on as any.
        anew.write_all(b"GET /2018-06-01/ping HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        read_until(&mut anew, "pong").await;
        serving.abort();
    }
}
