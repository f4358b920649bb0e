//! The load: one request, made and signed once, sent again and again over kept connections.
//!
//! Replaying a signed request is accepted for five minutes, so the load costs next to nothing and
//! what is measured is the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of an answer that are read.
const MOST: u64 = 1 << 20;

/// A request as bytes, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The server.
    pub(crate) address: SocketAddr,
    /// Head and body as they go over the wire.
    pub(crate) request: Vec<u8>,
}

impl Target {
    /// Makes the bytes of a POST.
    pub(crate) fn post(
        address: SocketAddr,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Self {
        Self { address, request: message("POST", path, headers, body) }
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Connection { stream, request: self.request.clone(), buffer: vec![0; 16 << 10] })
    }
}

/// One kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends the request and reads the whole answer.
    pub(crate) fn request(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(count > 0, "the server closed the connection");
            filled += count;
            if is_whole(&self.buffer[..filled])? {
                return Ok(());
            }
        }
    }
}

/// A request as it goes over the wire.
fn message(method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Makes one request on a connection of its own and gives the body of its answer. What a function
/// failed with is an answer, too.
pub(crate) fn once(
    address: SocketAddr,
    method: &str,
    path: &str,
    mut headers: Vec<(String, String)>,
    body: &[u8],
) -> Result<Vec<u8>> {
    headers.push(("connection".to_owned(), "close".to_owned()));
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(&message(method, path, &headers, body))?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    let told = || String::from_utf8_lossy(&answer).into_owned();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.with_context(|| format!("{method} {path} was cut off: {}", told()))?;
    ensure!(answer.starts_with(b"HTTP/1.1 2"), "{method} {path} failed: {}", told());
    Ok(answer.split_off(end + 4))
}

/// The latency of each answer over several connections at once, and how long all took.
pub(crate) fn crowd(
    target: &Target,
    connections: usize,
    length: Duration,
) -> Result<(Vec<Duration>, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let mut load = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let target = target.clone();
            load.spawn(async move { keep_asking(&target, started + length).await });
        }
        let mut latencies = Vec::new();
        while let Some(done) = load.join_next().await {
            latencies.extend(done??);
        }
        Ok((latencies, started.elapsed()))
    })
}

/// Sends the request over so many connections at the same moment, and gives how long after it each
/// was answered.
pub(crate) fn burst(target: &Target, connections: usize) -> Result<Vec<Duration>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = tokio::net::TcpStream::connect(target.address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let started = Instant::now();
        let mut load = tokio::task::JoinSet::new();
        for mut stream in streams {
            stream.write_all(&target.request).await?;
            load.spawn(async move {
                answer(&mut stream, &mut vec![0; 16 << 10]).await.map(|()| started.elapsed())
            });
        }
        let mut answers = Vec::new();
        while let Some(done) = load.join_next().await {
            answers.push(done??);
        }
        Ok(answers)
    })
}

/// Reads a whole answer.
async fn answer(stream: &mut tokio::net::TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
        if is_whole(&buffer[..filled])? {
            return Ok(());
        }
    }
}

async fn keep_asking(target: &Target, until: Instant) -> Result<Vec<Duration>> {
    let mut stream = tokio::net::TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    let mut latencies = Vec::with_capacity(1 << 12);
    loop {
        let before = Instant::now();
        if before >= until {
            return Ok(latencies);
        }
        stream.write_all(&target.request).await?;
        answer(&mut stream, &mut buffer).await?;
        latencies.push(before.elapsed());
    }
}

/// Whether these bytes are a whole answer; an answer that is no success is an error.
fn is_whole(bytes: &[u8]) -> Result<bool> {
    let Some(head_end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&bytes[..head_end])?;
    if !head.starts_with("HTTP/1.1 200")
        || head.to_ascii_lowercase().contains("x-amz-function-error")
    {
        bail!("unexpected answer: {}", String::from_utf8_lossy(bytes));
    }
    let header = |wanted: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok(bytes.ends_with(b"\r\n0\r\n\r\n"));
    }
    let length: usize =
        header("content-length").context("an answer without content-length")?.parse()?;
    Ok(bytes.len() >= head_end + 4 + length)
}
