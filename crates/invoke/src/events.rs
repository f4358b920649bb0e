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

use lacewing_model::{FunctionKey, FunctionName, Invocation, Result, Timestamp};
use lacewing_store::queue::Message;
use lacewing_store::{Key, Queue};

mod envelope;
mod worker;

pub(crate) use worker::run as run_worker;

/// How long a taken event is hidden before it must be extended.
const VISIBILITY: Duration = Duration::from_secs(10);
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
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Inbox {
    /// An inbox whose worker uses at most half of an account's concurrency.
    pub(crate) fn new(queue: Arc<dyn Queue>, account_concurrency: u32) -> Self {
        let half = usize::try_from(account_concurrency / 2).unwrap_or(usize::MAX);
        Self {
            queue,
            fresh: Mutex::default(),
            wake: Notify::new(),
            slots: half.clamp(1, 64),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Keeps the event; durable when this returns.
    pub(crate) async fn put(&self, call: &Invocation, now: Timestamp) -> Result<()> {
        let key = queue_of(&call.function);
        let body = envelope::encode(call, now)?;
        self.queue.put(&key, Message { body, ..Message::default() }).await?;
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
