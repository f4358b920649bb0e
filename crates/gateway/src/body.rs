//! Bodies: reading a request's within bounds, and the one type of an answer's.
//!
//! A request's body is hashed while it arrives and becomes one `Bytes`; if it comes in one piece it
//! is never copied. What is larger than its operation allows is discarded, up to a bound, so that the
//! client has finished sending when it gets to read the refusal.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use lacewing_model::{ByteSize, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// The body of an answer: all of it, or a stream of pieces.
pub(crate) type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, FrameResult>>>;
/// A piece of a streamed answer.
pub(crate) type FrameResult = std::io::Result<Frame<Bytes>>;

/// Bodies up to this size are not counted against the memory for bodies.
const SMALL: u64 = 64 * 1024;
/// Most bytes of a refused body that are discarded.
const DISCARD: u64 = 160 * 1024 * 1024;
/// Longest time that is spent on discarding.
const DISCARD_TIME: Duration = Duration::from_secs(10);
/// The unit in which the memory for bodies is counted.
const UNIT: u64 = 1024;

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
    _memory: Option<OwnedSemaphorePermit>,
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
    /// The connection failed.
    #[error("The body could not be read.")]
    Broken(#[source] hyper::Error),
}

/// Reads bodies; all of them together use a bounded amount of memory.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    memory: Arc<Semaphore>,
    units: u32,
    patience: Duration,
}

impl Receiver {
    /// Large bodies together take at most `memory`; each has `patience` to arrive.
    pub(crate) fn new(memory: ByteSize, patience: Duration) -> Self {
        let units = u32::try_from(memory.as_bytes() / UNIT).unwrap_or(u32::MAX);
        Self { memory: Arc::new(Semaphore::new(units as usize)), units, patience }
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn receive(
        &self,
        body: Incoming,
        headers: &HeaderMap,
        limit: ByteSize,
    ) -> Result<Received, ReceiveError> {
        let limit = limit.as_bytes();
        let deadline = Instant::now() + self.patience;
        let expected = body.size_hint().upper().unwrap_or(limit);
        if expected > limit {
            discard(body, headers).await;
            return Err(ReceiveError::TooLarge);
        }
        let memory = match expected {
            ..=SMALL => None,
            size => Some(
                timeout_at(deadline, self.reserve(size))
                    .await
                    .map_err(|_| ReceiveError::TooSlow)?,
            ),
        };
        let read = timeout_at(deadline, read(body, headers, expected, limit));
        let (bytes, digest) = read.await.map_err(|_| ReceiveError::TooSlow)??;
        Ok(Received { bytes, digest, _memory: memory })
    }

    /// Waits for memory; never asks for more than there is.
    async fn reserve(&self, size: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        Arc::clone(&self.memory).acquire_many_owned(units).await.expect("it is never closed")
    }
}

async fn read(
    mut body: Incoming,
    headers: &HeaderMap,
    expected: u64,
    limit: u64,
) -> Result<(Bytes, Digest), ReceiveError> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ReceiveError::Broken)?.into_data() else { continue };
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
