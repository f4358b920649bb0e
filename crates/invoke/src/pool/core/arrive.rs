//! Callers: who is let in, who serves whom, what follows when an Instance is ready, done or dead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lacewing_model::usage::ColdStart;
use lacewing_model::{ByteSize, Function, Timestamp};

use super::mean::Mean;
use super::permits::Quota;
use super::seats::{Left, Seated};
use super::{
    CodeState, Command, Core, Entry, Facts, Failed, FunctionId, Held, InstanceId, Keep, Phase,
    Promise, Refusal, Waiter, WaiterId, place_of,
};

/// When to try again, if nothing better is known, and at the latest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl<K: Keep> Core<K> {
    pub(super) fn arrive(
        &mut self,
        waiter: WaiterId,
        function: Arc<Function>,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        if self.stopping {
            todo.push(refusal(waiter, Refusal::Stopping, RETRY.0));
            return;
        }
        let id = self.entry_of(function, now, todo);
        if let Err(reason) = self.admit(id) {
            todo.push(refusal(waiter, reason, self.retry_after(id, reason)));
            self.rest(id);
            return;
        }
        let waiter = Waiter { id: waiter, since: now };
        if let Some(instance) = self.open_of(id, now) {
            self.seat(instance, waiter, now, todo);
            return;
        }
        match self.take_idle(id, now, todo) {
            Some(instance) => {
                self.learn_from_use(instance, now);
                self.serve(instance, waiter, now, todo);
            }
            None if self.counts.waiting >= self.config.max_waiting => {
                self.release(id);
                let reason = Refusal::TooManyWaiting;
                todo.push(refusal(waiter.id, reason, self.retry_after(id, reason)));
                self.rest(id);
            }
            None => self.wait(id, waiter, now),
        }
    }

    /// An idle Instance of the function that is not too old, out of its list: one that was promised,
    /// if there is any, as Lambda has it, else the one that was used last.
    fn take_idle(
        &mut self,
        id: FunctionId,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) -> Option<InstanceId> {
        let max_age = self.config.max_age;
        while let Some(instance) = self.pop_idle(id) {
            let slot = self.instances.get(&instance)?;
            if now.since(slot.born) < max_age {
                return Some(instance);
            }
            self.end_idle(instance, ColdStart::Aged, now, todo);
        }
        None
    }

    fn pop_idle(&mut self, id: FunctionId) -> Option<InstanceId> {
        let entry = self.functions.get_mut(id.0)?;
        if entry.promise.live == 0 {
            return entry.idle.pop_back();
        }
        let is_provided = |instance| self.instances.get(instance).is_some_and(|slot| slot.provided);
        match entry.idle.iter().rposition(is_provided) {
            Some(place) => entry.idle.remove(place),
            None => entry.idle.pop_back(),
        }
    }

    fn wait(&mut self, id: FunctionId, waiter: Waiter, now: Timestamp) {
        let Some(entry) = self.entry(id) else { return };
        entry.waiting.push_back(waiter);
        self.patience.push_back((waiter.since.plus(self.config.patience), waiter.id));
        self.waiters.insert(waiter.id, id);
        self.counts.waiting += 1;
        self.want(id, now);
    }

    /// Takes a permit for one more invocation.
    fn admit(&mut self, id: FunctionId) -> Result<(), Refusal> {
        let Some(entry) = self.functions.get_mut(id.0) else { return Ok(()) };
        let account = self.accounts.get_mut(entry.tenant.0);
        match account.zip(self.shares.get_mut(entry.family.0)) {
            Some((account, share)) => account.permits.take(&mut share.family, &mut entry.quota),
            None => Ok(()),
        }
    }

    /// Gives back the permit of one invocation of the function.
    fn release(&mut self, id: FunctionId) {
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let account = self.accounts.get_mut(entry.tenant.0);
        if let Some((account, share)) = account.zip(self.shares.get_mut(entry.family.0)) {
            account.permits.give_back(&mut share.family, &mut entry.quota);
        }
    }

    /// When a permit or an Instance may be free: so many invocations share what was refused, and
    /// one of them ends that often.
    pub(super) fn retry_after(&self, id: FunctionId, reason: Refusal) -> Duration {
        let Some(entry) = self.known(id) else { return RETRY.0 };
        let Some(account) = self.accounts.get(entry.tenant.0) else { return RETRY.0 };
        let Some(share) = self.shares.get(entry.family.0) else { return RETRY.0 };
        let of_account = (account.duration.get(), account.permits.running);
        let (duration, running) = match reason {
            Refusal::ReservedConcurrency if share.family.reserved == Some(0) => return RETRY.1,
            Refusal::ReservedConcurrency => {
                (entry.duration.get().or(of_account.0), share.family.running)
            }
            _ => of_account,
        };
        let next = duration.unwrap_or_default() / running.max(1);
        Duration::from_secs(next.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX))
            .clamp(RETRY.0, RETRY.1)
    }

    /// The function's entry, brought up to what the caller saw.
    pub(super) fn entry_of(
        &mut self,
        function: Arc<Function>,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) -> FunctionId {
        let by_place = self.places.get(&place_of(&function)).copied();
        if let Some(id) = by_place.or_else(|| self.names.get(&function.version_key()).copied()) {
            if self.known(id).is_some_and(|entry| entry.is_older_than(&function)) {
                self.renew(id, function, now, todo);
            }
            return id;
        }
        let (key, place) = (function.version_key(), place_of(&function));
        let (seats, tenant) = (function.config.seats(), self.tenant_of(&key.function.account));
        let family = self.family_of(&key.function);
        if let Some(share) = self.shares.get_mut(family.0) {
            share.versions += 1;
        }
        let id = FunctionId(self.functions.insert(Entry {
            function,
            deleted: false,
            tenant,
            family,
            quota: Quota::default(),
            promise: Promise::default(),
            waiting: VecDeque::new(),
            idle: VecDeque::new(),
            seats,
            open: VecDeque::new(),
            starting: 0,
            busy: 0,
            retiring: 0,
            ended: ColdStart::First,
            renewed: false,
            held: Held::default(),
            queued: false,
            ranked: false,
            resting: false,
            typical: None,
            start_time: Mean::default(),
            duration: Mean::default(),
            waited: Duration::ZERO,
            history: K::History::default(),
            plans: [None; Facts::LEVELS],
            learned: [(0, 0); Facts::LEVELS],
            gone: VecDeque::new(),
            keep_due: None,
            queue_due: None,
            ahead: None,
            floor: 0.0,
        }));
        self.names.insert(key, id);
        self.places.insert(place, id);
        id
    }

    pub(super) fn leave(&mut self, waiter: WaiterId, now: Timestamp) {
        let Some(id) = self.waiters.remove(&waiter) else { return };
        if let Some(entry) = self.entry(id) {
            entry.waiting.retain(|other| other.id != waiter);
        }
        self.counts.waiting -= 1;
        self.release(id);
        self.want(id, now);
        self.rest(id);
    }

    pub(super) fn started(
        &mut self,
        instance: InstanceId,
        memory: ByteSize,
        is_whole: bool,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        let Phase::Starting = slot.phase else { return };
        slot.phase = Phase::Idle { since: now, frozen: false };
        if !is_whole {
            // Its init phase is repeated within an invocation, which is alone then.
            slot.seats = 1;
        }
        let (id, born) = (slot.function, slot.born);
        let (provided, lasted) = (slot.provided, slot.lasts);
        self.counts.starting -= 1;
        if provided {
            self.note_readied(lasted);
        }
        self.note_idle(id, true);
        if let Some(entry) = self.entry(id) {
            entry.starting -= 1;
            entry.promise.starting -= usize::from(provided);
            if provided && is_whole {
                entry.promise.kept();
            }
            // Of a start that nobody waits for it does not matter how long it takes.
            if !provided {
                entry.start_time.add(now.since(born));
            }
        }
        self.measure(instance, memory);
        if !is_whole && provided {
            self.promise_failed(id, Failed::Init, now);
        }
        if is_whole || self.known(id).is_some_and(|entry| !entry.waiting.is_empty()) {
            self.offer(instance, now, todo);
        } else {
            self.retire(instance, ColdStart::Spent, todo);
            self.want(id, now);
        }
        if let Some(entry) = self.entry(id) {
            // Who waited for this start did not wait for a busy Instance.
            entry.waited = Duration::ZERO;
        }
    }

    pub(super) fn start_failed(
        &mut self,
        instance: InstanceId,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let (Phase::Starting, id) = (slot.phase, slot.function) else { return };
        let (provided, lasted) = (slot.provided, slot.lasts);
        self.counts.starting -= 1;
        if provided {
            self.note_readied(lasted);
        }
        if let Some(entry) = self.entry(id) {
            entry.starting -= 1;
            entry.promise.starting -= usize::from(provided);
            entry.promise.live -= usize::from(provided);
        }
        if provided {
            self.promise_failed(id, Failed::Start, now);
        } else {
            self.refuse_first(id, Refusal::StartFailed, todo);
        }
        self.remove(instance);
        self.want(id, now);
    }

    pub(super) fn done(
        &mut self,
        instance: InstanceId,
        waiter: WaiterId,
        (memory, reusable): (ByteSize, bool),
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(left) = self.leave_seat(instance, waiter, now) else { return };
        let Left { id, seated: Seated { since, .. }, ending, is_last } = left;
        self.release(id);
        self.measure(instance, memory);
        if let Some(entry) = self.functions.get_mut(id.0) {
            entry.duration.add(now.since(since));
            if let Some(account) = self.accounts.get_mut(entry.tenant.0) {
                account.duration.add(now.since(since));
            }
        }
        let why = match (ending, reusable) {
            (Some(why), _) => Some(why),
            (None, false) => Some(ColdStart::Spent),
            (None, true) if self.must_yield(id, now) && !self.is_kept(instance) => {
                Some(ColdStart::MadeRoom)
            }
            (None, true) => None,
        };
        if !is_last {
            return self.goes_on(instance, why, now, todo);
        }
        let Some(why) = why else { return self.offer(instance, now, todo) };
        self.retire(instance, why, todo);
        self.want(id, now);
    }

    pub(super) fn dead(
        &mut self,
        instance: InstanceId,
        waiter: WaiterId,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(left) = self.leave_seat(instance, waiter, now) else { return };
        let Left { id, seated: Seated { waiter, .. }, is_last, .. } = left;
        if let Some(entry) = self.entry(id) {
            entry.waiting.push_front(waiter);
        }
        self.patience.push_front((waiter.since.plus(self.config.patience), waiter.id));
        self.waiters.insert(waiter.id, id);
        self.counts.waiting += 1;
        if is_last {
            self.retire(instance, ColdStart::Spent, todo);
        } else {
            self.goes_on(instance, Some(ColdStart::Spent), now, todo);
        }
        let Some(entry) = self.entry(id) else { return };
        if entry.deleted {
            self.refuse_first(id, Refusal::Deleted, todo);
        } else if let Some(open) = self.open_of(id, now) {
            self.fill(open, now, todo);
        } else if let Some(next) = self.take_idle(id, now, todo) {
            self.serve_first(next, now, todo);
        }
        self.want(id, now);
    }

    /// Gives an Instance that has just become idle to the caller who has waited longest.
    fn offer(&mut self, instance: InstanceId, now: Timestamp, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let (id, state) = (slot.function, slot.state);
        let is_old = now.since(slot.born) >= self.config.max_age;
        let Some(entry) = self.known(id) else { return };
        let is_stale = entry.deleted || state != CodeState::of(&entry.function);
        if is_old || is_stale {
            let why = if is_stale { ColdStart::Changed } else { ColdStart::Aged };
            self.retire(instance, why, todo);
            self.want(id, now);
        } else if !entry.waiting.is_empty() {
            self.serve_first(instance, now, todo);
        } else if self.stopping {
            self.retire(instance, ColdStart::MadeRoom, todo);
        } else {
            self.park(instance, id, now);
        }
    }

    /// Gives an idle Instance, which is in no list, to its function's first caller.
    fn serve_first(&mut self, instance: InstanceId, now: Timestamp, todo: &mut Vec<Command>) {
        let Some(id) = self.instances.get(&instance).map(|slot| slot.function) else { return };
        let Some(waiter) = self.take_first(id, now) else { return };
        self.serve(instance, waiter, now, todo);
        self.want(id, now);
    }

    /// The function's first caller, out of the line because it is served now.
    pub(super) fn take_first(&mut self, id: FunctionId, now: Timestamp) -> Option<Waiter> {
        let entry = self.functions.get_mut(id.0)?;
        let waiter = entry.waiting.pop_front()?;
        entry.waited = entry.waited.saturating_add(now.since(waiter.since));
        self.waiters.remove(&waiter.id);
        self.counts.waiting -= 1;
        Some(waiter)
    }

    /// Gives an idle Instance, which is in no list, to a caller, who is in none either.
    fn serve(
        &mut self,
        instance: InstanceId,
        waiter: Waiter,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        if let Phase::Idle { frozen: true, .. } = slot.phase {
            todo.push(Command::Thaw { instance });
        }
        slot.phase = Phase::Busy { waiter, since: now };
        slot.until = None;
        let (id, has_seats) = (slot.function, slot.seats > 1);
        if let Some(entry) = self.entry(id) {
            entry.busy += 1;
        }
        self.note_idle(id, false);
        self.counts.busy += 1;
        self.counts.served += 1;
        todo.push(Command::Serve { waiter: waiter.id, instance });
        if has_seats {
            self.fill(instance, now, todo);
        }
    }

    /// Sends the function's first caller away; says whether there was one.
    pub(super) fn refuse_first(
        &mut self,
        id: FunctionId,
        reason: Refusal,
        todo: &mut Vec<Command>,
    ) -> bool {
        let first = self.entry(id).and_then(|entry| entry.waiting.pop_front());
        let Some(waiter) = first else { return false };
        self.waiters.remove(&waiter.id);
        self.counts.waiting -= 1;
        todo.push(refusal(waiter.id, reason, self.retry_after(id, reason)));
        self.release(id);
        true
    }
}

impl<H> Entry<H> {
    /// Whether the function is a later state of what the entry holds.
    pub(super) fn is_older_than(&self, function: &Function) -> bool {
        let (new, old) = (CodeState::of(function), CodeState::of(&self.function));
        self.deleted || new.generation > old.generation || new.modified > old.modified
    }
}

fn refusal(waiter: WaiterId, reason: Refusal, retry_after: Duration) -> Command {
    Command::Refuse { waiter, reason, retry_after }
}
