//! The one door: whatever runs a function, a request, a queued event, a test, enters here.
//!
//! ```text
//!  Invocation --> admission --> pool (core decides, driver acts) --> Instance --> usage journal --> Reply
//!                    |                                                   ^
//!  enqueue --> durable queue of the function --> worker, bounded --------+
//! ```
//!
//! It does not know who calls it, and no wire format. It never answers before the usage record is
//! written, never lets one Instance serve two invocations, and never loses an event that it
//! accepted.

mod admission;
mod background;
mod concurrency;
mod door;
mod events;
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
mod log_rounds;
mod metrics;
mod options;
pub mod pool;
mod pressure;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::pool::driver::Source as _;
use lacewing_model::{
    Clock, Function, FunctionKey, Invocation, Qualifier, Reply, RequestId, Result, VersionKey,
};
use lacewing_runtime::{LogReceiver, Starter};
use lacewing_services::Services;
use lacewing_store::Store;

use crate::door::{Door, Live};

pub use door::Streamed;
pub use options::Options;
pub use pool::core::{Failed, Provided};

/// The one door; cheap to clone.
#[derive(Clone, Debug)]
pub struct Invoker(Arc<Door<Live>>);

/// What there is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Instances that are being started.
    pub starting: usize,
    /// Instances that wait for work.
    pub idle: usize,
    /// Instances that serve an invocation: the invocations in flight.
    pub busy: usize,
    /// Instances that are being ended.
    pub retiring: usize,
    /// Invocations that wait for an Instance.
    pub waiting: usize,
    /// Instances without a function that wait for a cold start.
    pub blank: usize,
    /// Cold starts since the start of the server that found one.
    pub blank_used: u64,
    /// Warm interpreters from which Instances are forked.
    pub origins: usize,
    /// Usage records that could not be written since the start.
    pub usage_lost: u64,
    /// Log records that were lost since the start: more came than is taken.
    pub log_records_lost: u64,
    /// Bytes of stored logs that were forgotten since the start to stay within their bounds.
    pub log_bytes_cut: u64,
}

impl Invoker {
    /// Opens the door; nothing runs in the background before [`Invoker::run`].
    ///
    /// # Errors
    /// If the usage journal cannot be opened.
    #[expect(clippy::unused_async, reason = "opening may come to need the store")]
    pub async fn open(
        options: Options,
        services: Services,
        starter: Starter,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let identity = services.identity.clone();
        let live = Live { starter, identity, substitute: options.substitute };
        Ok(Self(Arc::new(Door::open(&options, services, live, store, clock)?)))
    }

    /// Runs a function and waits for its answer. A caller that drops this future before an
    /// Instance was found gives up its place; later the function runs to its end nevertheless.
    ///
    /// # Errors
    /// If the function was not run, or by a fault of ours; a failure of the function itself is an
    /// outcome.
    pub async fn invoke(&self, call: Invocation) -> Result<Reply> {
        self.0.invoke(call).await
    }

    /// Runs a function for a caller who takes the answer as it comes; gives it when it begins, or when
    /// the invocation is over. A caller that drops this future gives up its place, or what comes of
    /// the function.
    ///
    /// # Errors
    /// If the function was not run.
    pub async fn stream(&self, call: Invocation) -> Result<Streamed> {
        self.0.stream(call).await
    }

    /// Keeps an event and runs its function later, at least once. The event is durable when this
    /// returns.
    ///
    /// # Errors
    /// If there is no such function, the payload is not acceptable, or the store does not take it.
    pub async fn enqueue(&self, call: Invocation) -> Result<RequestId> {
        self.0.enqueue(call).await
    }

    /// Says whether a call could be made, without making it.
    ///
    /// # Errors
    /// If there is no such function or version.
    pub fn dry_run(&self, function: &FunctionKey, qualifier: Option<&Qualifier>) -> Result<()> {
        admission::find(&self.0.services.catalog, function, qualifier)?;
        Ok(())
    }

    /// Puts in force what the catalog shows of a function's concurrency: the next call meets it.
    /// Changes that nobody tells of are in force a moment after the catalog shows them.
    pub fn concurrency_changed(&self, function: &FunctionKey) {
        concurrency::tell(&self.0, function);
        concurrency::provide(&self.0, function);
    }

    /// How the promise is kept that Instances of a version are ready.
    pub fn provided(&self, version: &VersionKey) -> Provided {
        self.0.pool.provided(version)
    }

    /// Serves events, lets time pass for the pool, and moves logs and usage to where they are
    /// read, until `stop`. Records that come later are moved after the next start.
    pub async fn run(self, logs: LogReceiver, stop: CancellationToken) {
        background::run(self.0, logs, &stop).await;
    }

    /// Waits until all that functions have written before now can be read.
    pub async fn logs_kept(&self) {
        self.0.log_rounds.kept().await;
    }

    /// Hands over all usage that was counted before now, so that it can be read.
    ///
    /// # Errors
    /// If it cannot be handed over now; nothing is lost.
    pub async fn usage_kept(&self) -> Result<()> {
        self.0.hand_over_usage().await.map(drop)
    }

    /// Takes no more calls, waits for those in flight, ends all Instances. Gives the number of
    /// invocations that were not over within `grace`. [`Invoker::run`] should still be running, so
    /// that the last logs are kept.
    pub async fn drain(&self, grace: Duration) -> usize {
        background::drain(&self.0, grace).await
    }

    /// What a monitoring system wants to know, as OpenMetrics text. Invocations are in it within a
    /// second or two.
    ///
    /// # Errors
    /// By a fault of ours.
    pub fn metrics(&self) -> Result<String> {
        self.0.metrics.text(&self.stats())
    }

    /// Why a version that wants a snapshot has none, as far as that is known.
    pub fn lacks_snapshot(&self, function: &Function) -> Option<String> {
        self.0.pool.source().lacks_snapshot(function)
    }

    /// What there is at the moment.
    pub fn stats(&self) -> Stats {
        let counts = self.0.pool.counts();
        let blanks = self.0.pool.source().blanks();
        Stats {
            starting: counts.starting,
            idle: counts.idle,
            busy: counts.busy,
            retiring: counts.retiring,
            waiting: counts.waiting,
            blank: blanks.waiting,
            blank_used: blanks.used,
            origins: blanks.origins,
            usage_lost: self.0.journal.lost(),
            log_records_lost: self.0.log_records_lost.load(Ordering::Relaxed),
            log_bytes_cut: self.0.services.logs.cut_bytes(),
        }
    }
}
