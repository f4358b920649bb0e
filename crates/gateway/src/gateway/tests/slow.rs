//! Clients that announce large bodies and send them slowly or not at all.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

const CALL: &str = "/2015-03-31/functions/hello/invocations";
const LARGE: usize = 2 << 20;

impl Server {
    /// Connects from one of the loopback's addresses and announces a body of which nothing comes.
    async fn announce(&self, last: u8, target: &str, length: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        socket.bind(from).expect("an address of the loopback");
        let stream = socket.connect(self.address).await.expect("connects");
        self.announce_on(stream, target, length).await
    }

    async fn announce_on(&self, mut stream: TcpStream, target: &str, length: usize) -> TcpStream {
        let mut head = format!("POST {target} HTTP/1.1\r\ncontent-length: {length}\r\n");
        for (name, value) in self.request(Method::POST, target, b"not this").headers() {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().expect("ASCII")));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.expect("writes");
        stream
    }

    /// A call with a large body from 127.0.0.1; that its function is not there shows that it was read.
    async fn call_with(&self, body: &[u8]) -> Reply {
        self.send(self.request(Method::POST, CALL, body)).await
    }
}

fn is_unanswered(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut head = vec![0; 1024];
    let length = stream.read(&mut head).await.expect("an answer");
    String::from_utf8_lossy(&head[..length]).to_lowercase()
}

#[tokio::test]
async fn another_peers_bodies_do_not_wait_for_one_who_sends_nothing() {
    let server = Server::start(|options| options.body_memory = ByteSize::mebibytes(6)).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        slow.push(server.announce(2, CALL, LARGE).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reply = server.call_with(&vec![b' '; LARGE]).await;
    assert!(slow.iter().all(is_unanswered), "it waited until they were cut off");
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "read, and there is no invoker");
    drop(slow);
    server.end().await;
}

#[tokio::test]
async fn archives_do_not_hold_up_calls() {
    let server = Server::start(|options| options.archive_memory = ByteSize::mebibytes(60)).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(server.announce(1, "/2015-03-31/functions", 60 << 20).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reply = server.call_with(&vec![b' '; LARGE]).await;
    assert!(slow.iter().all(is_unanswered), "it waited until they were cut off");
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "read, and there is no invoker");
    drop(slow);
    server.end().await;
}

#[tokio::test]
async fn who_sends_nothing_is_cut_off_and_the_next_one_served() {
    let server = Server::start(|options| options.body_memory = ByteSize::mebibytes(3)).await;
    let mut slow = server.announce(1, CALL, LARGE).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reply = server.call_with(&vec![b' '; LARGE]).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "read, and there is no invoker");
    let told = answer(&mut slow).await;
    assert!(told.starts_with("http/1.1 408"), "{told}");
    assert!(told.contains("x-amzn-errortype: requesttimeoutexception"), "{told}");
    server.end().await;
}

#[tokio::test]
async fn one_sandbox_does_not_hold_up_another() {
    let mut server = Server::start(|_| {}).await;
    let closed = CancellationToken::new();
    let mut endpoints = Vec::new();
    for _ in 0..2 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        endpoints.push(listener.local_addr().expect("an address"));
        server.tasks.spawn(server.gateway.clone().serve_endpoint(listener, closed.clone()));
    }
    let mut slow = Vec::new();
    for _ in 0..60 {
        let stream = TcpStream::connect(endpoints[0]).await.expect("connects");
        slow.push(server.announce_on(stream, CALL, 6 << 20).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.address = endpoints[1];
    let reply = server.call_with(&vec![b' '; LARGE]).await;
    assert!(slow.iter().all(is_unanswered), "it waited until they were cut off");
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "read, and there is no invoker");
    closed.cancel();
    drop(slow);
    server.end().await;
}
