//! Records in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::records::{ChangeSource, PAGE, Stretch};
use crate::{
    BoxFuture, Change, Expect, Key, Prefix, Record, Records, Result, Revision, StoreError, Watch,
};

/// Deletions that are remembered for watches.
const TOMBSTONES: usize = 10_000;

#[derive(Clone, Debug)]
pub(super) struct MemoryRecords {
    state: Arc<Mutex<State>>,
    committed: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    records: BTreeMap<Key, Record>,
    /// The newest change of each key that exists or was deleted not too long ago.
    changes: BTreeMap<Revision, Change>,
    deleted: BTreeMap<Key, Revision>,
    forgotten: Revision,
}

impl Default for MemoryRecords {
    fn default() -> Self {
        Self { state: Arc::default(), committed: watch::Sender::new(Revision::ZERO) }
    }
}

impl State {
    fn next_revision(&mut self) -> Revision {
        self.last += 1;
        Revision::new(self.last)
    }

    fn check(&self, key: &Key, expect: Expect) -> Result<()> {
        expect.check(self.records.get(key).map(|record| record.revision))
    }

    fn note(&mut self, change: Change) {
        let key = change.key();
        let before = self.records.get(key).map(|record| record.revision);
        for revision in before.into_iter().chain(self.deleted.remove(key)) {
            self.changes.remove(&revision);
        }
        match &change {
            Change::Put(record) => drop(self.records.insert(record.key.clone(), record.clone())),
            Change::Deleted { key, revision } => {
                self.records.remove(key);
                self.deleted.insert(key.clone(), *revision);
            }
        }
        self.changes.insert(change.revision(), change);
        self.forget();
    }

    fn forget(&mut self) {
        if self.deleted.len() <= TOMBSTONES {
            return;
        }
        let oldest = self.deleted.iter().min_by_key(|(_, revision)| **revision);
        if let Some((key, revision)) = oldest.map(|(key, revision)| (key.clone(), *revision)) {
            self.deleted.remove(&key);
            self.changes.remove(&revision);
            self.forgotten = revision;
        }
    }
}

impl Records for MemoryRecords {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Record>>> {
        Box::pin(async move { Ok(self.state.lock().records.get(key).cloned()) })
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        expect: Expect,
    ) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check(key, expect)?;
            let revision = state.next_revision();
            state.note(Change::Put(Record { key: key.clone(), value, revision }));
            self.committed.send_replace(revision);
            Ok(revision)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, expect: Expect) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.check(key, expect)?;
            if !state.records.contains_key(key) {
                return Err(StoreError::NotFound);
            }
            let revision = state.next_revision();
            state.note(Change::Deleted { key: key.clone(), revision });
            self.committed.send_replace(revision);
            Ok(revision)
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>>> {
        Box::pin(async move {
            let first = Key::from_stored(prefix.as_str());
            let start = after.filter(|after| **after > first).unwrap_or(&first);
            let state = self.state.lock();
            let page = state
                .records
                .range((Bound::Excluded(start), Bound::Unbounded))
                .take_while(|(key, _)| prefix.matches(key))
                .take(limit.min(PAGE));
            Ok(page.map(|(_, record)| record.clone()).collect())
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move { Ok(Revision::new(self.state.lock().last)) })
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix, from: Revision) -> BoxFuture<'a, Result<Watch>> {
        Box::pin(async move {
            let source: Arc<dyn ChangeSource> = Arc::new(Changes(Arc::clone(&self.state)));
            Ok(Watch::new(source, self.committed.subscribe(), prefix.clone(), from))
        })
    }
}

/// The state as a watch sees it: without the sender, so that a watch ends with the store.
#[derive(Debug)]
struct Changes(Arc<Mutex<State>>);

impl ChangeSource for Changes {
    fn changes<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Revision,
    ) -> BoxFuture<'a, Result<Stretch>> {
        Box::pin(async move {
            let state = self.0.lock();
            let changes = state
                .changes
                .range((Bound::Excluded(after), Bound::Unbounded))
                .map(|(_, change)| change)
                .filter(|change| prefix.matches(change.key()))
                .take(PAGE);
            Ok(Stretch { changes: changes.cloned().collect(), forgotten: state.forgotten })
        })
    }
}
