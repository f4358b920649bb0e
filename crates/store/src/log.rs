//! Log: append-only streams of entries, each with an offset that is never given out twice.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use lacewing_model::Timestamp;

use crate::{BoxFuture, Dedup, Key, Prefix, Result};

/// Most entries that one [`Log::read`] answers.
pub const LARGEST_READ: usize = 10_000;

/// The place of an entry in its stream; the first is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The beginning of every stream.
    pub const ZERO: Self = Self(0);

    /// The place with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Bytes of the entries that a stream holds.
pub type Weight = u64;

/// Append-only streams; a stream begins to exist with its first entry.
pub trait Log: fmt::Debug + Send + Sync {
    /// Appends the entries at consecutive offsets, all or none, and answers the first. When this
    /// returns, they survive a loss of power. Within the window of `dedup`, a second append of the
    /// same id to the same stream appends nothing and answers the offset of the first.
    fn append<'a>(
        &'a self,
        stream: &'a Key,
        entries: Vec<Bytes>,
        dedup: Option<Dedup>,
    ) -> BoxFuture<'a, Result<Offset>>;

    /// Gives the entries from `from` on, at most `max` and at most [`LARGEST_READ`], with the time
    /// they were appended, which never decreases. If there are none it waits for some, up to `wait`.
    /// Where entries were trimmed it begins with the first that is left.
    fn read<'a>(
        &'a self,
        stream: &'a Key,
        from: Offset,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<Vec<(Offset, Timestamp, Bytes)>>>;

    /// Forgets all entries before `before`.
    fn trim<'a>(&'a self, stream: &'a Key, before: Offset) -> BoxFuture<'a, Result<()>>;

    /// Forgets all entries that were appended before `before`.
    fn trim_older<'a>(&'a self, stream: &'a Key, before: Timestamp) -> BoxFuture<'a, Result<()>>;

    /// Forgets the oldest entries until at most `most` bytes are left, and answers how many bytes
    /// were forgotten.
    fn trim_to<'a>(&'a self, stream: &'a Key, most: Weight) -> BoxFuture<'a, Result<Weight>>;

    /// The bytes of the entries of each stream under `prefix` that holds some, in byte order of
    /// the keys. They are exact after a crash as well.
    fn weigh<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<(Key, Weight)>>>;

    /// The streams under `prefix` that hold an entry, in byte order.
    fn streams<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<Key>>>;
}
