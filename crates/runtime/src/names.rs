//! Answers sandboxes that ask for names: a relay between them and the host's resolvers.
//!
//! ```text
//!  sandbox --query--> [relay: checked, renumbered] --from a fresh port--> resolver
//!  sandbox <--answer-- [of that query? leads nowhere refused?] <---------- resolver
//! ```
//!
//! Its sockets are bound in the router of the sandboxes, so that nobody else reaches them and the
//! sender's address is true. It keeps nothing, and never asks on behalf of a sandbox that has too
//! many questions open.

mod message;
mod resolvers;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use lacewing_sandbox::{NameServer, Policy};

use message::LONGEST;
pub(crate) use message::{Query, Verdict};
use resolvers::Resolvers;

/// Questions that one sandbox may have open at a time; more get no answer, as when packets are lost.
const OPEN: u32 = 64;
/// Questions that all may have open.
const OPEN_IN_ALL: u32 = 2048;
/// Time for one resolver to answer; a client asks again after about as long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Resolvers that are asked one after another.
const ATTEMPTS: usize = 2;
/// How long a connection may stay without a question.
const IDLE: Duration = Duration::from_secs(10);

/// The relay; cheap to clone.
#[derive(Clone, Debug)]
pub struct NameRelay(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    udp: UdpSocket,
    tcp: TcpListener,
    resolvers: Resolvers,
    policy: Policy,
    open: Mutex<Open>,
}

/// How many questions are open.
#[derive(Debug, Default)]
struct Open {
    all: u32,
    by_sandbox: HashMap<IpAddr, u32>,
}

impl NameRelay {
    /// The file in which the host names its resolvers.
    pub const RESOLVERS: &str = resolvers::FILE;

    /// Takes the sockets over; without `resolvers` the host's own are asked, as its
    /// `/etc/resolv.conf` names them at the time.
    ///
    /// # Errors
    /// If the sockets cannot be used; it must be called within a runtime.
    pub fn new(
        sockets: NameServer,
        resolvers: Vec<SocketAddr>,
        policy: Policy,
    ) -> io::Result<Self> {
        let udp = UdpSocket::from_std(sockets.udp)?;
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let resolvers = Resolvers::new(resolvers);
        Ok(Self(Arc::new(Shared { udp, tcp, resolvers, policy, open: Mutex::default() })))
    }

    /// Serves until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut buffer = [0; LONGEST];
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                received = self.0.udp.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.datagram(&buffer[..length], from, &tasks),
                    Err(error) => pause("receive a query", &error).await,
                },
                accepted = self.0.tcp.accept() => match accepted {
                    Ok((stream, from)) => self.connection(stream, from, &tasks),
                    Err(error) => pause("accept a connection", &error).await,
                },
            }
        }
        // What is open is of sandboxes that are about to end.
    }

    fn datagram(&self, bytes: &[u8], from: SocketAddr, tasks: &TaskTracker) {
        let Some(query) = Query::parse(bytes) else { return };
        let Some(ticket) = self.enter(from.ip()) else { return };
        let this = self.clone();
        tasks.spawn(async move {
            let answer = this.ask(&query, Way::Datagram).await;
            // A sandbox that is gone wants none.
            this.0.udp.send_to(&answer, from).await.ok();
            drop(ticket);
        });
    }

    fn connection(&self, mut stream: TcpStream, from: SocketAddr, tasks: &TaskTracker) {
        // It counts as a question for as long as it stays.
        let Some(ticket) = self.enter(from.ip()) else { return };
        let this = self.clone();
        tasks.spawn(async move {
            while let Ok(Ok(bytes)) = timeout(IDLE, read(&mut stream)).await {
                let Some(query) = Query::parse(&bytes) else { break };
                let answer = this.ask(&query, Way::Stream).await;
                if !matches!(timeout(IDLE, write(&mut stream, &answer)).await, Ok(Ok(()))) {
                    break;
                }
            }
            drop(ticket);
        });
    }

    /// Asks one resolver after another; there is always an answer.
    async fn ask(&self, query: &Query, way: Way) -> Vec<u8> {
        for resolver in self.0.resolvers.list().into_iter().take(ATTEMPTS) {
            let asked = async {
                match way {
                    Way::Datagram => self.ask_by_datagram(query, resolver).await,
                    Way::Stream => self.ask_by_stream(query, resolver).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "A resolver failed."),
                Err(_) => tracing::debug!(%resolver, "A resolver did not answer."),
            }
        }
        query.failure()
    }

    async fn ask_by_datagram(&self, query: &Query, resolver: SocketAddr) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match resolver {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        // A port of its own for each, and a number: what a forger would have to guess (RFC 5452).
        let socket = UdpSocket::bind(any).await?;
        socket.connect(resolver).await?;
        let number = number();
        socket.send(&query.numbered(number)).await?;
        let mut buffer = [0; LONGEST];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if let Some(answer) = self.judge(query, number, &buffer[..length]) {
                return Ok(answer);
            }
        }
    }

    async fn ask_by_stream(&self, query: &Query, resolver: SocketAddr) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(resolver).await?;
        let number = number();
        write(&mut stream, &query.numbered(number)).await?;
        let bytes = read(&mut stream).await?;
        self.judge(query, number, &bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn judge(&self, query: &Query, number: u16, answer: &[u8]) -> Option<Vec<u8>> {
        match query.judge(number, answer, &self.0.policy) {
            Verdict::Pass(answer) => Some(answer),
            Verdict::Strip(answer) => {
                tracing::debug!("An answer led to a refused address and was emptied.");
                Some(answer)
            }
            Verdict::Ignore => None,
        }
    }

    /// Counts a question in, if there is room for it.
    fn enter(&self, sandbox: IpAddr) -> Option<Ticket> {
        let mut open = self.0.open.lock();
        let own = open.by_sandbox.get(&sandbox).copied().unwrap_or(0);
        if own >= OPEN || open.all >= OPEN_IN_ALL {
            return None;
        }
        open.all += 1;
        open.by_sandbox.insert(sandbox, own + 1);
        Some(Ticket { relay: self.clone(), sandbox })
    }
}

/// How a question came, and is passed on.
#[derive(Clone, Copy, Debug)]
enum Way {
    Datagram,
    Stream,
}

/// A question that is open; dropping it counts it out.
#[derive(Debug)]
struct Ticket {
    relay: NameRelay,
    sandbox: IpAddr,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.relay.0.open.lock();
        open.all = open.all.saturating_sub(1);
        match open.by_sandbox.get_mut(&self.sandbox) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(open.by_sandbox.remove(&self.sandbox)),
        }
    }
}

/// A number that nobody can guess.
fn number() -> u16 {
    let [first, second, ..] = *Uuid::new_v4().as_bytes();
    u16::from_be_bytes([first, second])
}

/// Reads one message of a stream, behind its length.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let bytes = [&length.to_be_bytes(), message].concat();
    stream.write_all(&bytes).await
}

/// An error of a socket is often one of many: it must not become a busy loop.
async fn pause(operation: &str, error: &io::Error) {
    tracing::warn!(%error, "The relay of names could not {operation}.");
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[cfg(test)]
mod tests;
