//! Does what the core decides: holds the Instances that are idle, starts and ends others, and
//! hands them to callers.
//!
//! A warm hit takes one short lock, moves one box out of a map, and spawns, sends and awaits
//! nothing. The lock is never held across an await nor while an Instance is started, served or
//! ended. Whoever has an Instance has it by value, in a [`Lease`]: giving it up in any way, a panic
//! or a cancelled future included, gives the Instance back, and one that was given up in the middle
//! of an invocation is ended, never used again. Of one that serves several callers a seat is given away,
//! another value of the same type, and the Instance itself stays here.
//!
//! [`Source`] and [`Serve`] are the seam between this and the runtime crate. They have one
//! implementation outside the tests; they exist because an Instance is a process in a sandbox, and
//! the races of this file (cancelling, dying, deleting) must be tested by the thousand without one.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lacewing_model::usage::ColdStart;
use lacewing_model::{
    ByteSize, Clock, Error, Function, FunctionKey, Invocation, Result, Timestamp, VersionKey,
};
use lacewing_runtime::stream::Outlet;
use lacewing_runtime::{BlankCounts, Completion, Freezer, StartTimes};

use crate::pool::core::{
    Command, Config, Core, Counts, Event, InstanceId, Provided, Refusal, WaiterId,
};

mod lease;
mod refusal;
mod wait;

pub(crate) use lease::{Lease, RunOn};
pub(crate) use wait::Wait;

use wait::Birth;

/// Idle Instances that are looked at with each tick, so that the lock stays short.
const MEASURED: usize = 32;
/// How often a drain looks whether all is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// Makes Instances.
pub(crate) trait Source: Debug + Send + Sync + 'static {
    /// What it makes.
    type Instance: Serve;

    /// Makes one for the function, because of this.
    fn start(
        &self,
        function: Arc<Function>,
        reason: ColdStart,
    ) -> impl Future<Output = Result<Self::Instance>> + Send;

    /// Notes that the function may be started soon.
    fn expect(&self, _function: &Function) {}

    /// Makes ahead what starts can use, until `stop`.
    fn work_ahead(&self, stop: &CancellationToken) -> impl Future<Output = ()> + Send {
        stop.cancelled()
    }

    /// Why a version that wants a snapshot has none, as far as that is known.
    fn lacks_snapshot(&self, _function: &Function) -> Option<String> {
        None
    }

    /// How many Instances without a function there are and were.
    fn blanks(&self) -> BlankCounts {
        BlankCounts::default()
    }
}

/// Serves one invocation after the other; see `lacewing_runtime::Instance`.
pub(crate) trait Serve: Debug + Send + 'static {
    /// A response that is streamed goes to the outlet as it comes, if there is one.
    fn invoke(
        &mut self,
        call: &Invocation,
        outlet: Option<&Outlet>,
    ) -> impl Future<Output = Completion> + Send;
    /// Another value for one more invocation, if it serves several at a time: it is dropped after it.
    fn seat(&mut self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
    /// Whether it is one of those.
    fn is_seat(&self) -> bool {
        false
    }
    /// What its start took.
    fn start_times(&self) -> StartTimes;
    fn is_reusable(&self) -> bool;
    fn last_memory(&self) -> ByteSize;
    /// Asks the system, unlike `is_reusable`: for ticks, not for the warm path.
    fn is_alive(&self) -> bool;
    /// Asks the system, unlike `last_memory`.
    fn memory_used(&self) -> ByteSize;
    /// What stops and continues its processes, where that can be done.
    fn freezer(&self) -> Option<Freezer>;
    /// Whether it has written something since its last invocation; asks the system.
    fn has_unread_output(&self) -> bool;
    fn retire(self) -> impl Future<Output = ()> + Send;
}

/// The Instances of this node.
#[derive(Debug)]
pub(crate) struct Pool<S: Source>(Arc<Shared<S>>);

#[derive(Debug)]
pub(crate) struct Shared<S: Source> {
    source: S,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    runtime: Handle,
    next_waiter: AtomicU64,
    /// The core wants to be woken earlier than it said before.
    earlier: Arc<Notify>,
    inner: Mutex<Inner<S::Instance>>,
}

#[derive(Debug)]
struct Inner<I> {
    core: Core,
    /// Instances that nobody has at the moment.
    parked: HashMap<InstanceId, Box<Born<I>>>,
    waiting: HashMap<WaiterId, oneshot::Sender<Grant<I>>>,
    /// Where the next look at idle Instances begins.
    measured: InstanceId,
    /// When [`Pool::wake`] wakes the core.
    due: Option<Timestamp>,
    earlier: Arc<Notify>,
}

/// An Instance, and until it has served how it came to be.
#[derive(Debug)]
struct Born<I> {
    instance: I,
    birth: Option<Birth>,
}

/// What a caller gets.
#[derive(Debug)]
enum Grant<I> {
    Served(InstanceId, WaiterId, Box<Born<I>>),
    Refused(Refusal, Duration, Option<Error>),
}

/// What is done after the lock is released.
#[derive(Debug)]
struct Later<I> {
    starts: Vec<(InstanceId, Arc<Function>, ColdStart)>,
    retires: Vec<(InstanceId, Box<Born<I>>)>,
    freezers: Vec<Freezer>,
}

/// A caller in the line; leaves it when dropped.
struct Waiting<'a, S: Source> {
    pool: &'a Pool<S>,
    waiter: WaiterId,
    grant: oneshot::Receiver<Grant<S::Instance>>,
}

// === Pool ===

impl<S: Source> Pool<S> {
    /// What makes Instances.
    pub(crate) fn source(&self) -> &S {
        &self.0.source
    }

    /// An empty pool that runs its tasks on the present runtime.
    pub(crate) fn new(config: Config, source: S, clock: Arc<dyn Clock>) -> Self {
        let earlier = Arc::new(Notify::new());
        let inner = Inner {
            core: Core::new(config),
            parked: HashMap::new(),
            waiting: HashMap::new(),
            measured: InstanceId(0),
            due: None,
            earlier: earlier.clone(),
        };
        Self(Arc::new(Shared {
            source,
            clock,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            next_waiter: AtomicU64::new(0),
            earlier,
            inner: Mutex::new(inner),
        }))
    }

    /// Gives an Instance of the function, waiting for one if need be.
    pub(crate) async fn acquire(&self, function: &Arc<Function>) -> Result<Lease<S>> {
        let arrived = Instant::now();
        let (grant, at_once) = match self.arrive(function) {
            Ok(grant) => (grant, true),
            Err(mut waiting) => match (&mut waiting.grant).await {
                Ok(grant) => (grant, false),
                Err(_) => (Grant::Refused(Refusal::Stopping, Duration::ZERO, None), false),
            },
        };
        match grant {
            Grant::Served(id, waiter, mut born) => {
                let wait = Wait::new(arrived, at_once, born.birth.take());
                Ok(Lease::new(self.0.clone(), (id, waiter), born, wait))
            }
            Grant::Refused(reason, retry_after, cause) => {
                Err(refusal::error(reason, retry_after, cause, &function.key))
            }
        }
    }

    /// Runs `work` to its end even when its caller goes away: then in a task of its own.
    pub(crate) fn run_on<F>(&self, work: F) -> RunOn<F>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        RunOn::new(work, self.0.tasks.clone(), self.0.runtime.clone())
    }

    /// Runs `work` to its end in a task of its own.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.tasks.spawn_on(work, &self.0.runtime));
    }

    /// Lets time pass: looks at some idle Instances, ends those that have had their time.
    pub(crate) fn tick(&self) {
        let mut later = Later::default();
        let now = self.0.clock.now();
        {
            let mut inner = self.0.inner.lock();
            let start = inner.measured;
            let mut ids: Vec<_> = inner.parked.keys().copied().collect();
            ids.sort_unstable_by_key(|id| (*id < start, *id));
            inner.measured = ids.get(MEASURED).copied().unwrap_or(InstanceId(0));
            for instance in ids.into_iter().take(MEASURED) {
                let Some(parked) = inner.parked.get(&instance) else { continue };
                let (memory, reusable) =
                    (parked.instance.memory_used(), parked.instance.is_alive());
                let commands = inner.core.on(Event::Measured { instance, memory, reusable }, now);
                inner.apply(commands, None, None, now, &mut later);
            }
            let commands = inner.core.on(Event::Tick, now);
            inner.apply(commands, None, None, now, &mut later);
        }
        self.0.clone().act(later);
    }

    /// Wakes the core whenever it has something to decide though nothing happens; for ever.
    pub(crate) async fn wake(&self) {
        loop {
            let due = self.0.inner.lock().due;
            let wait = due.map(|due| due.since(self.0.clock.now()));
            tokio::select! {
                () = self.0.earlier.notified() => continue,
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)) => {}
            }
            self.0.inner.lock().due = None;
            self.0.clone().note(Event::Tick);
        }
    }

    /// A function has changed: Instances of its former self are not used again.
    pub(crate) fn changed(&self, function: Arc<Function>) {
        self.0.clone().note(Event::Changed { function });
    }

    /// A function is gone: so are its Instances.
    pub(crate) fn deleted(&self, function: VersionKey) {
        self.0.clone().note(Event::Deleted { function });
    }

    /// So many invocations belong to all versions of a function, and no more; none if it shares what
    /// others have not reserved.
    pub(crate) fn reserve(&self, function: FunctionKey, concurrency: Option<u32>) {
        self.0.clone().note(Event::Reserved { function, concurrency });
    }

    /// So many Instances of the version are kept ready.
    pub(crate) fn provision(&self, function: Arc<Function>, instances: u32) {
        self.0.clone().note(Event::Provisioned { function, instances });
    }

    /// How that is kept.
    pub(crate) fn provided(&self, version: &VersionKey) -> Provided {
        self.0.inner.lock().core.provided(version)
    }

    /// The versions of a function of which some are kept ready.
    pub(crate) fn promised(&self, function: &FunctionKey) -> Vec<VersionKey> {
        self.0.inner.lock().core.promised(function)
    }

    /// Work waits for a processor in so many percent of the time.
    pub(crate) fn press(&self, percent: u8) {
        self.0.clone().note(Event::Pressure { cpu: percent });
    }

    /// The functions that have something reserved.
    pub(crate) fn reserving(&self) -> Vec<FunctionKey> {
        self.0.inner.lock().core.reserving().cloned().collect()
    }

    /// The functions that have Instances or callers.
    pub(crate) fn functions(&self) -> Vec<VersionKey> {
        self.0.inner.lock().core.functions().collect()
    }

    /// How many Instances are in which state, and how many callers wait.
    pub(crate) fn counts(&self) -> Counts {
        self.0.inner.lock().core.counts()
    }

    /// Takes no more callers, waits for those there are, ends all Instances. Gives the number of
    /// invocations that were not over within `grace`.
    pub(crate) async fn drain(&self, grace: Duration) -> usize {
        self.0.clone().note(Event::Stop);
        let idle = async {
            while self.counts() != Counts::default() || !self.0.tasks.is_empty() {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        if tokio::time::timeout(grace, idle).await.is_ok() {
            return 0;
        }
        let left = self.counts();
        left.served + left.waiting
    }

    /// What the caller gets at once, else its place in the line.
    fn arrive(&self, function: &Arc<Function>) -> Result<Grant<S::Instance>, Waiting<'_, S>> {
        let shared = &self.0;
        let waiter = WaiterId(shared.next_waiter.fetch_add(1, Ordering::Relaxed));
        let event = Event::Arrive { waiter, function: function.clone() };
        let mut later = Later::default();
        let now = shared.clock.now();
        let outcome = {
            let mut inner = shared.inner.lock();
            let commands = inner.core.on(event, now);
            match inner.apply(commands, None, None, now, &mut later) {
                Some(grant) => Ok(grant),
                None => {
                    let (sender, grant) = oneshot::channel();
                    inner.waiting.insert(waiter, sender);
                    Err(Waiting { pool: self, waiter, grant })
                }
            }
        };
        shared.clone().act(later);
        outcome
    }
}

impl<S: Source> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

// === Shared ===

impl<S: Source> Shared<S> {
    /// Tells the core, does what it says.
    fn note(self: Arc<Self>, event: Event) {
        self.note_with(event, None, None);
    }

    /// The same; `parked` is an Instance that comes with the event, `cause` why a start failed.
    fn note_with(
        self: Arc<Self>,
        event: Event,
        parked: Option<(InstanceId, Box<Born<S::Instance>>)>,
        cause: Option<Error>,
    ) {
        let mut later = Later::default();
        let now = self.clock.now();
        {
            let mut inner = self.inner.lock();
            let fresh = parked.as_ref().map(|(id, _)| *id);
            inner.parked.extend(parked);
            let commands = inner.core.on(event, now);
            let stray = inner.apply(commands, fresh, cause, now, &mut later);
            debug_assert!(stray.is_none(), "a grant for nobody: {stray:?}");
        }
        self.act(later);
    }

    fn act(self: Arc<Self>, later: Later<S::Instance>) {
        for freezer in later.freezers {
            // One that is gone needs neither.
            if let Err(error) = freezer.apply() {
                tracing::debug!(%error, "An Instance was not frozen or thawed.");
            }
        }
        for (id, function, reason) in later.starts {
            let start = self.clone().start(id, function, reason, Instant::now());
            self.tasks.spawn_on(start, &self.runtime);
        }
        for (id, born) in later.retires {
            let shared = self.clone();
            let retire = async move {
                let _end = lease::AtEnd::new(shared, Event::Retired { instance: id });
                born.instance.retire().await;
            };
            self.tasks.spawn_on(retire, &self.runtime);
        }
    }

    async fn start(
        self: Arc<Self>,
        id: InstanceId,
        function: Arc<Function>,
        reason: ColdStart,
        decided: Instant,
    ) {
        let guard = lease::AtEnd::new(self.clone(), Event::StartFailed { instance: id });
        match self.source.start(function, reason).await {
            Ok(instance) => {
                guard.disarm();
                let (ready, times) = (Instant::now(), instance.start_times());
                let memory = instance.memory_used();
                let event = if instance.is_reusable() {
                    Event::Started { instance: id, memory }
                } else {
                    Event::InitFailed { instance: id, memory }
                };
                let birth = Some(Birth { reason, decided, ready, times });
                self.note_with(event, Some((id, Box::new(Born { instance, birth }))), None);
            }
            Err(error) => {
                guard.disarm();
                tracing::error!(instance = id.0, error = %error.chain(), "Instance not started.");
                self.note_with(Event::StartFailed { instance: id }, None, Some(error));
            }
        }
    }
}

// === Inner ===

impl<I: Serve> Inner<I> {
    /// Carries the commands out as far as that takes no time. Gives the grant of a caller that is
    /// in no line yet: the one that has just arrived. `fresh` comes straight from its start or
    /// its last invocation and is not asked whether it is still alive.
    fn apply(
        &mut self,
        commands: Vec<Command>,
        fresh: Option<InstanceId>,
        mut cause: Option<Error>,
        now: Timestamp,
        later: &mut Later<I>,
    ) -> Option<Grant<I>> {
        let mut own = None;
        let mut next = commands;
        while !next.is_empty() {
            for command in std::mem::take(&mut next) {
                match command {
                    Command::Serve { waiter, instance } => {
                        let Some(mut parked) = self.parked.remove(&instance) else { continue };
                        if fresh != Some(instance) && !parked.instance.is_reusable() {
                            self.parked.insert(instance, parked);
                            next.extend(self.core.on(Event::Dead { instance, waiter }, now));
                            continue;
                        }
                        let granted = match parked.instance.seat() {
                            None => parked,
                            Some(seat) => {
                                let birth = parked.birth.take();
                                self.parked.insert(instance, parked);
                                Box::new(Born { instance: seat, birth })
                            }
                        };
                        self.grant(waiter, Grant::Served(instance, waiter, granted), &mut own);
                    }
                    Command::Refuse { waiter, reason, retry_after } => {
                        let cause = (reason == Refusal::StartFailed).then(|| cause.take());
                        let grant = Grant::Refused(reason, retry_after, cause.flatten());
                        self.grant(waiter, grant, &mut own);
                    }
                    Command::Start { instance, function, reason } => {
                        later.starts.push((instance, function, reason));
                    }
                    Command::Freeze { instance } => {
                        let Some(parked) = self.parked.get(&instance) else { continue };
                        if parked.instance.has_unread_output() {
                            next.extend(self.core.on(Event::NotFrozen { instance }, now));
                        } else {
                            later.freezers.extend(freezer(&parked.instance, true));
                        }
                    }
                    Command::Thaw { instance } => {
                        let parked = self.parked.get(&instance);
                        let thawed = parked.and_then(|parked| freezer(&parked.instance, false));
                        later.freezers.extend(thawed);
                    }
                    Command::Retire { instance } => {
                        let parked = self.parked.remove(&instance);
                        later.retires.extend(parked.map(|parked| (instance, parked)));
                    }
                }
            }
        }
        let due = self.core.next_due();
        if due.is_some_and(|due| self.due.is_none_or(|before| due < before)) {
            self.due = due;
            self.earlier.notify_one();
        }
        own
    }

    fn grant(&mut self, waiter: WaiterId, grant: Grant<I>, own: &mut Option<Grant<I>>) {
        match self.waiting.remove(&waiter) {
            // The receiver lives as long as the sender is in the map: see `Waiting::drop`.
            Some(sender) => drop(sender.send(grant)),
            None => *own = Some(grant),
        }
    }
}

/// The Instance's freezer, which has been told what is wanted of it. That is said in the core's order,
/// and done when the lock is released.
fn freezer(instance: &impl Serve, frozen: bool) -> Option<Freezer> {
    instance.freezer().inspect(|freezer| freezer.want(frozen))
}

impl<I> Default for Later<I> {
    fn default() -> Self {
        Self { starts: Vec::new(), retires: Vec::new(), freezers: Vec::new() }
    }
}

// === Waiting ===

impl<S: Source> Drop for Waiting<'_, S> {
    fn drop(&mut self) {
        let shared = &self.pool.0;
        let mut later = Later::default();
        let now = shared.clock.now();
        let is_in_line = {
            let mut inner = shared.inner.lock();
            let is_in_line = inner.waiting.remove(&self.waiter).is_some();
            if is_in_line {
                // Under the same lock: nothing may be granted to a waiter that is not in the map.
                let commands = inner.core.on(Event::Leave { waiter: self.waiter }, now);
                inner.apply(commands, None, None, now, &mut later);
            }
            is_in_line
        };
        shared.clone().act(later);
        if !is_in_line && let Ok(Grant::Served(id, waiter, born)) = self.grant.try_recv() {
            lease::give_back(shared, (id, waiter), born, true);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
