//! What functions printed: one stream of the store's log for each function, kept for a time.
//!
//! An entry of the stream is a batch of lines of one log stream, so that many lines cost one write.
//! A reader's place is the entry and the event within it. A function's log outlives the function.
//!
//! Room is made before records are kept, so that what is stored is never more than its bounds allow;
//! see `bounds`. A function whose log was cut is told so in that log, once while the server runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lacewing_model::{AccountId, Error, FunctionKey, RequestId, Result, Timestamp};
use lacewing_store::{Key, Log, Offset, Prefix, StoreError, Weight};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::since;

mod batch;
mod bounds;
mod cursor;

pub use bounds::LogBounds;
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
    bounds: LogBounds,
    cut: Arc<Cut>,
}

/// What was forgotten before its time.
#[derive(Debug, Default)]
struct Cut {
    bytes: AtomicU64,
    /// Whose logs were cut, and whether they were told.
    streams: Mutex<BTreeMap<Key, bool>>,
}

/// One line as it is kept: when, during which invocation, the text.
pub type Line = (Timestamp, Option<RequestId>, Bytes);

/// Lines of one log stream of a function.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Whose log it is.
    pub function: FunctionKey,
    /// The log stream.
    pub stream: String,
    /// The lines, in order.
    pub lines: Vec<Line>,
}

impl Logs {
    pub(crate) fn new(log: Arc<dyn Log>, bounds: LogBounds) -> Self {
        Self { log, bounds, cut: Arc::default() }
    }

    /// Keeps lines of many log streams; they are durable when this returns. One call at a time: two
    /// at once could each make room for itself only. Gives what became of each.
    pub async fn keep(&self, batches: Vec<Lines>) -> Vec<Result<()>> {
        let encoded = batches.iter().map(|batch| self.encode(batch));
        let encoded: Vec<Result<(Key, Vec<Bytes>)>> = encoded.collect();
        if let Err(error) = self.make_room(encoded.iter().flatten()).await {
            return batches.iter().map(|_| Err(error.clone().into())).collect();
        }
        let appends = encoded.into_iter().map(|encoded| async {
            let (stream, entries) = encoded?;
            if !entries.is_empty() {
                self.log.append(&stream, entries, None).await?;
            }
            Ok(())
        });
        join_all(appends).await
    }

    /// Bytes of records that were forgotten since the start because others needed their room.
    pub fn cut_bytes(&self) -> u64 {
        self.cut.bytes.load(Ordering::Relaxed)
    }

    fn encode(&self, batch: &Lines) -> Result<(Key, Vec<Bytes>)> {
        let stream = stream_of(&batch.function);
        let mut entries = Vec::new();
        if let Some((at, ..)) = batch.lines.first().filter(|_| self.cut.is_untold(&stream)) {
            let megabytes = self.bounds.function >> 20;
            let text = format!(
                "LACEWING_WARNING: The oldest records of this log were dropped: the log of a \
                 function is bounded to {megabytes} MB, and those of an account together."
            );
            entries = batch::encode(&batch.stream, &[(*at, None, text.into())])?;
        }
        entries.extend(batch::encode(&batch.stream, &batch.lines)?);
        Ok((stream, entries))
    }

    /// Forgets what must go before these are appended.
    async fn make_room<'a>(
        &self,
        coming: impl Iterator<Item = &'a (Key, Vec<Bytes>)>,
    ) -> Result<(), StoreError> {
        let mut incoming: BTreeMap<AccountId, BTreeMap<Key, Weight>> = BTreeMap::new();
        for (stream, entries) in coming {
            let Some(account) = stream.account() else { continue };
            let bytes = entries.iter().map(|entry| entry.len() as Weight).sum::<Weight>();
            *incoming.entry(account).or_default().entry(stream.clone()).or_default() += bytes;
        }
        for (account, incoming) in incoming {
            let held = self.log.weigh(&Prefix::account(&account)).await?;
            let is_log = |key: &Key| key.segments().first().is_some_and(|kind| kind == KIND);
            let held = held.into_iter().filter(|(key, _)| is_log(key)).collect();
            for (stream, most) in self.bounds.cuts(&held, &incoming) {
                let bytes = self.log.trim_to(&stream, most).await?;
                self.cut.note(&stream, bytes);
            }
        }
        Ok(())
    }

    /// Whether anything is kept of the function's log, be the function there or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn has_any(&self, key: &FunctionKey) -> Result<bool> {
        let first = self.log.read(&stream_of(key), Offset::ZERO, 1, Duration::ZERO).await?;
        Ok(!first.is_empty())
    }

    /// Reads a page of events; if there are none yet, waits for some.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(&self, key: &FunctionKey, query: LogQuery) -> Result<LogPage> {
        let source = stream_of(key);
        let cursor = match (query.cursor, query.since) {
            (Some(cursor), _) => cursor,
            (None, Some(since)) => {
                LogCursor::new(since::first(&*self.log, &source, since).await?, 0)
            }
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
}

impl Cut {
    /// Counts, and says once of each log that it was cut.
    fn note(&self, stream: &Key, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut streams = self.streams.lock();
        if !streams.contains_key(stream) {
            tracing::warn!(%stream, bytes, "A log is too large: its oldest records were dropped.");
            streams.insert(stream.clone(), false);
        }
    }

    /// Whether the log was cut and was not told; it is from now on.
    fn is_untold(&self, stream: &Key) -> bool {
        let mut streams = self.streams.lock();
        streams.get_mut(stream).is_some_and(|told| !std::mem::replace(told, true))
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
