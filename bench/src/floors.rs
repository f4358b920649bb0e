//! The floors: what the parts cost without us.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::cpu::{Pinning, Side};
use crate::http_client::Target;
use crate::platform::Language;

/// The event of every measurement: 106 bytes of JSON.
pub(crate) const EVENT: &str = r#"{"name": "world", "number": 42, "list": [1, 2, 3], "text": "some text of a usual length for an event"}   "#;

/// A child process that ends with its owner.
#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Nothing can be done about a child that is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The bare hyper server, in a process of its own.
#[derive(Debug)]
pub(crate) struct HttpFloor {
    target: Target,
    _server: Owned,
}

impl HttpFloor {
    /// Starts the server where its side belongs, and leaves the caller on the load's side.
    pub(crate) fn start(pinning: Pinning) -> Result<Self> {
        pinning.apply(Side::Server)?;
        let mut server = Owned(
            Command::new(std::env::current_exe()?).arg("hyper").stdout(Stdio::piped()).spawn()?,
        );
        pinning.apply(Side::Load)?;
        let mut line = [0; 64];
        let count = server.0.stdout.as_mut().context("a pipe was asked for")?.read(&mut line)?;
        let address: SocketAddr = std::str::from_utf8(&line[..count])?.trim().parse()?;
        let target =
            Target::post(address, "/", &[("host".into(), address.to_string())], EVENT.as_bytes());
        Ok(Self { target, _server: server })
    }

    /// Where to send requests.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}

/// The floor of HTTP: reads a body, answers a constant.
pub(crate) fn hyper_server() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        crate::report::say(&listener.local_addr()?.to_string());
        let tasks = tokio_util::task::TaskTracker::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tasks.spawn(async move {
                let service =
                    service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let body = Limited::new(request.into_body(), 1 << 20);
                        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
                        body.collect().await.map_err(|error| anyhow::anyhow!(error))?;
                        let answer =
                            Bytes::from_static(br#"{"statusCode": 200, "body": "hello world"}"#);
                        Ok::<_, anyhow::Error>(http::Response::new(Full::new(answer)))
                    });
                let connection = hyper::server::conn::http1::Builder::new();
                // A load that goes away is no error of the floor's.
                drop(connection.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    })
}

/// A process of one language at the other end of a socketpair.
#[derive(Debug)]
pub(crate) struct PipeFloor {
    stream: UnixStream,
    frame: Vec<u8>,
    answer: Vec<u8>,
    _child: Owned,
}

impl PipeFloor {
    /// Starts the child where its side belongs, and waits for its first answer.
    pub(crate) fn start(language: &Language, pinning: Pinning) -> Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        pinning.apply(Side::Server)?;
        let child = spawn_with_socket(language, theirs.into())?;
        pinning.apply(Side::Load)?;
        let length = u32::try_from(EVENT.len())?.to_le_bytes();
        let frame = [&length[..], EVENT.as_bytes()].concat();
        let mut floor = Self { stream, frame, answer: vec![0; 4096], _child: Owned(child) };
        floor.round_trip()?;
        Ok(floor)
    }

    /// Sends one event and reads its answer.
    pub(crate) fn round_trip(&mut self) -> Result<()> {
        self.stream.write_all(&self.frame)?;
        let count = self.stream.read(&mut self.answer)?;
        ensure!(count > 4, "the floor's child ended");
        Ok(())
    }
}

/// Starts the child with the socket as its standard input.
fn spawn_with_socket(language: &Language, socket: OwnedFd) -> Result<Child> {
    let floors = Path::new(env!("CARGO_MANIFEST_DIR")).join("floors");
    let mut command = match language {
        Language::Python { interpreter } => {
            let mut python = Command::new(interpreter);
            python.args(["-I", "-S"]).arg(floors.join("child.py"));
            python
        }
        Language::Node { interpreter } => {
            let mut node = Command::new(interpreter);
            node.arg(floors.join("child.js"));
            node
        }
        Language::Compiled => {
            let mut own = Command::new(std::env::current_exe()?);
            own.arg("child");
            own
        }
    };
    command.stdin(Stdio::from(socket)).spawn().context("cannot start the floor's child")
}

/// The floor of a compiled function: read a frame, parse it, answer it.
pub(crate) fn compiled_child() -> Result<()> {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut frame = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut frame)?;
        if count <= 4 {
            return Ok(());
        }
        let event: serde_json::Value = serde_json::from_slice(&frame[4..count])?;
        let answer = serde_json::json!({"statusCode": 200, "body": event["name"]}).to_string();
        let length = u32::try_from(answer.len())?.to_le_bytes();
        stream.write_all(&[&length[..], answer.as_bytes()].concat())?;
    }
}
