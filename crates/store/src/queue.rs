//! Queues: work that is done at least once. A taken message is hidden for a while and comes back
//! unless it is acknowledged.
//!
//! ```text
//!            not before                take                       ack
//!   put ---> delayed ---> ready ----------------> in flight ------------> gone
//!                           ^                        |
//!                           +--- release, or hidden for long enough
//! ```
//!
//! Messages of one group are handed out in the order of their puts, one at a time: the next one
//! becomes ready when the one before it is gone. A delayed message holds up its group.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use lacewing_model::{AccountId, Timestamp};

use crate::{BoxFuture, Key, Prefix, Result, StoreError};

/// Most messages that one [`Queue::take`] or [`Queue::peek`] answers.
pub const LARGEST_TAKE: usize = 1_000;

/// Makes a repeated call harmless: within `window` the same id is acted upon once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup {
    /// What the call is recognised by, within one queue or stream.
    pub id: String,
    /// How long the id is remembered, from the first call on.
    pub window: Duration,
}

/// Names one message; never given out twice by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

impl MessageId {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A message to be put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The content.
    pub body: Bytes,
    /// Not handed out before this moment.
    pub not_before: Option<Timestamp>,
    /// Messages of one group are handed out in order, one at a time.
    pub group: Option<String>,
    /// Puts the message once, however often it is called.
    pub dedup: Option<Dedup>,
    /// Refused if the queues of its account would hold more than this with it.
    pub within: Option<Load>,
}

/// Messages and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The right to finish one message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The queue it was taken from.
    pub queue: Key,
    /// The message.
    pub id: MessageId,
    /// Its content.
    pub body: Bytes,
    /// How often it has been taken, this time included.
    pub attempts: u32,
    /// Void as soon as the message is taken again.
    pub token: u64,
}

/// A message as [`Queue::peek`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The message.
    pub id: MessageId,
    /// Its content.
    pub body: Bytes,
    /// How often it has been taken.
    pub attempts: u32,
    /// Its group.
    pub group: Option<String>,
    /// When it can be taken next, its group permitting.
    pub due: Timestamp,
}

/// How many messages a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Due, though perhaps waiting for their group.
    pub ready: u64,
    /// Taken and hidden.
    pub in_flight: u64,
    /// Not due yet.
    pub delayed: u64,
}

/// Work that is done at least once; a queue begins to exist with its first message.
pub trait Queue: fmt::Debug + Send + Sync {
    /// Adds a message. When this returns, it survives a loss of power. Fails with
    /// [`StoreError::OverLoad`] if `within` does not allow it.
    fn put<'a>(&'a self, queue: &'a Key, message: Message) -> BoxFuture<'a, Result<MessageId>>;

    /// Takes up to `max` messages, the longest due first, and hides them for `visibility`. If there
    /// are none it waits for some, up to `wait`. At most one message of a group is in flight.
    fn take<'a>(
        &'a self,
        queue: &'a Key,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> BoxFuture<'a, Result<Vec<Receipt>>>;

    /// Hides the message for `by` from now on.
    ///
    /// Like [`Queue::ack`] and [`Queue::release`] it fails with
    /// [`StoreError::NotFound`] if the receipt is void: the message
    /// was taken again, released, or is gone.
    fn extend<'a>(&'a self, receipt: &'a Receipt, by: Duration) -> BoxFuture<'a, Result<()>>;

    /// Removes the message: its work is done.
    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<()>>;

    /// Gives the message back, to be handed out again after `delay`.
    fn release<'a>(&'a self, receipt: &'a Receipt, delay: Duration) -> BoxFuture<'a, Result<()>>;

    /// Counts the queue's messages.
    fn depth<'a>(&'a self, queue: &'a Key) -> BoxFuture<'a, Result<Depth>>;

    /// What all queues of the account hold, messages in flight too. It is exact after a crash as well.
    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Load>>;

    /// Removes all messages, those in flight too, and answers how many there were. What was
    /// remembered for deduplication stays.
    fn purge<'a>(&'a self, queue: &'a Key) -> BoxFuture<'a, Result<u64>>;

    /// Shows the oldest messages without taking them, at most `max`, in the order of their puts.
    fn peek<'a>(&'a self, queue: &'a Key, max: usize) -> BoxFuture<'a, Result<Vec<Peeked>>>;

    /// The queues under `prefix` that hold a message, in byte order.
    fn queues<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<Key>>>;
}

impl Load {
    /// One message with a body of so many bytes.
    pub(crate) fn of(body: &[u8]) -> Self {
        Self { messages: 1, bytes: u64::try_from(body.len()).unwrap_or(u64::MAX) }
    }

    /// Both together.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        let messages = self.messages.saturating_add(other.messages);
        Self { messages, bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// What is left without `other`.
    #[must_use]
    pub(crate) fn minus(self, other: Self) -> Self {
        let messages = self.messages.saturating_sub(other.messages);
        Self { messages, bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// What there is with `more`, if that is within the bound.
    pub(crate) fn admit(self, more: Self, bound: Option<Self>) -> Result<Self> {
        let load = self.plus(more);
        let is_within = |bound: Self| load.messages <= bound.messages && load.bytes <= bound.bytes;
        if bound.is_none_or(is_within) { Ok(load) } else { Err(StoreError::OverLoad) }
    }
}

/// How long a waiting take sleeps before it looks again: until the next message is due, but not too
/// long, since the clock that says when that is need not run at the speed of the timers.
pub(crate) fn next_look(left: Duration, next_due: Option<Timestamp>, now: Timestamp) -> Duration {
    const LONGEST: Duration = Duration::from_secs(1);
    const SHORTEST: Duration = Duration::from_millis(1);
    match next_due {
        Some(due) => due.since(now).clamp(SHORTEST, LONGEST).min(left),
        None => left,
    }
}
