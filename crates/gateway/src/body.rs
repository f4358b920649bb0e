//! Bodies: reading a request's within bounds, and the one type of an answer's.
//!
//! A request's body is hashed while it arrives and becomes one `Bytes`; if it comes in one piece it
//! is never copied. What is larger than its operation allows is discarded, up to a bound, so that the
//! client has finished sending when it gets to read the refusal.
//!
//! # Slow senders
//!
//! A body is read before its signature can be checked, so whoever knows the id of a key makes us hold
//! memory. A small body is not counted: it costs no more than its connection, and takes no lock. A
//! large one is bounded in three ways:
//!
//! * Memory is promised before the body is read, for its whole declared length and in turn: who was
//!   promised memory can finish, so that no two bodies ever wait for each other. (Taking memory step by
//!   step, as the bytes come, can end with all of them waiting, and then some must be thrown away.)
//! * What is promised must be used: so many bytes in each window of time ([`pace`]), and more of them
//!   while others wait. Who does not keep pace is cut off; a client of AWS tries again by itself.
//! * No peer has all: each has a share ([`memory`]), and bodies that are as large as archives have a
//!   pool of their own, so that slow uploads never hold up calls.
//!
//! Proxies that spool bodies to a disk (nginx's `client_body_temp_path`) need no such bound on memory
//! and need one on the disk; here every body ends in memory, where its reader wants it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use lacewing_model::{ByteSize, Digest, limits};
use tokio::time::{Instant, timeout, timeout_at};

use memory::{Pool, Reservation};
use pace::Pace;

pub(crate) use memory::Peer;

mod memory;
mod pace;

/// The body of an answer: all of it, or a stream of pieces.
pub(crate) type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, FrameResult>>>;
/// A piece of a streamed answer.
pub(crate) type FrameResult = std::io::Result<Frame<Bytes>>;

/// Bodies up to this size are not counted against the memory for bodies.
const SMALL: u64 = 64 * 1024;
/// Bodies above this size are archives: no other operation takes so much.
const ARCHIVE: u64 = limits::CONTROL_REQUEST.as_bytes();
/// How long a small body may take to arrive.
const SMALL_PATIENCE: Duration = Duration::from_secs(30);
/// How long a body waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of a refused body that are discarded.
const DISCARD: u64 = 160 * 1024 * 1024;
/// Longest time that is spent on discarding.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// An answer's body that is there at once.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// An answer without a body.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// An answer's body that comes in pieces.
pub(crate) fn stream(pieces: BoxStream<'static, std::io::Result<Bytes>>) -> Body {
    use futures_util::StreamExt;
    Either::Right(StreamBody::new(pieces.map(|piece| piece.map(Frame::data)).boxed()))
}

/// A request's body, counted against the memory for bodies as long as this lives.
#[derive(Debug)]
pub(crate) struct Received {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// Their SHA-256.
    pub(crate) digest: Digest,
    _memory: Option<Reservation>,
}

/// Why a body was not received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// It is larger than allowed.
    #[error("The body is larger than allowed.")]
    TooLarge,
    /// It did not arrive in time.
    #[error("The body did not arrive in time.")]
    TooSlow,
    /// There was no memory for it in time.
    #[error("There is no memory for another large request at the moment.")]
    NoMemory,
    /// The connection failed.
    #[error("The body could not be read.")]
    Broken(#[source] hyper::Error),
}

/// Reads bodies; all of them together use a bounded amount of memory.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    bodies: Arc<Pool>,
    archives: Arc<Pool>,
    patience: Duration,
}

impl Receiver {
    /// Bodies of calls together take at most `bodies`, archives `archives`; one peer at most two
    /// thirds of each. A body has `patience` to arrive.
    pub(crate) fn new(bodies: ByteSize, archives: ByteSize, patience: Duration) -> Self {
        let pool = |size: ByteSize| {
            let share = ByteSize::bytes(size.as_bytes() / 3 * 2);
            Arc::new(Pool::new(size, share))
        };
        Self { bodies: pool(bodies), archives: pool(archives), patience }
    }

    /// All bodies, archives too, take at most `memory` together, and those of one peer `share`, or
    /// what a single one takes that is larger.
    pub(crate) fn shared(memory: ByteSize, share: ByteSize, patience: Duration) -> Self {
        let pool = Arc::new(Pool::new(memory, share));
        Self { bodies: Arc::clone(&pool), archives: pool, patience }
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn receive(
        &self,
        peer: Peer,
        body: Incoming,
        headers: &HeaderMap,
        limit: ByteSize,
    ) -> Result<Received, ReceiveError> {
        let limit = limit.as_bytes();
        let expected = body.size_hint().upper().unwrap_or(limit);
        if expected > limit {
            discard(body, headers).await;
            return Err(ReceiveError::TooLarge);
        }
        if expected <= SMALL {
            let deadline = Instant::now() + self.patience.min(SMALL_PATIENCE);
            let read = timeout_at(deadline, read(body, headers, expected, limit, None)).await;
            let (bytes, digest) = read.map_err(|_| ReceiveError::TooSlow)??;
            return Ok(Received { bytes, digest, _memory: None });
        }
        let pool = if expected > ARCHIVE { &self.archives } else { &self.bodies };
        let patience = self.patience.min(MEMORY_PATIENCE);
        let Ok(memory) = timeout(patience, pool.reserve(peer, expected)).await else {
            discard(body, headers).await;
            return Err(ReceiveError::NoMemory);
        };
        let read =
            timeout(self.patience, read(body, headers, expected, limit, Some(&memory))).await;
        let (bytes, digest) = read.map_err(|_| ReceiveError::TooSlow)??;
        Ok(Received { bytes, digest, _memory: Some(memory) })
    }
}

/// Reads a body; one for which memory is kept must keep pace.
async fn read(
    mut body: Incoming,
    headers: &HeaderMap,
    expected: u64,
    limit: u64,
    memory: Option<&Reservation>,
) -> Result<(Bytes, Digest), ReceiveError> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut size = 0;
    let mut pace = memory.map(|memory| (Pace::begin(Instant::now()), memory));
    while let Some(frame) = next(&mut body, &mut pace).await? {
        let Ok(data) = frame.into_data() else { continue };
        size += data.len() as u64;
        if size > limit {
            discard(body, headers).await;
            return Err(ReceiveError::TooLarge);
        }
        hash.update(&data);
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(usize::try_from(expected).unwrap_or(0));
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    let digest = Digest::new(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"));
    Ok((if rest.is_empty() { first } else { rest.freeze() }, digest))
}

/// The body's next frame.
async fn next(
    body: &mut Incoming,
    pace: &mut Option<(Pace, &Reservation)>,
) -> Result<Option<Frame<Bytes>>, ReceiveError> {
    let Some((pace, memory)) = pace else {
        return body.frame().await.transpose().map_err(ReceiveError::Broken);
    };
    loop {
        match timeout_at(pace.ends(), body.frame()).await {
            Ok(frame) => {
                let frame = frame.transpose().map_err(ReceiveError::Broken)?;
                let data = frame.as_ref().and_then(Frame::data_ref);
                pace.came(data.map_or(0, |data| data.len() as u64));
                return Ok(frame);
            }
            Err(_) if pace.go_on(Instant::now(), memory.is_wanted()) => {}
            Err(_) => return Err(ReceiveError::TooSlow),
        }
    }
}

/// Reads what the client still sends and forgets it, within bounds of size and time.
///
/// A client that waits for `100 Continue` sends nothing until the body is polled: it is left alone.
pub(crate) async fn discard(mut body: Incoming, headers: &HeaderMap) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let all = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, |data| data.len() as u64);
            if size > DISCARD {
                return;
            }
        }
    };
    // Running out of time is one way to be done: the connection is closed in either case.
    let _elapsed = timeout(DISCARD_TIME, all).await;
}
