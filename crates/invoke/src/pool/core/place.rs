//! Starting Instances: for whom, how many at once, and what has to go for them.

use std::time::Duration;

use lacewing_model::usage::ColdStart;
use lacewing_model::{ByteSize, Timestamp};

use super::timers::Alarm;
use super::{
    CodeState, Command, Config, Core, Entry, FunctionId, InstanceId, Keep, Phase, Refusal, Slot,
};

/// What a start is taken to last before one was seen.
const START_TIME: Duration = Duration::from_millis(250);
/// Callers that wait for one busy Instance instead of a start of their own, at most.
const ROUNDS: u32 = 4;
/// From this pressure on, in percent, nothing is started before anybody calls.
const BUSY: u8 = 50;

/// What an Instance is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A caller who waits.
    Caller,
    /// To be kept ready.
    Promise,
    /// A call that is expected until then.
    Ahead(Timestamp),
}

/// How many starts there may be: at a time, less of them while the processors have enough to do,
/// and in the long run.
#[derive(Debug)]
pub(super) struct Starts {
    most: usize,
    pressure: u8,
    /// The time that one start takes up in the long run.
    interval: Duration,
    /// How far they may be ahead of it.
    ahead: Duration,
    /// The end of the time that is taken up.
    taken: Timestamp,
    /// When `Alarm::Start` rings.
    due: Option<Timestamp>,
}

// === Starts ===

impl Starts {
    pub(super) fn new(config: &Config) -> Self {
        let interval = Duration::from_secs(1) / config.start_rate.max(1);
        let ahead = interval * config.start_burst.saturating_sub(1);
        let (most, taken) = (config.max_starting, Timestamp::from_micros(i64::MIN));
        Self { most, pressure: 0, interval, ahead, taken, due: None }
    }

    pub(super) fn press(&mut self, percent: u8) {
        self.pressure = percent.min(100);
    }

    /// How many Instances may be starting.
    pub(super) fn most(&self) -> usize {
        (self.most * usize::from(100 - self.pressure) / 100).max(1)
    }

    /// How long it is until one more may be started in the long run.
    pub(super) fn wait(&self, now: Timestamp) -> Duration {
        self.taken.since(now.plus(self.ahead))
    }

    fn take(&mut self, now: Timestamp) {
        self.taken = self.taken.max(now).plus(self.interval);
    }
}

// === Core ===

impl<K: Keep> Core<K> {
    /// Starts Instances for functions that want one, in turn. Who has all of a share steps aside, and
    /// who wants one kept ready while enough of these are started.
    pub(super) fn place(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        let mut aside = Vec::new();
        while let Some(id) = self.line.first() {
            if !self.needs(id, now) {
                self.leave_line(id, now);
                continue;
            }
            if let Some(share) = self.lacking(id) {
                if share == Refusal::AccountShare {
                    self.make_share(id, now, todo);
                }
                self.line.pop();
                aside.push(id);
                continue;
            }
            let purpose = self.purpose(id, now);
            if purpose == Purpose::Promise && self.has_promises_enough() {
                self.line.pop();
                aside.push(id);
                continue;
            }
            let is_full = purpose == Purpose::Caller && self.has_starts_enough();
            if is_full || self.must_start_later(now) {
                break;
            }
            let reserve = self.reserve_of(id);
            if !self.make_room(reserve, now, todo) {
                break;
            }
            self.line.rotate();
            self.learn_from_start(id, now);
            self.start(id, reserve, purpose, now, todo);
        }
        for id in aside {
            if let Some(tenant) = self.known(id).map(|entry| entry.tenant) {
                self.line.join(tenant, id);
            }
        }
    }

    /// Puts the function in the line for a start if it has a caller without one, or sees to it
    /// that this is looked at again.
    pub(super) fn want(&mut self, id: FunctionId, now: Timestamp) {
        let needs = self.needs(id, now);
        let start_time = self.start_time(id);
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let tenant = entry.tenant;
        if needs {
            if !entry.queued {
                entry.queued = true;
                self.line.join(tenant, id);
            }
        } else if entry.waiting.len() > entry.coming()
            && entry.queue_due.is_none()
            && let Some(first) = entry.waiting.front()
        {
            let due = first.since.plus(start_time);
            entry.queue_due = Some(self.timers.set(Alarm::Queue(id), due, now));
        }
    }

    pub(super) fn ring_queue(&mut self, id: FunctionId, rang: Timestamp, now: Timestamp) {
        let Some(entry) = self.entry(id) else { return };
        if entry.queue_due == Some(rang) {
            entry.queue_due = None;
            self.want(id, now);
        }
    }

    /// Whether the function should have one more Instance than it has or gets.
    pub(super) fn needs(&self, id: FunctionId, now: Timestamp) -> bool {
        let Some(entry) = self.known(id) else { return false };
        self.is_short(entry, now) || self.purpose(id, now) == Purpose::Caller
    }

    /// What the next Instance of the function would be for.
    pub(super) fn purpose(&self, id: FunctionId, now: Timestamp) -> Purpose {
        let is_awaited = |entry: &Entry<K::History>| {
            entry.waiting.len() > entry.coming() + self.soon(id, entry, now)
        };
        if self.known(id).is_some_and(is_awaited) { Purpose::Caller } else { Purpose::Promise }
    }

    /// Whether as many are being started for callers as may be.
    pub(super) fn has_starts_enough(&self) -> bool {
        self.counts.starting - self.readying >= self.starts.most()
    }

    /// Waiting callers whom busy Instances will serve before a new one could. As durations vary,
    /// a busy Instance counts only if it is free in half the time of a start; and whoever has
    /// waited as long as a start takes gets one. Once all callers together have waited so long since
    /// the last start, waiting has cost as much as the Instance that it saved, and no longer pays.
    fn soon(&self, id: FunctionId, entry: &Entry<K::History>, now: Timestamp) -> usize {
        let (Some(duration), Some(first)) = (entry.duration.get(), entry.waiting.front()) else {
            return 0;
        };
        let start = self.start_time(id);
        if entry.busy == 0 || now.since(first.since).max(entry.waited) >= start {
            return 0;
        }
        let rounds = start.as_micros() / (2 * duration.as_micros()).max(1);
        entry.busy * entry.seats * usize::try_from(rounds.min(ROUNDS.into())).unwrap_or(0)
    }

    fn leave_line(&mut self, id: FunctionId, now: Timestamp) {
        self.line.pop();
        if let Some(entry) = self.entry(id) {
            entry.queued = false;
        }
        self.want(id, now);
        self.rest(id);
    }

    fn must_start_later(&mut self, now: Timestamp) -> bool {
        let wait = self.starts.wait(now);
        if wait.is_zero() {
            return false;
        }
        if self.starts.due.is_none_or(|due| due <= now) {
            self.starts.due = Some(self.timers.set(Alarm::Start, now.plus(wait), now));
        }
        true
    }

    fn start(
        &mut self,
        id: FunctionId,
        reserve: ByteSize,
        purpose: Purpose,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let instance = InstanceId(self.next_instance);
        self.next_instance += 1;
        let reason = entry.reason(purpose);
        let provided = purpose == Purpose::Promise;
        let until = if let Purpose::Ahead(until) = purpose { Some(until) } else { None };
        entry.starting += 1;
        entry.waited = Duration::ZERO;
        if provided {
            entry.promise.begin();
        }
        let function = entry.function.clone();
        let (state, phase) = (CodeState::of(&function), Phase::Starting);
        let slot = Slot {
            function: id,
            seats: entry.seats,
            beside: Vec::new(),
            ending: None,
            state,
            memory: reserve,
            born: now,
            phase,
            level: 0,
            until,
            provided,
            lasts: false,
        };
        self.instances.insert(instance, slot);
        self.used = self.used.saturating_add(reserve);
        self.hold(id, |held| held.add(reserve));
        self.counts.starting += 1;
        if provided {
            self.note_readying(instance, now);
        }
        self.starts.take(now);
        todo.push(Command::Start { instance, function, reason });
    }

    /// Starts an Instance for nobody yet, if that costs nobody else anything.
    pub(super) fn start_ahead(
        &mut self,
        id: FunctionId,
        until: Timestamp,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let reserve = self.reserve_of(id);
        let is_quiet = self.line.first().is_none()
            && self.starts.pressure < BUSY
            && !self.has_starts_enough()
            && self.starts.wait(now).is_zero();
        let fits = self.used.saturating_add(reserve) <= self.config.memory
            && self.instances.len() < self.config.max_instances;
        if is_quiet && fits && self.lacking(id).is_none() {
            self.start(id, reserve, Purpose::Ahead(until), now, todo);
        }
    }

    /// What an Instance of the function that does not run yet is taken to need.
    pub(super) fn reserve_of(&self, id: FunctionId) -> ByteSize {
        let Some(entry) = self.known(id) else { return ByteSize::ZERO };
        let limit = ByteSize::mebibytes(entry.function.config.memory_mb);
        entry.typical.unwrap_or(self.config.start_reserve).min(limit)
    }

    /// How long a start of the function takes.
    pub(super) fn start_time(&self, id: FunctionId) -> Duration {
        self.known(id).and_then(|entry| entry.start_time.get()).unwrap_or(START_TIME)
    }

    /// Whether one more Instance may be started now. If not, ends as many idle ones as it takes,
    /// the least worth first: their room comes back with `Retired`.
    fn make_room(&mut self, reserve: ByteSize, now: Timestamp, todo: &mut Vec<Command>) -> bool {
        let is_alone = self.instances.is_empty();
        let fits = self.used.saturating_add(reserve) <= self.config.memory;
        let has_place = self.instances.len() < self.config.max_instances;
        if has_place && (fits || is_alone) {
            return true;
        }
        loop {
            let left = self.used.saturating_sub(self.leaving).saturating_add(reserve);
            let live = self.instances.len() - self.counts.retiring;
            let is_enough = left <= self.config.memory || live == 0;
            if is_enough && live < self.config.max_instances || !self.evict(now, todo) {
                return false;
            }
        }
    }

    /// Ends idle Instances while more memory is used than may be.
    pub(super) fn relieve(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        while self.used.saturating_sub(self.leaving) > self.config.memory {
            if !self.evict(now, todo) {
                return;
            }
        }
    }

    /// Whether an Instance of this function that has become free should make room for another
    /// function's caller, who has waited too long, instead of serving its own next. A tenant that
    /// has no more than its share gives up none for another tenant.
    pub(super) fn must_yield(&self, id: FunctionId, now: Timestamp) -> bool {
        let first = self.line.iter().find(|other| self.would_help(id, *other));
        let Some(first) = first.filter(|first| *first != id) else { return false };
        let (Some(own), Some(other)) = (self.known(id), self.known(first)) else { return false };
        let is_starved = other
            .waiting
            .get(other.coming())
            .is_some_and(|waiter| now.since(waiter.since) >= self.config.fair_wait);
        let holds = self.accounts.get(own.tenant.0).map_or(0, |account| account.held.instances);
        let sharers = self.line.accounts() + usize::from(own.tenant != other.tenant);
        let is_within_share = own.tenant != other.tenant && holds * sharers <= self.instances.len();
        self.counts.retiring == 0 && !self.has_starts_enough() && is_starved && !is_within_share
    }

    /// Notes what an Instance uses.
    pub(super) fn measure(&mut self, instance: InstanceId, memory: ByteSize) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        let (id, before) = (slot.function, slot.memory);
        self.used = self.used.saturating_sub(before).saturating_add(memory);
        slot.memory = memory;
        self.hold(id, |held| held.change(before, memory));
        if let Some(entry) = self.functions.get_mut(id.0) {
            entry.typical = Some(memory);
        }
    }

    /// Forgets an Instance that is no more.
    pub(super) fn remove(&mut self, instance: InstanceId) {
        let Some(slot) = self.instances.remove(&instance) else { return };
        self.used = self.used.saturating_sub(slot.memory);
        self.hold(slot.function, |held| held.remove(slot.memory));
        self.rest(slot.function);
    }
}

impl<H> Entry<H> {
    /// Why it gets another Instance.
    fn reason(&mut self, purpose: Purpose) -> ColdStart {
        let is_renewed = std::mem::take(&mut self.renewed);
        if let Purpose::Ahead(_) = purpose {
            ColdStart::Expected
        } else if purpose == Purpose::Promise {
            ColdStart::Provisioned
        } else if is_renewed {
            ColdStart::Changed
        } else if self.live() > 0 {
            ColdStart::AllBusy
        } else {
            self.ended
        }
    }
}
