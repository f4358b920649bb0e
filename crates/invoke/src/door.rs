//! The path of every invocation: admission, pool, Instance, usage record, answer.
//!
//! Everything that runs a function comes through [`Door::invoke`] or, if the event was left with
//! us, through [`Door::serve`] with the same steps. A warm hit makes no store access and crosses
//! no task; the usage record is written before the answer leaves. A caller that goes away does not
//! stop a handler that has begun: as on Lambda it runs to its end, in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use lacewing_model::usage::{Ending, UsageRecord};
use lacewing_model::{
    ByteSize, Clock, Error, Function, Invocation, Outcome, Reply, RequestId, Result,
};
use lacewing_runtime::{Completion, Instance, StartRequest, Starter};
use lacewing_services::{Identity, Services};
use lacewing_store::Store;

use crate::journal::{Journal, Position};
use crate::log_rounds::LogRounds;
use crate::pool::core::Config;
use crate::pool::driver::{Pool, Serve, Source};
use crate::{Options, admission, events};

/// The one version there is.
const LATEST: &str = "$LATEST";
/// An Instance is taken to need so much before its function was measured: an interpreter with a
/// small handler.
const START_RESERVE: lacewing_model::ByteSize = lacewing_model::ByteSize::mebibytes(64);
/// Callers that may wait, over all accounts.
const MAX_WAITING: usize = 10_000;
/// How long a caller waits for an Instance.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a function may wait while others have all the room.
const FAIR_WAIT: Duration = Duration::from_secs(1);

/// All parts of the way; generic over what makes Instances, see `pool::driver`.
#[derive(Debug)]
pub(crate) struct Door<S: Source> {
    pub(crate) services: Services,
    pub(crate) pool: Pool<S>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: events::Inbox,
    pub(crate) log_rounds: LogRounds,
}

/// An invocation that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) reply: Reply,
    pub(crate) ending: Ending,
    /// Where its usage record ends; none if it could not be written.
    pub(crate) usage: Option<Position>,
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
        let events = events::Inbox::new(store.queue, options.account_concurrency);
        Ok(Self {
            services,
            pool,
            journal: Arc::new(journal),
            clock,
            events,
            log_rounds: LogRounds::new(),
        })
    }

    /// Serves a caller who waits for the answer.
    pub(crate) async fn invoke(&self, call: Invocation) -> Result<Reply> {
        let function = admission::admit(&self.services.catalog, &call).await?;
        Ok(self.serve(function, call).await?.reply)
    }

    /// Keeps an event that is served later. It is durable when this returns.
    pub(crate) async fn enqueue(&self, call: Invocation) -> Result<RequestId> {
        admission::check(&self.services.catalog, &call)?;
        self.events.put(&call, self.clock.now()).await?;
        Ok(call.request_id)
    }

    /// Runs the admitted call to its end, whether or not the caller stays.
    pub(crate) async fn serve(
        &self,
        function: Arc<Function>,
        call: Invocation,
    ) -> Result<Finished> {
        let mut lease = self.pool.acquire(&function).await?;
        let (journal, clock) = (self.journal.clone(), self.clock.clone());
        let work = async move {
            let completion = lease.invoke(&call).await;
            let record = usage_record(&function, &call, &completion, &*clock);
            let usage = journal.append(&record);
            if let Err(error) = &usage {
                tracing::error!(error = %error, request_id = %call.request_id, "Usage record lost.");
            }
            drop(lease);
            finished(completion, usage.ok())
        };
        Ok(self.pool.run_on(work).await)
    }
}

fn finished(completion: Completion, usage: Option<Position>) -> Finished {
    let Completion { outcome, ending, log_tail, .. } = completion;
    let reply = Reply { outcome, executed_version: LATEST.to_owned(), log_tail };
    Finished { reply, ending, usage }
}

fn usage_record(
    function: &Function,
    call: &Invocation,
    completion: &Completion,
    clock: &dyn Clock,
) -> UsageRecord {
    let answer = match &completion.outcome {
        Outcome::Returned(payload) => payload.len(),
        Outcome::Failed(error) => error.payload.len(),
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    UsageRecord {
        at: clock.now(),
        account: function.key.account.clone(),
        region: function.key.region.clone(),
        function: function.key.name.clone(),
        version: LATEST.to_owned(),
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
        bytes_out: u64::try_from(answer).unwrap_or(u64::MAX),
    }
}

fn config(options: &Options) -> Config {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Config {
        memory: options.memory,
        start_reserve: START_RESERVE,
        max_instances: options.max_instances.max(1),
        // A start is a burst of work: more of them at a time would only make each one slower.
        max_starting: 2 * cores,
        max_waiting: MAX_WAITING,
        account_concurrency: options.account_concurrency,
        keep_alive: options.keep_alive,
        max_age: options.max_instance_age.min(Options::OLDEST),
        patience: PATIENCE,
        fair_wait: FAIR_WAIT,
    }
}

// === Live ===

impl Source for Live {
    type Instance = Instance;

    async fn start(&self, function: Arc<Function>) -> Result<Instance> {
        let credentials = self.identity.session(&function)?;
        let (version, substitute) = (LATEST.to_owned(), self.substitute);
        self.starter.start(StartRequest { function, version, credentials, substitute }).await
    }
}

impl Serve for Instance {
    async fn invoke(&mut self, call: &Invocation) -> Completion {
        Self::invoke(self, call).await
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

    async fn retire(self) {
        Self::retire(self).await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
