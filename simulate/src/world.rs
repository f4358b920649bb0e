//! A day in the life of the pool: callers, Instances and time, driven through the server's own core.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use lacewing_invoke::pool::core::{
    Command, Config, Core, Event, InstanceId, Keep, Share, WaiterId,
};
use lacewing_model::{ByteSize, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use crate::workload::Caller;

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    /// Callers who waited for a start.
    pub(crate) cold: u64,
    /// Callers who waited for an Instance that was busy.
    pub(crate) queued: u64,
    pub(crate) refused: u64,
    pub(crate) starts: u64,
    /// Memory of idle Instances, in GB-hours.
    pub(crate) wasted: f64,
    /// Memory of all Instances on average, in bytes.
    pub(crate) memory: f64,
    pub(crate) decisions: u64,
    /// Processor time of the thread.
    pub(crate) took: Duration,
    /// How many callers waited how many milliseconds, by powers of two; the first did not wait.
    waits: [u64; 24],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Call { caller: usize },
    Started { instance: usize },
    Done { instance: usize, waiter: WaiterId },
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    caller: usize,
    idle_since: Timestamp,
    has_served: bool,
}

/// What is under way. Items of one second lie in one bucket, unordered until its time comes.
#[derive(Debug)]
struct Agenda {
    seconds: Vec<Vec<(Timestamp, What)>>,
    now: usize,
    heap: BinaryHeap<Reverse<(Timestamp, What)>>,
}

#[derive(Debug)]
struct World<'a, K: Keep> {
    core: Core<K>,
    callers: &'a mut [Caller],
    seed: u64,
    agenda: Agenda,
    instances: Vec<Seen>,
    /// Who waits: when it came, and whose call it is.
    came: HashMap<WaiterId, (Timestamp, usize)>,
    figures: Figures,
    byte_seconds: f64,
    looked: Timestamp,
}

const ALL: Share = Share { instances: usize::MAX, memory: ByteSize::bytes(u64::MAX) };

/// Bounds so wide that only the judgement of what is worth keeping counts.
pub(crate) fn config(memory: ByteSize) -> Config {
    Config {
        memory,
        start_reserve: ByteSize::mebibytes(128),
        max_instances: usize::MAX,
        function_share: ALL,
        account_share: ALL,
        max_starting: usize::MAX / 128,
        start_rate: 1_000_000,
        start_burst: 1_000_000,
        max_waiting: usize::MAX,
        account_concurrency: u32::MAX,
        max_known: usize::MAX,
        keep_alive: Duration::from_secs(600),
        freeze_after: None,
        max_age: Duration::from_secs(7 * 86_400),
        patience: Duration::from_secs(600),
        fair_wait: Duration::from_secs(1),
    }
}

/// Lets the callers call for so many hours.
pub(crate) fn run<K: Keep>(
    core: Core<K>,
    callers: &mut [Caller],
    seed: u64,
    hours: u64,
) -> Figures {
    let end = Timestamp::from_seconds((hours * 3_600).cast_signed());
    let mut world = World {
        core,
        callers,
        seed,
        agenda: Agenda::new(hours * 3_600),
        instances: Vec::new(),
        came: HashMap::new(),
        figures: Figures::default(),
        byte_seconds: 0.0,
        looked: Timestamp::default(),
    };
    for caller in 0..world.callers.len() {
        let first = world.callers[caller].next(Timestamp::default());
        world.agenda.add(first, What::Call { caller });
    }
    let began = processor_time();
    while let Some((at, what)) = world.agenda.next() {
        world.pass_time(at);
        world.take(at, what);
    }
    world.figures.took = processor_time().saturating_sub(began);
    world.close(end);
    world.figures
}

/// What this thread has had: others may run beside it.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

// === World ===

impl<K: Keep> World<'_, K> {
    fn pass_time(&mut self, until: Timestamp) {
        while let Some(due) = self.core.next_due().filter(|due| *due <= until) {
            self.tell(Event::Tick, due);
        }
        self.byte_seconds +=
            bytes(self.core.memory_used()) * until.since(self.looked).as_secs_f64();
        self.looked = until;
    }

    fn take(&mut self, at: Timestamp, what: What) {
        match what {
            What::Call { caller } => {
                let waiter = WaiterId(self.figures.calls);
                self.came.insert(waiter, (at, caller));
                let function = self.callers[caller].function.clone();
                let next = self.callers[caller].next(at);
                self.agenda.add(next, What::Call { caller });
                self.figures.calls += 1;
                self.tell(Event::Arrive { waiter, function }, at);
            }
            What::Started { instance } => {
                let memory = self.memory_of(instance);
                self.instances[instance].idle_since = at;
                self.tell(Event::Started { instance: id(instance), memory }, at);
            }
            What::Done { instance, waiter } => {
                let memory = self.memory_of(instance);
                self.instances[instance].idle_since = at;
                let (instance, reusable) = (id(instance), true);
                self.tell(Event::Done { instance, waiter, memory, reusable }, at);
            }
        }
    }

    fn tell(&mut self, event: Event, now: Timestamp) {
        self.figures.decisions += 1;
        for command in self.core.on(event, now) {
            self.obey(&command, now);
        }
    }

    fn obey(&mut self, command: &Command, now: Timestamp) {
        match command {
            Command::Serve { waiter, instance } => self.serve(*waiter, number(*instance), now),
            Command::Start { instance, function, .. } => {
                let name = function.key.name.as_str();
                let caller = name[1..].parse().expect("as the workload names them");
                let seen = Seen { caller, idle_since: now, has_served: false };
                assert_eq!(number(*instance), self.instances.len(), "in turn");
                self.instances.push(seen);
                self.figures.starts += 1;
                let ready = now.plus(self.callers[caller].start);
                self.agenda.add(ready, What::Started { instance: number(*instance) });
            }
            Command::Retire { instance } => {
                self.waste(number(*instance), now);
                self.tell(Event::Retired { instance: *instance }, now);
            }
            Command::Refuse { .. } => self.figures.refused += 1,
            Command::Freeze { .. } | Command::Thaw { .. } => {}
        }
    }

    fn serve(&mut self, waiter: WaiterId, instance: usize, now: Timestamp) {
        self.waste(instance, now);
        let (came, caller) = self.came.remove(&waiter).expect("served once");
        let wait = now.since(came);
        let seen = &mut self.instances[instance];
        assert_eq!(seen.caller, caller, "its own function");
        match (wait.is_zero(), seen.has_served) {
            (true, _) => {}
            (false, true) => self.figures.queued += 1,
            (false, false) => self.figures.cold += 1,
        }
        seen.has_served = true;
        self.figures.count_wait(wait);
        let duration = self.callers[caller].duration(self.seed, waiter.0);
        self.agenda.add(now.plus(duration), What::Done { instance, waiter });
    }

    fn waste(&mut self, instance: usize, now: Timestamp) {
        let idle = now.since(self.instances[instance].idle_since).as_secs_f64();
        self.figures.wasted += idle * bytes(self.memory_of(instance)) / GB_HOUR;
        // What was counted is not counted again.
        self.instances[instance].idle_since = now;
    }

    fn memory_of(&self, instance: usize) -> ByteSize {
        ByteSize::mebibytes(self.callers[self.instances[instance].caller].memory_mb)
    }

    /// Ends the day: what is idle then was wasted too.
    fn close(&mut self, end: Timestamp) {
        self.pass_time(end);
        for command in self.core.on(Event::Stop, end) {
            if let Command::Retire { instance } = command {
                self.waste(number(instance), end);
            }
        }
        self.figures.memory = self.byte_seconds / end.since(Timestamp::default()).as_secs_f64();
    }
}

const GB_HOUR: f64 = 3_600.0 * 1_073_741_824.0;

#[expect(clippy::cast_precision_loss, reason = "a figure to be printed")]
fn bytes(size: ByteSize) -> f64 {
    size.as_bytes() as f64
}

fn id(instance: usize) -> InstanceId {
    InstanceId(u64::try_from(instance).expect("small"))
}

fn number(instance: InstanceId) -> usize {
    usize::try_from(instance.0).expect("an index")
}

// === Agenda ===

impl Agenda {
    fn new(seconds: u64) -> Self {
        let seconds = usize::try_from(seconds).expect("some days");
        Self { seconds: vec![Vec::new(); seconds], now: 0, heap: BinaryHeap::new() }
    }

    /// Notes what is to come; what comes after the end is left out.
    fn add(&mut self, at: Timestamp, what: What) {
        let second = usize::try_from(at.as_seconds()).unwrap_or(0);
        if second < self.now {
            self.heap.push(Reverse((at, what)));
        } else if let Some(bucket) = self.seconds.get_mut(second) {
            bucket.push((at, what));
        }
    }

    fn next(&mut self) -> Option<(Timestamp, What)> {
        loop {
            if let Some(Reverse(item)) = self.heap.pop() {
                return Some(item);
            }
            let bucket = std::mem::take(self.seconds.get_mut(self.now)?);
            self.now += 1;
            self.heap = bucket.into_iter().map(Reverse).collect();
        }
    }
}

// === Figures ===

impl Figures {
    fn count_wait(&mut self, wait: Duration) {
        let millis = u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
        let power = usize::try_from(millis.checked_ilog2().map_or(0, |log| log + 1)).unwrap_or(0);
        let last = self.waits.len() - 1;
        self.waits[power.min(last)] += 1;
    }

    /// The wait in milliseconds that this share of callers does not exceed, rounded up to a power
    /// of two.
    pub(crate) fn wait(&self, share: f64) -> u64 {
        let all: u64 = self.waits.iter().sum();
        let mut sum = 0;
        for (power, count) in self.waits.iter().enumerate() {
            sum += count;
            if to_float(sum) >= share * to_float(all) {
                return if power == 0 { 0 } else { 1 << power };
            }
        }
        u64::MAX
    }

    pub(crate) fn cold_share(&self) -> f64 {
        to_float(self.cold) / to_float(self.calls.max(1))
    }

    pub(crate) fn rate(&self) -> f64 {
        to_float(self.decisions) / self.took.as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to be printed")]
pub(crate) fn to_float(count: u64) -> f64 {
    count as f64
}
