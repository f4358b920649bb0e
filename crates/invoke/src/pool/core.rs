//! Decides who serves, when to start, how many, whom to keep, whom to evict, whom to freeze and
//! whom to refuse.
//!
//! [`Core::on`] takes one event and the present moment and answers with commands:
//!
//! ```text
//!            Start             Started, nobody waits           Arrive: Serve
//!  (none) ---------> Starting ----------------------> Idle <------------------> Busy
//!                       |  Started, somebody waits: Serve            Done        |
//!                       +-------------------------------------------------------+
//!   StartFailed: gone             any of them, when it is not wanted: Retire -> Retiring -> gone
//! ```
//!
//! The same events give the same commands: it reads no clock, draws no random number, and never
//! walks a map of unordered keys. It does no IO, never waits, and holds no Instance, only its id.
//! An event about an Instance or a waiter that it does not know is ignored. [`Core::next_due`] says
//! by when it wants to hear `Tick`.
//!
//! The parts: `arrive` takes callers and gives them Instances, `seats` lets one serve several, `place`
//! starts Instances and makes room, `promise` keeps Instances ready, `idle` decides what becomes of those
//! without work, `inputs` takes what operators and the machine say, `permits` counts concurrency, `share`
//! bounds Instances, `line` keeps turns, [`Keep`] learns.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use slab::Slab;

use lacewing_model::usage::ColdStart;
use lacewing_model::{AccountId, ByteSize, Function, FunctionKey, Timestamp, VersionKey};

mod adaptive;
mod arrive;
mod idle;
mod inputs;
mod keep;
mod line;
mod mean;
mod permits;
mod place;
mod promise;
mod seats;
mod share;
mod timers;
mod words;

pub use adaptive::Adaptive;
pub use keep::{Facts, Keep, Plan};
pub use words::{
    Command, Config, Counts, Event, Failed, InstanceId, Provided, Refusal, Share, WaiterId,
};

use line::Line;
use mean::Mean;
use permits::{Family, Permits, Quota};
use place::Starts;
use promise::Promise;
use seats::Seated;
use share::Held;
use timers::Timers;

/// By numbers that are made here: nobody from outside can choose them to collide.
type ByNumber<N, V> = HashMap<N, V, FixedState>;

/// The state of the pool.
#[derive(Debug)]
pub struct Core<K: Keep = Adaptive> {
    config: Config,
    keep: K,
    next_instance: u64,
    names: HashMap<VersionKey, FunctionId>,
    /// The same by the place in memory of the value that the entry holds: who comes with that very
    /// value, as almost all do, is known without his name being read.
    places: ByNumber<usize, FunctionId>,
    functions: Slab<Entry<K::History>>,
    tenants: HashMap<AccountId, TenantId>,
    accounts: Slab<Account>,
    /// What the versions of a function share, of those that nobody calls too.
    families: HashMap<FunctionKey, FamilyId>,
    shares: Slab<Kin>,
    instances: ByNumber<InstanceId, Slot>,
    /// The function of every caller that waits.
    waiters: ByNumber<WaiterId, FunctionId>,
    /// When those who wait have waited too long; longest waiting first.
    patience: VecDeque<(Timestamp, WaiterId)>,
    /// Functions with callers for whom no Instance is being started, in turn.
    line: Line,
    starts: Starts,
    /// Instances that are being started to be kept ready.
    readying: usize,
    /// Those of them that take so long that they are no burst of work any more.
    lasting: usize,
    /// When those that are being started become that.
    lasts: VecDeque<(Timestamp, InstanceId)>,
    timers: Timers,
    /// When idle Instances are to be frozen; those that serve meanwhile are not.
    freezing: VecDeque<(Timestamp, InstanceId)>,
    /// The same, of those that could not be frozen then.
    refreezing: VecDeque<(Timestamp, InstanceId)>,
    /// Functions with idle Instances by the rank they had when they got in; lowest first.
    ranks: BinaryHeap<Reverse<(u64, FunctionId)>>,
    /// The rank of the last Instance that had to go for lack of memory.
    floor: f64,
    /// Functions that had neither Instances nor callers at some time, in that order.
    resting: VecDeque<FunctionId>,
    /// Measured memory of all Instances, with the reserve of those that start.
    used: ByteSize,
    /// That of the Instances that are being ended.
    leaving: ByteSize,
    counts: Counts,
    stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FunctionId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TenantId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FamilyId(usize);

/// One version of a function that is known.
#[derive(Debug)]
struct Entry<H> {
    function: Arc<Function>,
    deleted: bool,
    tenant: TenantId,
    family: FamilyId,
    quota: Quota,
    promise: Promise,
    waiting: VecDeque<Waiter>,
    /// The one used last is at the end.
    idle: VecDeque<InstanceId>,
    /// How many callers an Instance serves at a time.
    seats: usize,
    /// Busy ones that can serve one more; the one that was noted last is at the end.
    open: VecDeque<InstanceId>,
    starting: usize,
    busy: usize,
    retiring: usize,
    /// Why a start would be needed now that its last Instance ended.
    ended: ColdStart,
    /// No Instance of its present state was started yet, but some of a former one.
    renewed: bool,
    held: Held,
    /// Whether it is in `line`.
    queued: bool,
    /// Whether it is in `ranks`.
    ranked: bool,
    /// Whether it is in `resting`.
    resting: bool,
    /// What its Instance used when one was last measured.
    typical: Option<ByteSize>,
    start_time: Mean,
    duration: Mean,
    /// How long its callers have waited for busy Instances, all together, since its last start.
    waited: Duration,
    history: H,
    /// For each level of `Facts`.
    plans: [Option<Plan>; Facts::LEVELS],
    /// Samples since the plan was made, and before that.
    learned: [(u32, u32); Facts::LEVELS],
    /// When, and on which level, those that ended had become idle, as long as nobody was missing
    /// them; latest last.
    gone: VecDeque<(Timestamp, usize)>,
    /// When `Alarm::Keep` and `Alarm::Queue` ring.
    keep_due: Option<Timestamp>,
    queue_due: Option<Timestamp>,
    /// From when to when an Instance should stand ready though none is there.
    ahead: Option<(Timestamp, Timestamp)>,
    /// `floor` when an Instance was last used.
    floor: f64,
}

/// What the versions of one function share.
#[derive(Debug)]
struct Kin {
    function: FunctionKey,
    family: Family,
    /// How many of its versions are known.
    versions: usize,
}

/// One tenant that has functions here.
#[derive(Debug)]
struct Account {
    id: AccountId,
    permits: Permits,
    families: usize,
    held: Held,
    /// What of it is being ended.
    leaving: Held,
    /// How many of its Instances are idle.
    idle: usize,
    duration: Mean,
}

/// Tells the states of a function's code and configuration apart. A function that was deleted and
/// made anew begins with the first generation again, but at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CodeState {
    generation: u64,
    modified: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    id: WaiterId,
    since: Timestamp,
}

#[derive(Debug)]
struct Slot {
    function: FunctionId,
    /// How many callers it serves at a time.
    seats: usize,
    /// Whom it serves beside the caller in `phase`.
    beside: Vec<Seated>,
    /// Why it serves nobody else and is ended when its last invocation is over.
    ending: Option<ColdStart>,
    /// What it was made of.
    state: CodeState,
    memory: ByteSize,
    born: Timestamp,
    phase: Phase,
    /// On which it became idle.
    level: usize,
    /// Until when it is kept though nobody calls, if it was started before anybody did and has
    /// not served yet.
    until: Option<Timestamp>,
    /// Whether it was started to be kept ready, and whether that is taking long.
    provided: bool,
    lasts: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Starting,
    Idle { since: Timestamp, frozen: bool },
    Busy { waiter: Waiter, since: Timestamp },
    Retiring,
}

// === Core ===

impl Core {
    /// An empty pool that judges by each function's arrivals.
    pub fn new(config: Config) -> Self {
        let keep = Adaptive::new(config.keep_alive);
        Self::with(config, keep)
    }
}

impl<K: Keep> Core<K> {
    /// An empty pool with another judgement of what is worth keeping.
    pub fn with(config: Config, keep: K) -> Self {
        Self {
            starts: Starts::new(&config),
            readying: 0,
            lasting: 0,
            lasts: VecDeque::new(),
            config,
            keep,
            next_instance: 0,
            names: HashMap::new(),
            places: ByNumber::default(),
            functions: Slab::new(),
            tenants: HashMap::new(),
            accounts: Slab::new(),
            families: HashMap::new(),
            shares: Slab::new(),
            instances: ByNumber::default(),
            waiters: ByNumber::default(),
            patience: VecDeque::new(),
            line: Line::default(),
            timers: Timers::default(),
            freezing: VecDeque::new(),
            refreezing: VecDeque::new(),
            ranks: BinaryHeap::new(),
            floor: 0.0,
            resting: VecDeque::new(),
            used: ByteSize::ZERO,
            leaving: ByteSize::ZERO,
            counts: Counts::default(),
            stopping: false,
        }
    }

    /// Takes note of what happened and says what is to be done, in this order.
    pub fn on(&mut self, event: Event, now: Timestamp) -> Vec<Command> {
        let mut todo = Vec::new();
        match event {
            Event::Arrive { waiter, function } => self.arrive(waiter, function, now, &mut todo),
            Event::Leave { waiter } => self.leave(waiter, now),
            Event::Started { instance, memory } => {
                self.started(instance, memory, true, now, &mut todo);
            }
            Event::InitFailed { instance, memory } => {
                self.started(instance, memory, false, now, &mut todo);
            }
            Event::StartFailed { instance } => self.start_failed(instance, now, &mut todo),
            Event::Done { instance, waiter, memory, reusable } => {
                self.done(instance, waiter, (memory, reusable), now, &mut todo);
            }
            Event::Dead { instance, waiter } => self.dead(instance, waiter, now, &mut todo),
            Event::Measured { instance, memory, reusable } => {
                self.measured(instance, memory, reusable, now, &mut todo);
            }
            Event::Retired { instance } => self.retired(instance),
            Event::NotFrozen { instance } => self.not_frozen(instance, now),
            Event::Changed { function } => self.changed(function, now, &mut todo),
            Event::Deleted { function } => self.deleted(&function, now, &mut todo),
            Event::Reserved { function, concurrency } => self.reserve(&function, concurrency),
            Event::Provisioned { function, instances } => {
                self.provision(function, instances, now, &mut todo);
            }
            Event::Limited { account, concurrency } => self.limit(&account, concurrency),
            Event::Pressure { cpu } => self.starts.press(cpu),
            Event::Tick => self.tick(now, &mut todo),
            Event::Stop => self.stop(now, &mut todo),
        }
        self.relieve(now, &mut todo);
        self.place(now, &mut todo);
        todo
    }

    /// How many Instances are in which state, and how many callers wait.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What all Instances use, with the reserve of those that start.
    pub fn memory_used(&self) -> ByteSize {
        self.used
    }

    /// The functions that are known.
    pub fn functions(&self) -> impl Iterator<Item = VersionKey> {
        self.functions.iter().map(|(_, entry)| entry.function.version_key())
    }

    /// The functions that have something reserved.
    pub fn reserving(&self) -> impl Iterator<Item = &FunctionKey> {
        let kin = self.shares.iter().map(|(_, kin)| kin);
        kin.filter(|kin| kin.family.reserved.is_some()).map(|kin| &kin.function)
    }

    /// When something is to be decided even if nothing happens until then: by `Tick`.
    pub fn next_due(&self) -> Option<Timestamp> {
        let patience = self.patience.front().map(|(due, _)| *due);
        let freezing = self.freezing.front().map(|(due, _)| *due);
        let refreezing = self.refreezing.front().map(|(due, _)| *due);
        let lasts = self.lasts.front().map(|(due, _)| *due);
        [self.timers.next(), patience, freezing, refreezing, lasts].into_iter().flatten().min()
    }

    fn entry(&mut self, id: FunctionId) -> Option<&mut Entry<K::History>> {
        self.functions.get_mut(id.0)
    }

    /// The entry of a function that has Instances or callers: it is not forgotten meanwhile.
    fn known(&self, id: FunctionId) -> Option<&Entry<K::History>> {
        self.functions.get(id.0)
    }
}

impl<H> Entry<H> {
    /// Instances that serve or may serve.
    fn live(&self) -> usize {
        self.starting + self.idle.len() + self.busy
    }

    /// Whether it has neither Instances nor callers.
    fn is_empty(&self) -> bool {
        self.live() + self.retiring == 0 && self.waiting.is_empty()
    }

    /// Callers for whom an Instance is being started.
    fn coming(&self) -> usize {
        (self.starting - self.promise.starting) * self.seats
    }
}

/// Where a value lies, which is nobody else's place as long as it is held.
fn place_of(function: &Arc<Function>) -> usize {
    Arc::as_ptr(function).addr()
}

impl CodeState {
    fn of(function: &Function) -> Self {
        Self { generation: function.generation, modified: function.last_modified }
    }
}

#[cfg(test)]
mod tests;
