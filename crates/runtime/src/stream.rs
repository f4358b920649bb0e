//! A response on its way from a function to a caller who takes it piece by piece.
//!
//! [`channel`] makes the two ends. The runtime puts pieces into the [`Outlet`] and waits while there
//! is no room: this is the back-pressure. The caller takes them from the [`Pieces`]. When the caller
//! is gone, pieces are counted and dropped: as AWS documents, the function runs to its end. It never
//! holds more than 256 KiB and one piece, never copies a piece, and never says that a response
//! is whole: the end of the invocation does.
//!
//! See "Response streaming for Lambda functions",
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html>.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use lacewing_model::limits;

use crate::runtime_api::Answer;

/// Bytes that wait for the caller before the function has to.
const ROOM: usize = 256 * 1024;
/// Longest piece.
pub(crate) const PIECE: usize = 64 * 1024;
/// What a piece counts for beside its bytes, so that tiny ones are bounded, too.
const OVERHEAD: usize = 64;
/// Longest content type that is passed on.
const CONTENT_TYPE: usize = 256;
/// The type of a streamed response that names none.
const DEFAULT_TYPE: &str = "application/octet-stream";

/// Where the function's side puts the pieces; clones are the same outlet.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Shared>);

/// Where the caller's side takes them.
#[derive(Debug)]
pub struct Pieces(Arc<Shared>);

/// Closes an outlet when it is dropped, whatever becomes of its owner.
#[derive(Debug)]
pub struct Closing(Outlet);

/// Takes the parts of one streamed response: for an outlet if the caller wants a stream, else
/// until it is whole.
#[derive(Debug)]
pub(crate) enum Intake {
    Forwarded(Outlet),
    Collected(BytesMut),
}

/// The response is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something for the caller.
    filled: Notify,
    /// There is room again, or nobody wants more.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    content_type: Option<String>,
    queue: VecDeque<Bytes>,
    /// Bytes in the queue, with what each piece counts for beside them.
    weight: usize,
    /// Bytes that the function has streamed.
    size: u64,
    is_closed: bool,
    is_abandoned: bool,
}

/// Makes the two ends.
pub fn channel() -> (Outlet, Pieces) {
    let shared = Arc::new(Shared::default());
    (Outlet(Arc::clone(&shared)), Pieces(shared))
}

// === Outlet ===

impl Outlet {
    /// The function has begun to stream.
    pub fn begin(&self, content_type: &str) {
        let is_usable = |text: &&str| {
            let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            (1..=CONTENT_TYPE).contains(&text.len()) && text.bytes().all(is_visible)
        };
        let content_type = Some(content_type).filter(is_usable).unwrap_or(DEFAULT_TYPE);
        self.0.state.lock().content_type = Some(content_type.to_owned());
        self.0.filled.notify_one();
    }

    /// Waits for room and puts `data` in, in pieces. Done at once when nobody wants it any more.
    pub async fn send(&self, mut data: Bytes) {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let mut waiting = Some(piece);
            while let Some(piece) = waiting.take() {
                let mut emptied = pin!(self.0.emptied.notified());
                emptied.as_mut().enable();
                waiting = self.0.state.lock().put(piece);
                if waiting.is_some() {
                    emptied.await;
                } else {
                    self.0.filled.notify_one();
                }
            }
        }
    }

    /// Bytes that the function has streamed so far.
    pub fn size(&self) -> u64 {
        self.0.state.lock().size
    }

    /// Closes it when what this gives is dropped: no more pieces come then.
    pub fn closing(&self) -> Closing {
        Closing(self.clone())
    }

    /// Waits until the caller has all, no longer than `patience`; then what is left is dropped and the
    /// caller's side ends.
    pub async fn taken(&self, patience: Duration) {
        let taken = async {
            loop {
                let mut emptied = pin!(self.0.emptied.notified());
                emptied.as_mut().enable();
                if self.0.state.lock().queue.is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        if timeout(patience, taken).await.is_err() {
            self.0.abandon();
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.0.state.lock().is_closed = true;
        self.0.0.filled.notify_one();
        self.0.0.emptied.notify_waiters();
    }
}

// === Pieces ===

impl Pieces {
    /// Waits until the function begins to stream and gives the content type; `None` if it was over
    /// before.
    pub async fn begun(&mut self) -> Option<String> {
        loop {
            let filled = self.0.filled.notified();
            {
                let state = self.0.state.lock();
                if state.content_type.is_some() || state.is_closed {
                    return state.content_type.clone();
                }
            }
            filled.await;
        }
    }

    /// Waits for the next piece; `None` after the last one, or when it took so long that what was
    /// left was dropped.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let filled = self.0.filled.notified();
            {
                let mut state = self.0.state.lock();
                if let Some(piece) = state.queue.pop_front() {
                    state.weight -= piece.len() + OVERHEAD;
                    drop(state);
                    self.0.emptied.notify_waiters();
                    return Some(piece);
                }
                if state.is_closed || state.is_abandoned {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Whether pieces were dropped because they were not taken in time.
    pub fn is_abandoned(&self) -> bool {
        self.0.state.lock().is_abandoned
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Shared {
    /// Nobody takes pieces any more.
    fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_abandoned = true;
        state.queue = VecDeque::new();
        state.weight = 0;
        drop(state);
        self.emptied.notify_waiters();
        self.filled.notify_one();
    }
}

impl State {
    /// Takes a piece, or gives it back if there is no room. One always fits into an empty queue.
    fn put(&mut self, piece: Bytes) -> Option<Bytes> {
        let weight = piece.len() + OVERHEAD;
        let is_wanted = !self.is_abandoned && !self.is_closed;
        if is_wanted && self.weight > 0 && self.weight + weight > ROOM {
            return Some(piece);
        }
        self.size += piece.len() as u64;
        if is_wanted {
            self.weight += weight;
            self.queue.push_back(piece);
        }
        None
    }
}

// === Intake ===

impl Intake {
    /// The response begins.
    pub(crate) fn begin(outlet: Option<&Outlet>, content_type: &str) -> Self {
        let Some(outlet) = outlet else { return Self::Collected(BytesMut::new()) };
        outlet.begin(content_type);
        Self::Forwarded(outlet.clone())
    }

    /// Takes the next part. Of one that makes the response too large for a stream the caller still
    /// gets as much as is allowed.
    pub(crate) async fn take(&mut self, mut data: Bytes) -> Result<(), TooLarge> {
        match self {
            Self::Forwarded(outlet) => {
                let rest = limits::STREAMED_RESPONSE.as_bytes().saturating_sub(outlet.size());
                let rest = usize::try_from(rest).unwrap_or(usize::MAX);
                let is_too_large = data.len() > rest;
                data.truncate(rest);
                outlet.send(data).await;
                if is_too_large { Err(TooLarge) } else { Ok(()) }
            }
            Self::Collected(whole) => {
                let size = whole.len() as u64 + data.len() as u64;
                if size > limits::SYNC_RESPONSE.as_bytes() {
                    return Err(TooLarge);
                }
                whole.extend_from_slice(&data);
                Ok(())
            }
        }
    }

    /// The response is whole.
    pub(crate) fn end(self) -> Answer {
        match self {
            Self::Forwarded(_) => Answer::Streamed,
            Self::Collected(whole) => Answer::Returned(whole.freeze()),
        }
    }
}

#[cfg(test)]
mod tests;
