//! The function's log on its way out: lines, batches, and a bounded channel to whoever keeps them.
//!
//! One [`LogWriter`] belongs to one Instance. It cuts what the function prints into lines, keeps
//! framed records whole, and sends what it has at the end of each invocation. Its function's share
//! ([`share`]) says how much may be read in a time; who reads more all the same, or finds that nobody
//! takes the batches, loses records: they are counted, and the loss is written into the log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use lacewing_model::{Clock, FunctionKey, LogFormat, LogLevel, RequestId, Timestamp, limits};

use share::{Part, Share, Shares};

use crate::platform_log::{self, Event};

mod levels;
mod share;

/// Batches that may wait to be taken.
const WAITING: usize = 8_192;
/// Kilobytes that all batches which wait may have together.
const WAITING_KB: usize = 64 * 1024;
/// A batch is sent during an invocation when it has so many bytes.
const BATCH: usize = 64 * 1024;
/// Bytes that one Instance keeps while nobody takes its batches.
const KEPT: usize = 1024 * 1024;
/// Of them, what an invocation ends with: its last two platform lines and a little more.
const END: usize = 1024;
/// A longer line is cut.
const LINE: usize = 64 * 1024;
/// A record that claims to be older was not written by this Instance.
const OLDEST: Duration = Duration::from_secs(60 * 60);
/// What one record counts beside its text.
const OVERHEAD: usize = 64;

/// One record of a function's log, without a line end of its own; it may contain several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, or read by us.
    pub at: Timestamp,
    /// The invocation during which it came; none during init.
    pub request_id: Option<RequestId>,
    /// The text, as it came.
    pub text: Bytes,
}

/// Some records of one Instance, in order.
#[derive(Clone, Debug)]
pub struct LogBatch {
    /// Whose log it is.
    pub function: FunctionKey,
    /// The Instance's log stream, `YYYY/MM/DD/[VERSION]HEX`.
    pub stream: String,
    /// The records.
    pub lines: Vec<LogLine>,
}

/// Gives the log batches of all Instances.
#[derive(Debug)]
pub struct LogReceiver {
    batches: mpsc::Receiver<Waiting>,
    lost: Arc<AtomicU64>,
}

/// Takes the batches of all Instances.
#[derive(Clone, Debug)]
pub(crate) struct LogSender {
    batches: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    shares: Arc<Shares>,
    lost: Arc<AtomicU64>,
}

/// A batch, with the room that it takes until somebody takes it.
#[derive(Debug)]
struct Waiting {
    batch: LogBatch,
    _room: [OwnedSemaphorePermit; 2],
}

/// Writes the log of one Instance.
pub(crate) struct LogWriter {
    sender: LogSender,
    share: Arc<Share>,
    clock: Arc<dyn Clock>,
    function: FunctionKey,
    stream: String,
    format: LogFormat,
    request_id: Option<RequestId>,
    /// The beginning of a line whose end has not been read yet.
    partial: Vec<u8>,
    pending: Vec<LogLine>,
    pending_bytes: usize,
    lost: u64,
    tail: Option<Vec<u8>>,
}

/// Makes the two ends.
pub(crate) fn channel() -> (LogSender, LogReceiver) {
    let (batches, receiver) = mpsc::channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let sender = LogSender {
        batches,
        room: Arc::new(Semaphore::new(WAITING_KB)),
        shares: Arc::default(),
        lost: Arc::clone(&lost),
    };
    (sender, LogReceiver { batches: receiver, lost })
}

// === LogSender ===

impl LogSender {
    /// The place of a batch and the room for its bytes, if there is both.
    fn reserve(
        &self,
        share: &Share,
        part: Part,
        bytes: usize,
    ) -> Option<(mpsc::Permit<'_, Waiting>, [OwnedSemaphorePermit; 2])> {
        let permit = self.batches.try_reserve().ok()?;
        let kilobytes = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let own = share.room(part, kilobytes)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(kilobytes).ok()?;
        Some((permit, [own, room]))
    }
}

// === LogReceiver ===

impl LogReceiver {
    /// Waits for the next batch; `None` when no Instance can write any more.
    pub async fn next(&mut self) -> Option<LogBatch> {
        self.batches.recv().await.map(|waiting| waiting.batch)
    }

    /// Waits for at least one batch and takes at most `limit`; 0 when none can come any more.
    pub async fn next_many(&mut self, batches: &mut Vec<LogBatch>, limit: usize) -> usize {
        let mut taken = Vec::new();
        let count = self.batches.recv_many(&mut taken, limit).await;
        batches.extend(taken.into_iter().map(|waiting| waiting.batch));
        count
    }

    /// Takes what is there, at most `limit`, without waiting.
    pub fn take_waiting(&mut self, batches: &mut Vec<LogBatch>, limit: usize) {
        let next = || self.batches.try_recv().ok().map(|waiting| waiting.batch);
        batches.extend(std::iter::from_fn(next).take(limit));
    }

    /// Records that were lost since the start, because nobody took them in time or their function
    /// wrote more than its share.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

// === LogWriter ===

impl LogWriter {
    pub(crate) fn new(
        sender: LogSender,
        clock: Arc<dyn Clock>,
        function: FunctionKey,
        stream: String,
    ) -> Self {
        Self {
            share: sender.shares.of(&function),
            sender,
            clock,
            function,
            stream,
            format: LogFormat::default(),
            request_id: None,
            partial: Vec::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            lost: 0,
            tail: None,
        }
    }

    /// What it writes, and leaves out, is that of a log in this format; without this, text.
    pub(crate) fn in_format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// Another one for the same stream, which knows nothing of this one's invocation.
    pub(crate) fn another(&self) -> Self {
        let (sender, clock) = (self.sender.clone(), Arc::clone(&self.clock));
        Self::new(sender, clock, self.function.clone(), self.stream.clone()).in_format(self.format)
    }

    /// From here on records belong to this invocation.
    pub(crate) fn begin(&mut self, request_id: RequestId, wants_tail: bool) {
        self.end_line();
        self.request_id = Some(request_id);
        self.tail = wants_tail.then(Vec::new);
    }

    /// The invocation is over: sends everything, gives the tail if it was wanted.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        self.end_line();
        self.request_id = None;
        self.flush();
        self.flush_end();
        let mut tail = self.tail.take()?;
        let surplus = tail.len().saturating_sub(limits::LOG_TAIL);
        Some(tail.split_off(surplus).into())
    }

    /// What the platform itself has to say.
    pub(crate) fn platform(&mut self, event: &Event<'_>) {
        self.end_line();
        let Some(line) = platform_log::line(event, self.format, || self.clock.now()) else {
            return;
        };
        while self.pending_bytes + line.len() > KEPT && !self.pending.is_empty() {
            let oldest = self.pending.remove(0);
            self.pending_bytes -= oldest.text.len() + OVERHEAD;
            self.count_lost(1);
        }
        self.push(self.clock.now(), line.into());
    }

    /// A record that came with its own time and is not to be cut.
    /// The time is the writer's word: it counts only if it is believable.
    pub(crate) fn record(&mut self, at: Timestamp, level: Option<LogLevel>, text: Bytes) {
        let now = self.clock.now();
        if !self.may_take(text.len(), now) || !levels::keeps(self.format, level) {
            return;
        }
        let is_believable = at <= now && now.since(at) <= OLDEST;
        self.push(if is_believable { at } else { now }, text);
    }

    /// Bytes that the function printed.
    pub(crate) fn output(&mut self, mut bytes: &[u8]) {
        let at = self.clock.now();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.extend_line(at, line);
            self.take_line(at);
            bytes = &rest[1..];
        }
        self.extend_line(at, bytes);
    }

    /// How long to wait before so many bytes are read, so that none of them is lost for coming too fast.
    pub(crate) fn wait(&self, bytes: usize) -> Option<Duration> {
        // Each of them may be a line.
        self.share.wait(bytes * (1 + OVERHEAD), self.clock.now())
    }

    /// A line that was begun ends here, for no more of it can come.
    pub(crate) fn end_line(&mut self) {
        if !self.partial.is_empty() {
            self.take_line(self.clock.now());
        }
    }

    /// Sends what there is, if anybody takes it.
    pub(crate) fn flush(&mut self) {
        self.flush_part(Part::Output);
    }

    fn flush_part(&mut self, part: Part) {
        if self.pending.is_empty() {
            return;
        }
        let Some((permit, room)) = self.sender.reserve(&self.share, part, self.pending_bytes)
        else {
            return;
        };
        let mut lines = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if self.lost > 0 {
            let now = self.clock.now();
            let lost = Event::Lost { records: std::mem::take(&mut self.lost) };
            let text = platform_log::line(&lost, self.format, || now);
            lines.extend(text.map(|text| LogLine { at: now, request_id: None, text: text.into() }));
        }
        let (function, stream) = (self.function.clone(), self.stream.clone());
        permit.send(Waiting { batch: LogBatch { function, stream, lines }, _room: room });
    }

    /// What an invocation ends with, and the word that records were lost, are sent though the function
    /// has no room left: they are few, and nobody may come soon to send them.
    fn flush_end(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut bytes = 0;
        let is_of_the_end = |line: &&LogLine| {
            bytes += line.text.len() + OVERHEAD;
            bytes <= END
        };
        let kept = self.pending.iter().rev().take_while(is_of_the_end).count();
        let dropped = self.pending.drain(..self.pending.len() - kept).count();
        self.pending_bytes = self.pending.iter().map(|line| line.text.len() + OVERHEAD).sum();
        self.count_lost(u64::try_from(dropped).unwrap_or(u64::MAX));
        self.flush_part(Part::End);
    }

    /// Whether a record of the function is within its rate; one that is not is lost.
    fn may_take(&mut self, bytes: usize, now: Timestamp) -> bool {
        let may = self.share.take(bytes + OVERHEAD, now);
        if !may {
            self.count_lost(1);
        }
        may
    }

    fn count_lost(&mut self, records: u64) {
        self.lost += records;
        self.sender.lost.fetch_add(records, Ordering::Relaxed);
    }

    fn extend_line(&mut self, at: Timestamp, mut bytes: &[u8]) {
        while self.partial.len() + bytes.len() > LINE {
            let (fits, rest) = bytes.split_at(LINE - self.partial.len());
            self.partial.extend_from_slice(fits);
            self.take_line(at);
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
    }

    fn take_line(&mut self, at: Timestamp) {
        if self.may_take(self.partial.len(), at) && levels::keeps_line(self.format, &self.partial) {
            self.push(at, Bytes::copy_from_slice(&self.partial));
        }
        self.partial.clear();
    }

    fn push(&mut self, at: Timestamp, text: Bytes) {
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(&text);
            tail.push(b'\n');
            if tail.len() > 4 * limits::LOG_TAIL {
                tail.drain(..tail.len() - limits::LOG_TAIL);
            }
        }
        if self.pending_bytes + text.len() > KEPT {
            self.count_lost(1);
            return;
        }
        self.pending_bytes += text.len() + OVERHEAD;
        self.pending.push(LogLine { at, request_id: self.request_id, text });
        if self.pending_bytes > BATCH {
            self.flush();
        }
    }
}

/// An Instance that was dropped and not retired still leaves what it had logged.
impl Drop for LogWriter {
    fn drop(&mut self) {
        self.end_line();
        self.flush();
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("stream", &self.stream).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
