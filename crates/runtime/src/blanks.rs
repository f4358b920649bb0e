//! Blank Instances: sandboxes with a warmed-up interpreter and without a function, made ahead so that
//! a cold start finds one.
//!
//! Each is used once, and never again by another function. They are made one after the other while
//! nobody waits for them, for the kinds that were asked for last; a start that finds none makes its
//! own sandbox and pays for it. How many there are is bounded, and kinds out of use lose theirs. Where
//! they can be they are forked from an [origin](crate::origins).

mod stock;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use lacewing_model::{AccountId, Family, Network};

use crate::process::Process;
use crate::runtimes::Interpreter;

use stock::Stock;

/// A kind that nobody asked for in this time loses its blanks.
const EXPIRY: Duration = Duration::from_secs(10 * 60);
/// How often that is looked for.
const LOOK: Duration = Duration::from_secs(30);
/// Time between a start and the making of the next blank, which the start should not notice.
const PAUSE: Duration = Duration::from_millis(20);
/// Kinds, of those that were asked for last, that are prepared though none of them may wait.
const PREPARED: usize = 8;
/// Time after one could not be made.
const PENALTY: Duration = Duration::from_secs(10);

/// What must be the same in a blank and in the function that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// What forked ones have in common only the functions of one account may share.
    pub(crate) account: AccountId,
    pub(crate) interpreter: Interpreter,
    pub(crate) network: Network,
    pub(crate) ephemeral_mb: u32,
    /// Node sizes its heap when it starts.
    pub(crate) memory_mb: Option<u32>,
}

impl Kind {
    pub(crate) fn new(
        account: AccountId,
        interpreter: Interpreter,
        network: Network,
        ephemeral_mb: u32,
        memory_mb: u32,
    ) -> Self {
        let sizes_itself = interpreter.runtime.family == Family::Node;
        let memory_mb = sizes_itself.then_some(memory_mb);
        Self { account, interpreter, network, ephemeral_mb, memory_mb }
    }
}

/// How many blank Instances there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlankCounts {
    /// That wait.
    pub waiting: usize,
    /// That functions have got since the start.
    pub used: u64,
    /// Warm interpreters from which they are forked.
    pub origins: usize,
}

/// All blanks of a node.
#[derive(Debug)]
pub(crate) struct Blanks {
    stock: Mutex<Stock<Kind, Process>>,
    used: AtomicU64,
    /// Somebody took one or asked for a kind.
    changed: Notify,
}

impl Blanks {
    pub(crate) fn new(most: usize) -> Self {
        let (stock, used) = (Mutex::new(Stock::new(most)), AtomicU64::new(0));
        Self { stock, used, changed: Notify::new() }
    }

    pub(crate) fn counts(&self, origins: usize) -> BlankCounts {
        let used = self.used.load(Ordering::Relaxed);
        BlankCounts { waiting: self.stock.lock().count(), used, origins }
    }

    /// Notes that a function runs in one that was taken.
    pub(crate) fn count_used(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a kind may be asked for.
    pub(crate) fn expect(&self, kind: &Kind) {
        self.stock.lock().expect(kind, Instant::now().into_std());
        self.changed.notify_one();
    }

    /// Takes one that lives, and notes that its kind is in use.
    pub(crate) fn take(&self, kind: &Kind) -> Option<Process> {
        let mut stock = self.stock.lock();
        stock.note(kind, Instant::now().into_std());
        let taken = std::iter::from_fn(|| stock.take(kind)).find(Process::is_alive);
        drop(stock);
        self.changed.notify_one();
        taken
    }

    /// Has the kinds prepared that are asked for, and keeps the stock full by what `make` gives, for
    /// ever; whoever stops waiting calls [`Self::clear`].
    pub(crate) async fn refill<P, F>(&self, prepare: impl Fn(Kind) -> P, make: impl Fn(Kind) -> F)
    where
        P: Future<Output = ()>,
        F: Future<Output = Option<Process>>,
    {
        loop {
            tokio::select! {
                () = self.changed.notified() => tokio::time::sleep(PAUSE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
            let expired = Instant::now().checked_sub(EXPIRY).map(Instant::into_std);
            let old = expired.map(|moment| self.stock.lock().expire(moment));
            drop(old);
            let latest = self.stock.lock().latest(PREPARED);
            for kind in latest {
                prepare(kind).await;
            }
            while let Some(kind) = self.wanted() {
                match make(kind.clone()).await {
                    Some(process) => {
                        let surplus = self.stock.lock().put(&kind, process);
                        drop(surplus);
                    }
                    None => tokio::time::sleep(PENALTY).await,
                }
            }
        }
    }

    fn wanted(&self) -> Option<Kind> {
        self.stock.lock().wanted().cloned()
    }

    /// Ends all.
    pub(crate) fn clear(&self) {
        let all = self.stock.lock().clear();
        drop(all);
    }
}
