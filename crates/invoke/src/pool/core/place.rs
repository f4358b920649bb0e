//! The moves that change an Instance's state, and the search for room to start another.
//!
//! Every move keeps the counts, the sum of memory and the lists of [`Core`] in step; nothing else
//! changes them.

use lacewing_model::{ByteSize, Timestamp};

use super::{CodeState, Command, Core, FunctionId, InstanceId, Phase, Refusal, Slot, Waiter};

impl Core {
    /// Starts Instances for callers that have none coming, one function after the other.
    pub(super) fn place(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        while let Some(&id) = self.hungry.front() {
            let Some(entry) = self.functions.get_mut(&id) else {
                self.hungry.pop_front();
                continue;
            };
            if entry.waiting.len() <= entry.starting {
                entry.queued = false;
                self.hungry.pop_front();
                continue;
            }
            let reserve = self.reserve(id);
            if !self.make_room(reserve, todo) {
                return;
            }
            self.hungry.rotate_left(1);
            self.start(id, reserve, now, todo);
        }
    }

    fn start(
        &mut self,
        id: FunctionId,
        reserve: ByteSize,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(entry) = self.functions.get_mut(&id) else { return };
        let instance = InstanceId(self.next_instance);
        self.next_instance += 1;
        entry.starting += 1;
        entry.instances += 1;
        let function = entry.function.clone();
        let (state, phase) = (CodeState::of(&function), Phase::Starting);
        let slot = Slot { function: id, state, memory: reserve, born: now, phase };
        self.instances.insert(instance, slot);
        self.used = self.used.saturating_add(reserve);
        self.counts.starting += 1;
        todo.push(Command::Start { instance, function });
    }

    /// What an Instance of the function that does not run yet is taken to need.
    fn reserve(&self, id: FunctionId) -> ByteSize {
        let Some(entry) = self.functions.get(&id) else { return ByteSize::ZERO };
        let limit = ByteSize::mebibytes(entry.function.config.memory_mb);
        entry.typical.unwrap_or(self.config.start_reserve).min(limit)
    }

    /// Whether one more Instance may be started now. If not, ends as many idle ones as it takes,
    /// longest idle first: their room comes back with `Retired`.
    fn make_room(&mut self, reserve: ByteSize, todo: &mut Vec<Command>) -> bool {
        if self.counts.starting >= self.config.max_starting {
            return false;
        }
        let is_alone = self.instances.is_empty();
        let fits = self.used.saturating_add(reserve) <= self.config.memory;
        let has_place = self.instances.len() < self.config.max_instances;
        if has_place && (fits || is_alone) {
            return true;
        }
        let mut coming = self.retiring_memory();
        for (_, instance) in self.idle_since() {
            let left = self.used.saturating_sub(coming).saturating_add(reserve);
            let live = self.instances.len() - self.counts.retiring;
            let is_enough = left <= self.config.memory || live == 0;
            if is_enough && live < self.config.max_instances {
                break;
            }
            coming = coming.saturating_add(self.memory_of(instance));
            self.retire_idle(instance, todo);
        }
        false
    }

    /// Ends idle Instances while more memory is used than may be.
    pub(super) fn relieve(&mut self, todo: &mut Vec<Command>) {
        if self.used <= self.config.memory || self.counts.idle == 0 {
            return;
        }
        let mut left = self.used.saturating_sub(self.retiring_memory());
        for (_, instance) in self.idle_since() {
            if left <= self.config.memory {
                return;
            }
            left = left.saturating_sub(self.memory_of(instance));
            self.retire_idle(instance, todo);
        }
    }

    /// Whether an Instance of this function that has become free should make room for another
    /// function's caller, who has waited too long, instead of serving its own next.
    pub(super) fn must_yield(&self, id: FunctionId, now: Timestamp) -> bool {
        let is_starved = |other: &FunctionId| {
            let Some(entry) = self.functions.get(other) else { return false };
            let uncovered = entry.waiting.get(entry.starting);
            uncovered.is_some_and(|waiter| now.since(waiter.since) >= self.config.fair_wait)
        };
        let front = self.hungry.front().filter(|other| **other != id);
        self.counts.retiring == 0
            && self.counts.starting < self.config.max_starting
            && front.is_some_and(is_starved)
    }

    /// Gives an Instance that has just become idle to the caller who has waited longest.
    pub(super) fn offer(&mut self, instance: InstanceId, now: Timestamp, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let id = slot.function;
        let is_old = now.since(slot.born) >= self.config.max_age;
        let Some(entry) = self.functions.get_mut(&id) else { return };
        let is_stale = entry.deleted || slot.state != CodeState::of(&entry.function);
        if is_old || is_stale {
            self.retire(instance, todo);
            self.want(id);
        } else if !entry.waiting.is_empty() {
            self.serve_first(instance, todo);
        } else if self.stopping {
            self.retire(instance, todo);
        } else {
            entry.idle.push(instance);
        }
    }

    /// Gives an idle Instance, which is in no list, to its function's first caller.
    pub(super) fn serve_first(&mut self, instance: InstanceId, todo: &mut Vec<Command>) {
        let Some(id) = self.instances.get(&instance).map(|slot| slot.function) else { return };
        let first = self.functions.get_mut(&id).and_then(|entry| entry.waiting.pop_front());
        let Some(waiter) = first else { return };
        self.waiters.remove(&waiter.id);
        self.counts.waiting -= 1;
        self.serve(instance, waiter, todo);
    }

    /// Gives an idle Instance, which is in no list, to a caller, who is in none either.
    pub(super) fn serve(&mut self, instance: InstanceId, waiter: Waiter, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        slot.phase = Phase::Busy { waiter };
        self.counts.idle -= 1;
        self.counts.busy += 1;
        todo.push(Command::Serve { waiter: waiter.id, instance });
    }

    /// Ends an Instance that is idle and in its function's list.
    pub(super) fn retire_idle(&mut self, instance: InstanceId, todo: &mut Vec<Command>) {
        let Some(id) = self.instances.get(&instance).map(|slot| slot.function) else { return };
        if let Some(entry) = self.functions.get_mut(&id) {
            entry.idle.retain(|other| *other != instance);
        }
        self.retire(instance, todo);
    }

    /// Ends an Instance that is idle and in no list.
    pub(super) fn retire(&mut self, instance: InstanceId, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        slot.phase = Phase::Retiring;
        self.counts.idle -= 1;
        self.counts.retiring += 1;
        todo.push(Command::Retire { instance });
    }

    /// Forgets an Instance that is no more.
    pub(super) fn remove(&mut self, instance: InstanceId) {
        let Some(slot) = self.instances.remove(&instance) else { return };
        self.used = self.used.saturating_sub(slot.memory);
        if let Some(entry) = self.functions.get_mut(&slot.function) {
            entry.instances -= 1;
        }
        self.forget_if_empty(slot.function);
    }

    /// Sends the function's first caller away; says whether there was one.
    pub(super) fn refuse_first(
        &mut self,
        id: FunctionId,
        reason: Refusal,
        todo: &mut Vec<Command>,
    ) -> bool {
        let first = self.functions.get_mut(&id).and_then(|entry| entry.waiting.pop_front());
        let Some(waiter) = first else { return false };
        self.waiters.remove(&waiter.id);
        self.counts.waiting -= 1;
        self.release(id);
        todo.push(Command::Refuse { waiter: waiter.id, reason });
        true
    }

    /// Puts the function in the line for a start if it has a caller without one.
    pub(super) fn want(&mut self, id: FunctionId) {
        let Some(entry) = self.functions.get_mut(&id) else { return };
        if !entry.queued && entry.waiting.len() > entry.starting {
            entry.queued = true;
            self.hungry.push_back(id);
        }
    }

    /// Notes what an Instance uses.
    pub(super) fn measure(&mut self, instance: InstanceId, memory: ByteSize) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        self.used = self.used.saturating_sub(slot.memory).saturating_add(memory);
        slot.memory = memory;
        if let Some(entry) = self.functions.get_mut(&slot.function) {
            entry.typical = Some(memory);
        }
    }

    /// All idle Instances, longest idle first.
    pub(super) fn idle_since(&self) -> Vec<(Timestamp, InstanceId)> {
        let idle = self.instances.iter().filter_map(|(id, slot)| match slot.phase {
            Phase::Idle { since } => Some((since, *id)),
            _ => None,
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle
    }

    pub(super) fn age(&self, instance: InstanceId, now: Timestamp) -> std::time::Duration {
        self.instances.get(&instance).map(|slot| now.since(slot.born)).unwrap_or_default()
    }

    pub(super) fn forget_if_empty(&mut self, id: FunctionId) {
        let Some(entry) = self.functions.get(&id) else { return };
        if entry.instances == 0 && entry.waiting.is_empty() {
            self.names.remove(&entry.function.key);
            self.functions.remove(&id);
        }
    }

    fn memory_of(&self, instance: InstanceId) -> ByteSize {
        self.instances.get(&instance).map(|slot| slot.memory).unwrap_or_default()
    }

    fn retiring_memory(&self) -> ByteSize {
        let retiring = self.instances.values().filter(|slot| matches!(slot.phase, Phase::Retiring));
        retiring.fold(ByteSize::ZERO, |sum, slot| sum.saturating_add(slot.memory))
    }
}
