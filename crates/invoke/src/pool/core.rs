//! Decides who serves, when to start, how many, whom to keep, whom to evict and whom to refuse.
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
//! An event about an Instance or a waiter that it does not know is ignored.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use lacewing_model::{AccountId, ByteSize, Function, FunctionKey, Timestamp};

mod place;
mod words;

pub use words::{Command, Config, Counts, Event, InstanceId, Refusal, WaiterId};

/// The state of the pool.
#[derive(Debug)]
pub struct Core {
    config: Config,
    next_function: u64,
    next_instance: u64,
    names: HashMap<FunctionKey, FunctionId>,
    functions: BTreeMap<FunctionId, Entry>,
    instances: BTreeMap<InstanceId, Slot>,
    /// The function of every caller that waits.
    waiters: HashMap<WaiterId, FunctionId>,
    /// Invocations of each account, waiting or served.
    permits: HashMap<AccountId, u32>,
    /// Functions with callers for whom no Instance is being started, in turn.
    hungry: VecDeque<FunctionId>,
    /// Measured memory of all Instances, with the reserve of those that start.
    used: ByteSize,
    counts: Counts,
    stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FunctionId(u64);

/// One function that has Instances or callers.
#[derive(Debug)]
struct Entry {
    function: Arc<Function>,
    deleted: bool,
    waiting: VecDeque<Waiter>,
    /// The one used last is at the end.
    idle: Vec<InstanceId>,
    starting: usize,
    instances: usize,
    /// Whether it is in `hungry`.
    queued: bool,
    /// What its Instance used when one was last measured.
    typical: Option<ByteSize>,
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
    /// What it was made of.
    state: CodeState,
    memory: ByteSize,
    born: Timestamp,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Starting,
    Idle { since: Timestamp },
    Busy { waiter: Waiter },
    Retiring,
}

// === Core ===

impl Core {
    /// An empty pool.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            next_function: 0,
            next_instance: 0,
            names: HashMap::new(),
            functions: BTreeMap::new(),
            instances: BTreeMap::new(),
            waiters: HashMap::new(),
            permits: HashMap::new(),
            hungry: VecDeque::new(),
            used: ByteSize::ZERO,
            counts: Counts::default(),
            stopping: false,
        }
    }

    /// Takes note of what happened and says what is to be done, in this order.
    pub fn on(&mut self, event: Event, now: Timestamp) -> Vec<Command> {
        let mut todo = Vec::new();
        match event {
            Event::Arrive { waiter, function } => self.arrive(waiter, function, now, &mut todo),
            Event::Leave { waiter } => self.leave(waiter),
            Event::Started { instance, memory } => {
                self.started(instance, memory, now, &mut todo);
            }
            Event::StartFailed { instance } => self.start_failed(instance, &mut todo),
            Event::Done { instance, memory, reusable } => {
                self.done(instance, memory, reusable, now, &mut todo);
            }
            Event::Dead { instance } => self.dead(instance, &mut todo),
            Event::Measured { instance, memory, reusable } => {
                self.measured(instance, memory, reusable, &mut todo);
            }
            Event::Retired { instance } => self.retired(instance),
            Event::Changed { function } => self.changed(function, &mut todo),
            Event::Deleted { function } => self.deleted(&function, &mut todo),
            Event::Tick => self.tick(now, &mut todo),
            Event::Stop => self.stop(&mut todo),
        }
        self.relieve(&mut todo);
        self.place(now, &mut todo);
        todo
    }

    /// How many Instances are in which state, and how many callers wait.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The functions that have Instances or callers.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionKey> {
        self.functions.values().map(|entry| &entry.function.key)
    }

    fn arrive(
        &mut self,
        waiter: WaiterId,
        function: Arc<Function>,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        if let Err(reason) = self.admit(&function.key.account) {
            todo.push(Command::Refuse { waiter, reason });
            return;
        }
        let id = self.entry_of(function, todo);
        let waiter = Waiter { id: waiter, since: now };
        let max_age = self.config.max_age;
        while let Some(instance) = self.functions.get_mut(&id).and_then(|entry| entry.idle.pop()) {
            if self.age(instance, now) < max_age {
                self.serve(instance, waiter, todo);
                return;
            }
            self.retire(instance, todo);
        }
        let Some(entry) = self.functions.get_mut(&id) else { return };
        entry.waiting.push_back(waiter);
        self.waiters.insert(waiter.id, id);
        self.counts.waiting += 1;
        self.want(id);
    }

    /// Takes a permit for one more invocation of the account.
    fn admit(&mut self, account: &AccountId) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        if self.counts.waiting >= self.config.max_waiting {
            return Err(Refusal::TooManyWaiting);
        }
        match self.permits.get_mut(account) {
            Some(used) if *used >= self.config.account_concurrency => {
                return Err(Refusal::AccountConcurrency);
            }
            Some(used) => *used += 1,
            None if self.config.account_concurrency == 0 => {
                return Err(Refusal::AccountConcurrency);
            }
            None => {
                self.permits.insert(account.clone(), 1);
            }
        }
        Ok(())
    }

    /// Gives back the permit of one invocation of the function.
    fn release(&mut self, id: FunctionId) {
        let Some(entry) = self.functions.get(&id) else { return };
        let account = &entry.function.key.account;
        if let Some(used) = self.permits.get_mut(account) {
            *used -= 1;
            if *used == 0 {
                self.permits.remove(account);
            }
        }
    }

    /// The function's entry, brought up to what the caller saw.
    fn entry_of(&mut self, function: Arc<Function>, todo: &mut Vec<Command>) -> FunctionId {
        if let Some(&id) = self.names.get(&function.key) {
            if self.functions.get(&id).is_some_and(|entry| is_newer(&function, entry)) {
                self.renew(id, function, todo);
            }
            return id;
        }
        let id = FunctionId(self.next_function);
        self.next_function += 1;
        self.names.insert(function.key.clone(), id);
        let entry = Entry {
            function,
            deleted: false,
            waiting: VecDeque::new(),
            idle: Vec::new(),
            starting: 0,
            instances: 0,
            queued: false,
            typical: None,
        };
        self.functions.insert(id, entry);
        id
    }

    fn leave(&mut self, waiter: WaiterId) {
        let Some(id) = self.waiters.remove(&waiter) else { return };
        if let Some(entry) = self.functions.get_mut(&id) {
            entry.waiting.retain(|other| other.id != waiter);
        }
        self.counts.waiting -= 1;
        self.release(id);
        self.forget_if_empty(id);
    }

    fn started(
        &mut self,
        instance: InstanceId,
        memory: ByteSize,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        let Phase::Starting = slot.phase else { return };
        slot.phase = Phase::Idle { since: now };
        let id = slot.function;
        self.counts.starting -= 1;
        self.counts.idle += 1;
        if let Some(entry) = self.functions.get_mut(&id) {
            entry.starting -= 1;
        }
        self.measure(instance, memory);
        self.offer(instance, now, todo);
    }

    fn start_failed(&mut self, instance: InstanceId, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let (Phase::Starting, id) = (slot.phase, slot.function) else { return };
        if let Some(entry) = self.functions.get_mut(&id) {
            entry.starting -= 1;
        }
        self.counts.starting -= 1;
        self.refuse_first(id, Refusal::StartFailed, todo);
        self.remove(instance);
        self.want(id);
    }

    fn done(
        &mut self,
        instance: InstanceId,
        memory: ByteSize,
        reusable: bool,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        let Phase::Busy { .. } = slot.phase else { return };
        slot.phase = Phase::Idle { since: now };
        let id = slot.function;
        self.counts.busy -= 1;
        self.counts.idle += 1;
        self.release(id);
        self.measure(instance, memory);
        if !reusable || self.must_yield(id, now) {
            self.retire(instance, todo);
            self.want(id);
        } else {
            self.offer(instance, now, todo);
        }
    }

    fn dead(&mut self, instance: InstanceId, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        let Phase::Busy { waiter } = slot.phase else { return };
        slot.phase = Phase::Idle { since: slot.born };
        let id = slot.function;
        self.counts.busy -= 1;
        self.counts.idle += 1;
        if let Some(entry) = self.functions.get_mut(&id) {
            entry.waiting.push_front(waiter);
        }
        self.waiters.insert(waiter.id, id);
        self.counts.waiting += 1;
        self.retire(instance, todo);
        let Some(entry) = self.functions.get_mut(&id) else { return };
        if entry.deleted {
            self.refuse_first(id, Refusal::Deleted, todo);
        } else if let Some(next) = entry.idle.pop() {
            self.serve_first(next, todo);
        } else {
            self.want(id);
        }
    }

    fn measured(
        &mut self,
        instance: InstanceId,
        memory: ByteSize,
        reusable: bool,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let Phase::Idle { .. } = slot.phase else { return };
        self.measure(instance, memory);
        if !reusable {
            self.retire_idle(instance, todo);
        }
    }

    fn retired(&mut self, instance: InstanceId) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let Phase::Retiring = slot.phase else { return };
        self.counts.retiring -= 1;
        self.remove(instance);
    }

    fn changed(&mut self, function: Arc<Function>, todo: &mut Vec<Command>) {
        let Some(&id) = self.names.get(&function.key) else { return };
        if self.functions.get(&id).is_some_and(|entry| is_newer(&function, entry)) {
            self.renew(id, function, todo);
        }
    }

    /// From here on only Instances of this state of the function are used.
    fn renew(&mut self, id: FunctionId, function: Arc<Function>, todo: &mut Vec<Command>) {
        let Some(entry) = self.functions.get_mut(&id) else { return };
        let is_stale = entry.deleted || CodeState::of(&entry.function) != CodeState::of(&function);
        entry.function = function;
        entry.deleted = false;
        if is_stale {
            for instance in std::mem::take(&mut entry.idle) {
                self.retire(instance, todo);
            }
            self.want(id);
        }
    }

    fn deleted(&mut self, key: &FunctionKey, todo: &mut Vec<Command>) {
        let Some(&id) = self.names.get(key) else { return };
        let Some(entry) = self.functions.get_mut(&id) else { return };
        entry.deleted = true;
        for instance in std::mem::take(&mut entry.idle) {
            self.retire(instance, todo);
        }
        while self.refuse_first(id, Refusal::Deleted, todo) {}
        self.forget_if_empty(id);
    }

    fn tick(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        let (keep_alive, max_age) = (self.config.keep_alive, self.config.max_age);
        let is_over = |slot: &Slot| match slot.phase {
            Phase::Idle { since } => {
                now.since(since) >= keep_alive || now.since(slot.born) >= max_age
            }
            _ => false,
        };
        let over = self.instances.iter().filter(|(_, slot)| is_over(slot)).map(|(id, _)| *id);
        for instance in over.collect::<Vec<_>>() {
            self.retire_idle(instance, todo);
        }
        let patience = self.config.patience;
        let is_late = |entry: &Entry| {
            entry.waiting.front().is_some_and(|first| now.since(first.since) >= patience)
        };
        let late = self.functions.iter().filter(|(_, entry)| is_late(entry)).map(|(id, _)| *id);
        for id in late.collect::<Vec<_>>() {
            while self.functions.get(&id).is_some_and(is_late) {
                self.refuse_first(id, Refusal::WaitedTooLong, todo);
            }
            self.forget_if_empty(id);
        }
    }

    fn stop(&mut self, todo: &mut Vec<Command>) {
        self.stopping = true;
        for instance in self.idle_since().into_iter().map(|(_, instance)| instance) {
            self.retire_idle(instance, todo);
        }
    }
}

impl CodeState {
    fn of(function: &Function) -> Self {
        Self { generation: function.generation, modified: function.last_modified }
    }
}

/// Whether the function is a later state of what the entry holds.
fn is_newer(function: &Function, entry: &Entry) -> bool {
    let (new, old) = (CodeState::of(function), CodeState::of(&entry.function));
    entry.deleted || new.generation > old.generation || new.modified > old.modified
}

#[cfg(test)]
mod tests;
