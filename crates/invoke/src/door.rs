//! The path of every invocation: admission, pool, Instance, usage record, answer.
//!
//! Everything that runs a function comes through [`Door::invoke`] or, if the event was left with
//! us, through [`Door::serve`] with the same steps. A warm hit makes no store access and crosses
//! no task; the usage record is written before the answer leaves. A caller that goes away does not
//! stop a handler that has begun: as on Lambda it runs to its end, in a task of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use lacewing_model::function::State;
use lacewing_model::usage::{ColdStart, Ending, Timeline, UsageRecord};
use lacewing_model::{
    ByteSize, Clock, Error, Function, Invocation, Kind, Outcome, Reply, RequestId, Result, Version,
};
use lacewing_runtime::stream::{self, Outlet, Pieces};
use lacewing_runtime::{
    BlankCounts, Completion, Freezer, Instance, StartRequest, StartTimes, Starter,
};
use lacewing_services::{Identity, Services};
use lacewing_store::Store;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, Position};
use crate::log_rounds::LogRounds;
use crate::metrics::Metrics;
use crate::pool::core::Config;
use crate::pool::driver::{Lease, Pool, Serve, Source};
use crate::{Options, admission, concurrency, events};

/// An Instance is taken to need so much before its function was measured: an interpreter with a
/// small handler.
const START_RESERVE: lacewing_model::ByteSize = lacewing_model::ByteSize::mebibytes(64);
/// Instances that each core may start in a second, on average, and how many may come at once: more
/// than a core can make, so that it bounds a storm and not a machine.
const START_RATE: u32 = 400;
const START_BURST: u32 = 500;
/// How long an Instance is idle before it is frozen: one that is called again and again never is.
const FREEZE_AFTER: Duration = Duration::from_millis(10);
/// Functions whose history is kept while they have no Instance.
const MAX_KNOWN: usize = 100_000;
/// Callers that may wait, over all accounts.
const MAX_WAITING: usize = 10_000;
/// How long a caller waits for an Instance.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a function may wait while others have all the room.
const FAIR_WAIT: Duration = Duration::from_secs(1);

/// How long a caller may take for what is left of a streamed answer when its function is over.
const LAST_PIECES: Duration = Duration::from_secs(60);

/// All parts of the way; generic over what makes Instances, see `pool::driver`.
#[derive(Debug)]
pub(crate) struct Door<S: Source> {
    pub(crate) services: Services,
    pub(crate) pool: Pool<S>,
    /// Held while the pool is told of concurrency.
    pub(crate) telling: Mutex<()>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: events::Inbox,
    pub(crate) log_rounds: LogRounds,
    pub(crate) metrics: Metrics,
    /// Log records that could not be taken since the start.
    pub(crate) log_records_lost: AtomicU64,
}

/// An invocation that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    /// An error if the handler was not called.
    pub(crate) reply: Result<Reply>,
    pub(crate) ending: Ending,
    /// Where its usage record ends; none if it could not be written.
    pub(crate) usage: Option<Position>,
}

/// An answer that its caller takes as it comes. To drop it does not stop the function, as on Lambda.
#[derive(Debug)]
pub struct Streamed {
    executed_version: String,
    content_type: Option<String>,
    pieces: Pieces,
    end: End,
}

/// The end of a streamed invocation.
#[derive(Debug)]
enum End {
    /// It was over before it streamed anything.
    Known(Reply),
    Awaited(oneshot::Receiver<Result<Reply>>),
}

/// Makes real Instances, with credentials of their function's role.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) starter: Starter,
    pub(crate) identity: Identity,
    pub(crate) substitute: bool,
}

// === Door ===

impl<S: Source> Door<S> {
    /// Puts the parts together.
    pub(crate) fn open(
        options: &Options,
        services: Services,
        source: S,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let journal = Journal::open(&options.data_dir.join("journal"))
            .map_err(|error| Error::internal("usage journal", error))?;
        let pool = Pool::new(config(options), source, clock.clone());
        let events = events::Inbox::new(store.queue, options.account_concurrency, options.events);
        let door = Self {
            services,
            pool,
            telling: Mutex::new(()),
            journal: Arc::new(journal),
            clock,
            events,
            log_rounds: LogRounds::new(),
            metrics: Metrics::new(),
            log_records_lost: AtomicU64::new(0),
        };
        // Before the first call.
        concurrency::tell_all(&door);
        Ok(door)
    }

    /// Serves a caller who waits for the answer.
    pub(crate) async fn invoke(&self, call: Invocation) -> Result<Reply> {
        let function = admission::admit(&self.services.catalog, &call).await?;
        self.serve(function, call).await?.reply
    }

    /// Keeps an event that is served later. It is durable when this returns.
    pub(crate) async fn enqueue(&self, call: Invocation) -> Result<RequestId> {
        admission::admit_later(&self.services.catalog, &call)?;
        self.metrics.note(self.events.put(&call, self.clock.now()).await)?;
        Ok(call.request_id)
    }

    /// Runs the admitted call to its end, whether or not the caller stays.
    pub(crate) async fn serve(
        &self,
        function: Arc<Function>,
        call: Invocation,
    ) -> Result<Finished> {
        let lease = self.metrics.note(self.pool.acquire(&function).await)?;
        Ok(self.pool.run_on(self.work(lease, function, call, None)).await)
    }

    /// Serves a caller who waits for the answer and takes it as it comes. Gives it when it begins.
    pub(crate) async fn stream(&self, call: Invocation) -> Result<Streamed> {
        let function = admission::admit(&self.services.catalog, &call).await?;
        let executed_version = function.version.to_string();
        let lease = self.metrics.note(self.pool.acquire(&function).await)?;
        let (outlet, mut pieces) = stream::channel();
        let (sender, end) = oneshot::channel();
        let work = self.work(lease, function, call, Some(outlet.clone()));
        // Who takes the answer slowly must not stop the clock, nor the watch over the process.
        self.pool.spawn(async move {
            let closing = outlet.closing();
            let finished = work.await;
            // A caller that went away does not want to know.
            let _gone = sender.send(finished.reply);
            drop(closing);
            outlet.taken(LAST_PIECES).await;
        });
        let content_type = pieces.begun().await;
        let end = match content_type {
            None => End::Known(heard(end.await)?),
            Some(_) => End::Awaited(end),
        };
        Ok(Streamed { executed_version, content_type, pieces, end })
    }

    /// Hands over all usage that was counted before now; gives the number of records.
    pub(crate) async fn hand_over_usage(&self) -> Result<u64> {
        self.journal.drain(&self.services.usage, &self.metrics).await
    }

    /// The invocation itself, until its usage record is written.
    fn work(
        &self,
        mut lease: Lease<S>,
        function: Arc<Function>,
        call: Invocation,
        outlet: Option<Outlet>,
    ) -> impl Future<Output = Finished> + Send + use<S> {
        let (journal, clock) = (self.journal.clone(), self.clock.clone());
        async move {
            let completion = lease.invoke(&call, outlet.as_ref()).await;
            let timeline = lease.wait().end(completion.duration);
            let record = usage_record(&function, &call, &completion, timeline, &*clock);
            let usage = journal.append(&record);
            if let Err(error) = &usage {
                tracing::error!(error = %error, request_id = %call.request_id, "Usage record lost.");
            }
            drop(lease);
            finished(completion, &function, timeline, usage.ok())
        }
    }
}

// === Streamed ===

impl Streamed {
    /// The version that runs, `$LATEST` or a number.
    pub fn executed_version(&self) -> &str {
        &self.executed_version
    }

    /// The type of what the function streams; `None` if it was over before it streamed anything.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Waits for the next piece; `None` after the last one.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.next().await
    }

    /// Waits for the end of the invocation, whose usage record is written then. The outcome has what
    /// did not come in pieces.
    ///
    /// # Errors
    /// By a fault of ours, and when the caller took the pieces too slowly to get all of them.
    pub async fn end(self) -> Result<Reply> {
        let end = match self.end {
            End::Known(reply) => return Ok(reply),
            End::Awaited(end) => end.await,
        };
        if self.pieces.is_abandoned() {
            return Err(Error::new(Kind::Timeout, "The response was not taken in time."));
        }
        heard(end)
    }
}

/// What was told of the end of a streamed invocation.
fn heard(end: Result<Result<Reply>, oneshot::error::RecvError>) -> Result<Reply> {
    end.map_err(|error| Error::internal("a streamed invocation ended without a word", error))?
}

fn finished(
    completion: Completion,
    function: &Function,
    timeline: Timeline,
    usage: Option<Position>,
) -> Finished {
    let Completion { outcome, ending, log_tail, .. } = completion;
    let executed_version = function.version.to_string();
    let reply = outcome.map(|outcome| Reply { outcome, executed_version, log_tail, timeline });
    Finished { reply, ending, usage }
}

fn usage_record(
    function: &Function,
    call: &Invocation,
    completion: &Completion,
    timeline: Timeline,
    clock: &dyn Clock,
) -> UsageRecord {
    let answer = match &completion.outcome {
        Ok(Outcome::Returned(payload)) => payload.len(),
        Ok(Outcome::Failed(error)) => error.payload.len(),
        Err(_) => 0,
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    UsageRecord {
        at: clock.now(),
        account: function.key.account.clone(),
        region: function.key.region.clone(),
        function: function.key.name.clone(),
        version: function.version.to_string(),
        request_id: call.request_id,
        trigger: call.trigger,
        ending: completion.ending,
        duration_us: micros(completion.duration),
        billed_ms: u64::try_from(completion.billed.as_millis()).unwrap_or(u64::MAX),
        init_us: completion.init.map(micros),
        memory_mb: function.config.memory_mb,
        max_memory_mb: u32::try_from(completion.max_memory.as_mebibytes_rounded_up())
            .unwrap_or(u32::MAX),
        bytes_in: u64::try_from(call.payload.len()).unwrap_or(u64::MAX),
        bytes_out: completion.streamed + u64::try_from(answer).unwrap_or(u64::MAX),
        network_in: completion.traffic.received,
        network_out: completion.traffic.sent,
        timeline: Some(timeline),
    }
}

fn config(options: &Options) -> Config {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Config {
        memory: options.memory,
        start_reserve: START_RESERVE,
        max_instances: options.max_instances.max(1),
        function_share: options.function_share,
        account_share: options.account_share,
        // A start is a burst of work: more of them at a time would only make each one slower.
        max_starting: 2 * cores,
        start_rate: START_RATE * u32::try_from(cores).unwrap_or(1),
        start_burst: START_BURST,
        max_waiting: MAX_WAITING,
        account_concurrency: options.account_concurrency,
        max_known: MAX_KNOWN,
        keep_alive: options.keep_alive,
        freeze_after: Some(FREEZE_AFTER),
        max_age: options.max_instance_age.min(Options::OLDEST),
        patience: PATIENCE,
        fair_wait: FAIR_WAIT,
    }
}

// === Live ===

impl Live {
    /// Has the snapshot of a version made ahead, once the version can be invoked.
    fn expect_snapshot(&self, function: &Function) {
        if function.state != State::Active {
            return;
        }
        let substitute = self.substitute;
        let Ok(credentials) = self.identity.session(function) else { return };
        let request = StartRequest {
            function: Arc::new(function.clone()),
            credentials,
            substitute,
            provisioned: false,
        };
        self.starter.expect_snapshot(request);
    }
}

impl Source for Live {
    type Instance = Instance;

    async fn start(&self, function: Arc<Function>, reason: ColdStart) -> Result<Instance> {
        let credentials = self.identity.session(&function)?;
        let substitute = self.substitute;
        let provisioned = reason == ColdStart::Provisioned;
        let request = StartRequest { function, credentials, substitute, provisioned };
        self.starter.start(request).await
    }

    fn expect(&self, function: &Function) {
        // `$LATEST` changes often, and has one when it is wanted.
        if function.version == Version::Latest {
            self.starter.renew_snapshot(function);
        }
        if !function.is_snap_started() {
            self.starter.expect(function, self.substitute);
        } else if function.version != Version::Latest {
            self.expect_snapshot(function);
        }
    }

    fn lacks_snapshot(&self, function: &Function) -> Option<String> {
        self.starter.lacks_snapshot(function)
    }

    async fn work_ahead(&self, stop: &CancellationToken) {
        self.starter.keep_blanks(stop).await;
    }

    fn blanks(&self) -> BlankCounts {
        self.starter.blanks()
    }
}

impl Serve for Instance {
    async fn invoke(&mut self, call: &Invocation, outlet: Option<&Outlet>) -> Completion {
        self.invoke_to(call, outlet).await
    }

    fn seat(&mut self) -> Option<Self> {
        Self::seat(self)
    }

    fn is_seat(&self) -> bool {
        Self::is_seat(self)
    }

    fn start_times(&self) -> StartTimes {
        Self::start_times(self)
    }

    fn is_reusable(&self) -> bool {
        Self::is_reusable(self)
    }

    fn last_memory(&self) -> ByteSize {
        Self::last_memory(self)
    }

    fn is_alive(&self) -> bool {
        Self::is_alive(self)
    }

    fn memory_used(&self) -> ByteSize {
        Self::memory_used(self)
    }

    fn freezer(&self) -> Option<Freezer> {
        Self::freezer(self)
    }

    fn has_unread_output(&self) -> bool {
        Self::has_unread_output(self)
    }

    async fn retire(self) {
        Self::retire(self).await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
