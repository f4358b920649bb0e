//! Events that callers left with us: kept in a queue for each function, served later.
//!
//! ```text
//!  enqueue --put (durable)--> queue account/region/async/NAME --take--> Door::serve --> ack
//!                                        ^                                  |
//!                                        +------- release with a delay -----+  throttled, our fault
//! ```
//!
//! At least once: an event whose server dies becomes visible again after [`VISIBILITY`], which is
//! short and extended while the event is being served. Its usage record and its log are made durable
//! before it is acknowledged. What the function itself answers, an error too, ends the event for now:
//! retries and destinations are built on this later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lacewing_model::error::Throttle;
use lacewing_model::{Error, FunctionKey, FunctionName, Invocation, Kind, Result, Timestamp};
use lacewing_store::queue::Message;
use lacewing_store::{Key, Load, Queue, StoreError};

mod envelope;
mod worker;

pub(crate) use worker::run as run_worker;

/// How long a taken event is hidden before it must be extended.
const VISIBILITY: Duration = Duration::from_secs(10);
/// When a caller whose account's queues are full may come again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The first segment of the queues' keys.
const SEGMENT: &str = "async";

/// Where events are put, and what its worker needs.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Arc<dyn Queue>,
    /// Queues into which something was put since the worker looked.
    fresh: Mutex<BTreeSet<Key>>,
    wake: Notify,
    /// Events that may be served at a time.
    slots: usize,
    /// What the queues of one account may hold.
    bound: Load,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Inbox {
    /// An inbox that keeps at most `bound` for each account, and whose worker uses at most half of
    /// an account's concurrency.
    pub(crate) fn new(queue: Arc<dyn Queue>, account_concurrency: u32, bound: Load) -> Self {
        let half = usize::try_from(account_concurrency / 2).unwrap_or(usize::MAX);
        Self {
            queue,
            fresh: Mutex::default(),
            wake: Notify::new(),
            slots: half.clamp(1, 64),
            bound,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Keeps the event; durable when this returns. The store counts what an account has, in the
    /// transaction that adds to it, so that no race and no crash makes the count wrong.
    pub(crate) async fn put(&self, call: &Invocation, now: Timestamp) -> Result<()> {
        let key = queue_of(&call.function);
        let body = envelope::encode(call, now)?;
        let message = Message { body, within: Some(self.bound), ..Message::default() };
        match self.queue.put(&key, message).await {
            Err(StoreError::OverLoad) => return Err(full(self.bound)),
            put => drop(put?),
        }
        self.fresh.lock().insert(key);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes no more events.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Takes no more events, and waits for those that are being served.
    pub(crate) async fn drain(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What a caller is told whose account has as much in its queues as it may. AWS drops events of a
/// queue that is not kept up with; here the caller hears of it, and its SDK tries again later.
fn full(bound: Load) -> Error {
    let megabytes = bound.bytes >> 20;
    let message = format!(
        "Rate Exceeded. The account's asynchronous events that wait are bounded to {} events \
         and {megabytes} MB.",
        bound.messages
    );
    Error::new(Kind::Throttled(Throttle::CallerRate), message).with_retry_after(RETRY_AFTER)
}

/// The queue of a function's events.
fn queue_of(function: &FunctionKey) -> Key {
    Key::new(&function.account, &function.region, &[SEGMENT, function.name.as_str()])
}

/// The function whose events a queue holds; none if it is no queue of ours.
fn function_of(queue: &Key) -> Option<FunctionKey> {
    let segments = queue.segments();
    let [kind, name] = segments.as_slice() else { return None };
    if kind != SEGMENT {
        return None;
    }
    let (account, region) = (queue.account()?, queue.region()?);
    Some(FunctionKey { account, region, name: FunctionName::new(name).ok()? })
}

#[cfg(test)]
mod tests;
