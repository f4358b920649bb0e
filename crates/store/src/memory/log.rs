//! Log in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use lacewing_model::{Clock, Timestamp};

use crate::log::LARGEST_READ;
use crate::signals::Signals;
use crate::{BoxFuture, Dedup, Key, Log, Offset, Prefix, Result, Weight};

#[derive(Debug)]
pub(super) struct MemoryLog {
    clock: Arc<dyn Clock>,
    signals: Signals,
    streams: Mutex<BTreeMap<Key, Stream>>,
}

#[derive(Debug, Default)]
struct Stream {
    next: u64,
    last: Timestamp,
    entries: VecDeque<(Offset, Timestamp, Bytes)>,
    seen: HashMap<String, (Offset, Timestamp)>,
}

impl MemoryLog {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, signals: Signals::default(), streams: Mutex::default() }
    }

    fn look(&self, stream: &Key, from: Offset, max: usize) -> Vec<(Offset, Timestamp, Bytes)> {
        let streams = self.streams.lock();
        let Some(stream) = streams.get(stream) else {
            return Vec::new();
        };
        let start = stream.entries.partition_point(|(offset, ..)| *offset < from);
        stream.entries.iter().skip(start).take(max.min(LARGEST_READ)).cloned().collect()
    }

    fn trim_while(&self, stream: &Key, mut old: impl FnMut(&(Offset, Timestamp, Bytes)) -> bool) {
        if let Some(stream) = self.streams.lock().get_mut(stream) {
            let gone = stream.entries.iter().take_while(|entry| old(entry)).count();
            stream.entries.drain(..gone);
        }
    }
}

impl Stream {
    fn weight(&self) -> Weight {
        self.entries.iter().map(|(_, _, entry)| entry.len() as Weight).sum()
    }

    fn append(&mut self, entries: Vec<Bytes>, dedup: Option<Dedup>, now: Timestamp) -> Offset {
        self.seen.retain(|_, (_, until)| *until > now);
        if let Some((first, _)) = dedup.as_ref().and_then(|dedup| self.seen.get(&dedup.id)) {
            return *first;
        }
        let first = Offset::new(self.next);
        self.last = self.last.max(now);
        for entry in entries {
            self.entries.push_back((Offset::new(self.next), self.last, entry));
            self.next += 1;
        }
        if let Some(Dedup { id, window }) = dedup {
            self.seen.insert(id, (first, now.plus(window)));
        }
        first
    }
}

impl Log for MemoryLog {
    fn append<'a>(
        &'a self,
        stream: &'a Key,
        entries: Vec<Bytes>,
        dedup: Option<Dedup>,
    ) -> BoxFuture<'a, Result<Offset>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut streams = self.streams.lock();
            let first = streams.entry(stream.clone()).or_default().append(entries, dedup, now);
            drop(streams);
            self.signals.wake(stream);
            Ok(first)
        })
    }

    fn read<'a>(
        &'a self,
        stream: &'a Key,
        from: Offset,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<Vec<(Offset, Timestamp, Bytes)>>> {
        Box::pin(async move {
            let start = Instant::now();
            let mut waiter = self.signals.waiter(stream);
            loop {
                let found = self.look(stream, from, max);
                let left = wait.saturating_sub(start.elapsed());
                if !found.is_empty() || max == 0 || left.is_zero() {
                    return Ok(found);
                }
                waiter.wait(left).await;
            }
        })
    }

    fn trim<'a>(&'a self, stream: &'a Key, before: Offset) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.trim_while(stream, |(offset, ..)| *offset < before);
            Ok(())
        })
    }

    fn trim_older<'a>(&'a self, stream: &'a Key, before: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.trim_while(stream, |(_, at, _)| *at < before);
            Ok(())
        })
    }

    fn trim_to<'a>(&'a self, stream: &'a Key, most: Weight) -> BoxFuture<'a, Result<Weight>> {
        Box::pin(async move {
            let mut left = self.streams.lock().get(stream).map_or(0, Stream::weight);
            let before = left;
            self.trim_while(stream, |(_, _, entry)| {
                let is_beyond = left > most;
                left -= if is_beyond { entry.len() as Weight } else { 0 };
                is_beyond
            });
            Ok(before - left)
        })
    }

    fn weigh<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<(Key, Weight)>>> {
        Box::pin(async move {
            let streams = self.streams.lock();
            let weighed = streams.iter().filter(|(key, _)| prefix.matches(key));
            let weighed = weighed.map(|(key, stream)| (key.clone(), stream.weight()));
            Ok(weighed.filter(|(_, weight)| *weight > 0).collect())
        })
    }

    fn streams<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<Key>>> {
        Box::pin(async move {
            let streams = self.streams.lock();
            let held = streams.iter().filter(|(_, stream)| !stream.entries.is_empty());
            Ok(held.map(|(key, _)| key).filter(|key| prefix.matches(key)).cloned().collect())
        })
    }
}
