//! Records: small values under keys, each atomic, with a revision that guards changes.
//!
//! To follow a set of records without missing one: ask for [`Records::revision`], list, then watch
//! from that revision and apply every change to what was listed. On [`StoreError::Gap`] start over.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{BoxFuture, Key, Prefix, Result, StoreError};

/// Longest page of a list, and of a watch's catching up.
pub const PAGE: usize = 1_000;

/// A point in the order of all changes of one store; it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A value under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision of its last change.
    pub revision: Revision,
}

/// What must hold for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is no such record.
    Absent,
    /// The record is at this revision.
    Revision(Revision),
}

impl Expect {
    /// Whether a record at `current`, or none, is what was expected.
    pub(crate) fn check(self, current: Option<Revision>) -> Result<()> {
        match self {
            Self::Any => Ok(()),
            Self::Absent if current.is_none() => Ok(()),
            Self::Revision(revision) if current == Some(revision) => Ok(()),
            Self::Absent | Self::Revision(_) => Err(StoreError::Conflict { current }),
        }
    }
}

/// A change that a watch tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record was made or changed; this is its newest state.
    Put(Record),
    /// The record was deleted.
    Deleted {
        /// Its key.
        key: Key,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(record) => &record.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(record) => record.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// Small values under keys. A value of any size is taken, but megabytes belong into
/// [`Blobs`](crate::Blobs).
pub trait Records: fmt::Debug + Send + Sync {
    /// Gives the record, or `None`. It sees every change that was answered before.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Record>>>;

    /// Writes the record if `expect` holds, else fails with [`StoreError::Conflict`]. When this
    /// returns, the record survives a loss of power.
    fn put<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        expect: Expect,
    ) -> BoxFuture<'a, Result<Revision>>;

    /// Deletes the record if `expect` holds, and answers the revision of the deletion; as durable
    /// as [`Records::put`]. A record that is not there is [`StoreError::NotFound`], or a conflict
    /// if a revision was expected.
    fn delete<'a>(&'a self, key: &'a Key, expect: Expect) -> BoxFuture<'a, Result<Revision>>;

    /// Gives the records under `prefix` that come after `after`, in the byte order of their keys,
    /// at most `limit` and at most [`PAGE`] of them: fewer than that means there are no more.
    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>>>;

    /// The revision of the newest change, over all keys.
    fn revision(&self) -> BoxFuture<'_, Result<Revision>>;

    /// Tells of every key under `prefix` that changed after `from`, in the order of revisions. A
    /// key that changed twice before the watch came to it is told once, with its newest state.
    /// From [`Revision::ZERO`] it tells of all existing records first.
    fn watch<'a>(&'a self, prefix: &'a Prefix, from: Revision) -> BoxFuture<'a, Result<Watch>>;
}

/// A stretch of the order of changes, as a [`ChangeSource`] reads it.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// The changes, by revision; `None` when there are no more than these.
    pub(crate) changes: Vec<Change>,
    /// Deletions up to this revision have been forgotten.
    pub(crate) forgotten: Revision,
}

/// What a watch reads from: the newest state of each key, by revision.
pub(crate) trait ChangeSource: fmt::Debug + Send + Sync {
    /// The first [`PAGE`] changes under `prefix` after `after`.
    fn changes<'a>(&'a self, prefix: &'a Prefix, after: Revision)
    -> BoxFuture<'a, Result<Stretch>>;
}

/// Follows the changes under a prefix. It holds a position, not a buffer: a slow reader costs the
/// store nothing and misses nothing but what the store itself has forgotten.
#[derive(Debug)]
pub struct Watch {
    source: Arc<dyn ChangeSource>,
    committed: watch::Receiver<Revision>,
    prefix: Prefix,
    position: Revision,
    /// Deletions up to here do not concern this watch.
    known: Option<Revision>,
    ready: VecDeque<Change>,
}

impl Watch {
    pub(crate) fn new(
        source: Arc<dyn ChangeSource>,
        committed: watch::Receiver<Revision>,
        prefix: Prefix,
        from: Revision,
    ) -> Self {
        // From the very beginning there is nothing that could have been deleted unseen.
        let known = (from != Revision::ZERO).then_some(from);
        Self { source, committed, prefix, position: from, known, ready: VecDeque::new() }
    }

    /// The next change; waits for it as long as it takes. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Gap`] when deletions were forgotten before the watch came to them, then again
    /// on every later call; [`StoreError::Closed`] when the store is closed.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let committed = *self.committed.borrow_and_update();
            let stretch = self.source.changes(&self.prefix, self.position).await?;
            let known = *self.known.get_or_insert(stretch.forgotten);
            if stretch.forgotten > self.position.max(known) {
                return Err(StoreError::Gap);
            }
            if let Some(last) = stretch.changes.last() {
                self.position = last.revision();
                self.ready = stretch.changes.into();
                continue;
            }
            // Nothing under the prefix up to `committed`: skip what concerns other keys.
            self.position = self.position.max(committed);
            self.committed.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }
}
