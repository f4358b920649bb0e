//! What functions printed: one stream of the store's log for each function, kept for a time.
//!
//! An entry of the stream is a batch of lines of one log stream, so that many lines cost one write.
//! A reader's place is the entry and the event within it. A function's log outlives the function.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::{Error, FunctionKey, RequestId, Result, Timestamp};
use lacewing_store::{Key, Log, Offset};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

mod batch;
mod cursor;

pub use cursor::LogCursor;

/// The segment that all streams of logs have after account and region.
pub(crate) const KIND: &str = "log";
/// Most events of a page, whatever was asked for.
const PAGE_EVENTS: usize = 10_000;
/// A page ends behind the event with which it reaches this many bytes of text.
const PAGE_BYTES: usize = 4 << 20;
/// Entries read at once.
const ENTRIES: usize = 16;
/// Longest wait for the first event.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Which events are wanted.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// None that is older than this.
    pub since: Option<Timestamp>,
    /// Where an earlier page ended.
    pub cursor: Option<LogCursor>,
    /// Only this log stream.
    pub stream: Option<String>,
    /// Most events.
    pub limit: usize,
    /// How long to wait for the first event.
    pub wait: Duration,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// When it was printed.
    pub at: Timestamp,
    /// Its log stream: one Instance of the function.
    pub stream: String,
    /// The invocation that printed it, if that is known.
    pub request_id: Option<RequestId>,
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Some events, and where to go on.
#[derive(Clone, Debug, Serialize)]
pub struct LogPage {
    /// The events in the order they were appended.
    pub events: Vec<LogEvent>,
    /// Where the next page begins.
    pub cursor: LogCursor,
}

/// What functions printed; cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    log: Arc<dyn Log>,
}

impl Logs {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log }
    }

    /// Appends lines of one log stream; they are durable when this returns.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn append(
        &self,
        key: &FunctionKey,
        stream: &str,
        lines: Vec<(Timestamp, Option<RequestId>, Bytes)>,
    ) -> Result<()> {
        let entries = batch::encode(stream, &lines)?;
        if !entries.is_empty() {
            self.log.append(&stream_of(key), entries, None).await?;
        }
        Ok(())
    }

    /// Reads a page of events; if there are none yet, waits for some.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(&self, key: &FunctionKey, query: LogQuery) -> Result<LogPage> {
        let source = stream_of(key);
        let cursor = match (query.cursor, query.since) {
            (Some(cursor), _) => cursor,
            (None, Some(since)) => LogCursor::new(self.first_since(&source, since).await?, 0),
            (None, None) => LogCursor::default(),
        };
        let mut page = LogPage { events: Vec::new(), cursor };
        let limit = query.limit.clamp(1, PAGE_EVENTS);
        let deadline = Instant::now() + query.wait.min(LONGEST_WAIT);
        let mut bytes = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if page.events.is_empty() { left } else { Duration::ZERO };
            let from = Offset::new(page.cursor.entry());
            let entries = self.log.read(&source, from, ENTRIES, wait).await?;
            if entries.is_empty() {
                return Ok(page);
            }
            for (offset, _, entry) in entries {
                let skip = page.cursor.events_before(offset.as_u64());
                for (place, event) in batch::decode(&entry)?.into_iter().enumerate().skip(skip) {
                    page.cursor = LogCursor::new(offset.as_u64(), place + 1);
                    if query.wants(&event) {
                        bytes += event.text.len();
                        page.events.push(event);
                        if page.events.len() >= limit || bytes >= PAGE_BYTES {
                            return Ok(page);
                        }
                    }
                }
                page.cursor = LogCursor::new(offset.next().as_u64(), 0);
            }
        }
    }

    /// The first entry that was appended at `since` or later: an event is never newer than its
    /// entry, and entries are in the order of time, so that halving finds it.
    async fn first_since(&self, source: &Key, since: Timestamp) -> Result<u64> {
        let (mut low, mut step) = (0_u64, 1_u64);
        let mut high = loop {
            let probed = low.saturating_add(step);
            match self.older(source, probed, since).await? {
                Some(older) => low = older.saturating_add(1),
                None => break probed,
            }
            step = step.saturating_mul(2);
        };
        while low < high {
            let middle = low + (high - low) / 2;
            match self.older(source, middle, since).await? {
                Some(older) => low = older.saturating_add(1),
                None => high = middle,
            }
        }
        Ok(low)
    }

    /// The offset of the first entry from `from` on, if it is older than `since`.
    async fn older(&self, source: &Key, from: u64, since: Timestamp) -> Result<Option<u64>> {
        let found = self.log.read(source, Offset::new(from), 1, Duration::ZERO).await?;
        Ok(found.first().filter(|(_, at, _)| *at < since).map(|(offset, _, _)| offset.as_u64()))
    }
}

impl LogQuery {
    fn wants(&self, event: &LogEvent) -> bool {
        self.since.is_none_or(|since| event.at >= since)
            && self.stream.as_ref().is_none_or(|stream| *stream == event.stream)
    }
}

fn stream_of(key: &FunctionKey) -> Key {
    Key::new(&key.account, &key.region, &[KIND, key.name.as_str()])
}

fn failed(error: serde_json::Error) -> Error {
    Error::internal("A batch of log events is unreadable.", error)
}
