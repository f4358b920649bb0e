//! Instances without work: how long they are kept, when they are frozen, which of them go when
//! memory is short, and what is learned from when they are wanted again.
//!
//! What is learned does not depend on what was decided before. The Instances of a function are a
//! stack, the one used last on top; one that ended stays in it as the moment since which it was
//! idle. A caller takes the top, and so it is known how long even an Instance that is gone would
//! have waited for work.

use std::cmp::Reverse;
use std::time::Duration;

use lacewing_model::usage::ColdStart;
use lacewing_model::{ByteSize, Timestamp};

use super::timers::Alarm;
use super::{Command, Core, Entry, Facts, FunctionId, InstanceId, Keep, Phase, Refusal};

/// Ended Instances of a function of which it is remembered when they were last used.
const GONE: usize = 16;
/// A plan is made anew when it has so many samples more, as a part of all.
const NEWS: u32 = 16;
/// How long to wait before an Instance that could not be frozen is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl<K: Keep> Core<K> {
    /// Puts an Instance that has just become idle among the others of its function.
    pub(super) fn park(&mut self, instance: InstanceId, id: FunctionId, now: Timestamp) {
        if let Some(after) = self.config.freeze_after {
            self.freezing.push_back((now.plus(after), instance));
        }
        let floor = self.floor;
        let Some(entry) = self.entry(id) else { return };
        entry.idle.push_back(instance);
        entry.floor = floor;
        let (is_promised, level) = (entry.provisioned() > 0, Facts::level(entry.busy));
        if let Some(slot) = self.instances.get_mut(&instance) {
            slot.level = level;
        }
        self.make_plan(id, level, now);
        self.watch(id, instance, now);
        if is_promised {
            self.watch_all(id, now);
        }
        self.put_in_rank(id, now);
    }

    /// Looks at all idle Instances of a function anew: how many it may do without has changed.
    pub(super) fn watch_all(&mut self, id: FunctionId, now: Timestamp) {
        let Some(entry) = self.entry(id) else { return };
        for instance in entry.idle.iter().copied().collect::<Vec<_>>() {
            self.watch(id, instance, now);
        }
    }

    /// Sees to it that the Instance is looked at when it may have been kept long enough.
    fn watch(&mut self, id: FunctionId, instance: InstanceId, now: Timestamp) {
        let Some(due) = self.end_of(id, instance) else { return };
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        if entry.keep_due.is_none_or(|before| due < before) {
            entry.keep_due = Some(self.timers.set(Alarm::Keep(id), due, now));
        }
    }

    /// Until when an idle Instance is kept.
    fn end_of(&self, id: FunctionId, instance: InstanceId) -> Option<Timestamp> {
        let (entry, slot) = (self.known(id)?, self.instances.get(&instance)?);
        let Phase::Idle { since, .. } = slot.phase else { return None };
        let oldest = slot.born.plus(self.config.max_age);
        if entry.keeps(slot) {
            return Some(oldest);
        }
        let keep = entry.plans[slot.level].map_or(self.config.keep_alive, |plan| plan.keep);
        Some(slot.until.unwrap_or_else(|| since.plus(keep)).min(oldest))
    }

    /// Ends those that were kept long enough; sees to it that the others are looked at later.
    fn ring_keep(
        &mut self,
        id: FunctionId,
        rang: Timestamp,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(entry) = self.entry(id) else { return };
        if entry.keep_due != Some(rang) {
            return;
        }
        entry.keep_due = None;
        let idle: Vec<_> = entry.idle.iter().copied().collect();
        for instance in idle {
            let level = self.instances.get(&instance).map_or(0, |slot| slot.level);
            self.make_plan(id, level, now);
            match self.end_of(id, instance) {
                Some(end) if end <= now => self.expire(id, instance, now, todo),
                _ => self.watch(id, instance, now),
            }
        }
        self.want(id, now);
    }

    /// Ends an Instance that was kept long enough. If it was the last, one may be wanted later.
    fn expire(
        &mut self,
        id: FunctionId,
        instance: InstanceId,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let since = self.idle_since(instance);
        let born = self.instances.get(&instance).map_or(now, |slot| slot.born);
        let is_old = now.since(born) >= self.config.max_age;
        let why = if is_old { ColdStart::Aged } else { ColdStart::WasIdle };
        self.retire_idle(instance, why, now, todo);
        let start = self.start_time(id);
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let again = entry.plans[0].and_then(|plan| plan.again).filter(|_| entry.live() == 0);
        if let (Some((from, to)), Some((since, None))) = (again, since) {
            let from = since.plus(from.saturating_sub(start));
            entry.ahead = Some((from, since.plus(to)));
            self.timers.set(Alarm::Ahead(id), from.max(now), now);
        }
    }

    fn ring_ahead(&mut self, id: FunctionId, now: Timestamp, todo: &mut Vec<Command>) {
        let stopping = self.stopping;
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let Some((from, to)) = entry.ahead else { return };
        if now < from {
            self.timers.set(Alarm::Ahead(id), from, now);
            return;
        }
        entry.ahead = None;
        if entry.live() == 0 && !entry.deleted && !stopping && now < to {
            self.start_ahead(id, to, now, todo);
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        while let Some((rang, alarm)) = self.timers.ring(now) {
            match alarm {
                Alarm::Keep(id) => self.ring_keep(id, rang, now, todo),
                Alarm::Ahead(id) => self.ring_ahead(id, now, todo),
                Alarm::Queue(id) => self.ring_queue(id, rang, now),
                // `place` comes after every event.
                Alarm::Start => {}
            }
        }
        self.note_lasting(now);
        self.freeze(now, todo);
        self.lose_patience(now, todo);
    }

    fn freeze(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        let Some(after) = self.config.freeze_after else { return };
        let is_due = |(due, _): &mut (Timestamp, InstanceId)| *due <= now;
        let mut next = || {
            let first = self.freezing.pop_front_if(is_due);
            first.or_else(|| self.refreezing.pop_front_if(is_due))
        };
        while let Some((_, instance)) = next() {
            let Some(slot) = self.instances.get_mut(&instance) else { continue };
            if let Phase::Idle { since, frozen } = &mut slot.phase
                && !*frozen
                && now.since(*since) >= after
            {
                *frozen = true;
                todo.push(Command::Freeze { instance });
            }
        }
    }

    pub(super) fn not_frozen(&mut self, instance: InstanceId, now: Timestamp) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        let Phase::Idle { frozen, .. } = &mut slot.phase else { return };
        *frozen = false;
        if self.config.freeze_after.is_some() {
            self.refreezing.push_back((now.plus(AGAIN), instance));
        }
    }

    fn lose_patience(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        let waiters = &self.waiters;
        let is_over =
            |(due, waiter): &mut (Timestamp, _)| *due <= now || !waiters.contains_key(waiter);
        let mut late = Vec::new();
        while let Some((_, waiter)) = self.patience.pop_front_if(is_over) {
            late.extend(waiters.get(&waiter).copied());
        }
        for id in late {
            let reason = self.lacking(id).unwrap_or(Refusal::WaitedTooLong);
            // Whoever has waited longest stands first.
            self.refuse_first(id, reason, todo);
            self.want(id, now);
            self.rest(id);
        }
    }

    // --- What is learned ---

    fn facts(&self, id: FunctionId, idle_since: Timestamp, level: usize) -> Facts {
        Facts { memory: self.reserve_of(id), start: self.start_time(id), idle_since, level }
    }

    /// An idle Instance is wanted. If it was started for nobody, it is the one before it that is.
    pub(super) fn learn_from_use(&mut self, instance: InstanceId, now: Timestamp) {
        let Some((since, until)) = self.idle_since(instance) else { return };
        let Some(slot) = self.instances.get(&instance) else { return };
        let (id, level) = (slot.function, slot.level);
        let (facts, idle) = (self.facts(id, since, level), now.since(since));
        if until.is_some() {
            self.keep.ended(idle, true, &facts);
            self.learn_from_start(id, now);
        } else if let Some(entry) = self.functions.get_mut(id.0) {
            self.keep.used(&mut entry.history, idle, &facts);
            entry.has_learned(level);
        }
    }

    /// An Instance is wanted that is not there.
    pub(super) fn learn_from_start(&mut self, id: FunctionId, now: Timestamp) {
        let Some(gone) = self.entry(id).and_then(|entry| entry.gone.pop_back()) else { return };
        self.learn_missed(id, gone, Some(now.since(gone.0)));
    }

    fn learn_missed(&mut self, id: FunctionId, gone: (Timestamp, usize), idle: Option<Duration>) {
        let facts = self.facts(id, gone.0, gone.1);
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        self.keep.missed(&mut entry.history, idle, &facts);
        entry.has_learned(gone.1);
    }

    fn make_plan(&mut self, id: FunctionId, level: usize, now: Timestamp) {
        let facts = self.facts(id, now, level);
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        if entry.plans[level].is_none() {
            entry.plans[level] = Some(self.keep.plan(&entry.history, &facts));
        }
    }

    /// Since when an Instance is idle, and until when it is kept if it was started for nobody.
    fn idle_since(&self, instance: InstanceId) -> Option<(Timestamp, Option<Timestamp>)> {
        let slot = self.instances.get(&instance)?;
        let Phase::Idle { since, .. } = slot.phase else { return None };
        Some((since, slot.until))
    }

    // --- Which go first ---

    /// Notes the function among those that have something to give, unless it is noted already.
    pub(super) fn put_in_rank(&mut self, id: FunctionId, now: Timestamp) {
        let Some(rank) = self.rank_of(id, now) else { return };
        let Some(entry) = self.entry(id) else { return };
        if !entry.ranked {
            entry.ranked = true;
            self.ranks.push(Reverse((rank, id)));
        }
    }

    fn rank_of(&self, id: FunctionId, now: Timestamp) -> Option<u64> {
        let entry = self.known(id)?;
        let oldest = entry.idle.front()?;
        let since = self.idle_since(*oldest).map_or(now, |(since, _)| since);
        let level = self.instances.get(oldest).map_or(0, |slot| slot.level);
        let rank = self.keep.rank(&entry.history, &self.facts(id, since, level), entry.floor);
        // The bits of floats that are not negative are in their order.
        Some(rank.max(0.0).to_bits())
    }

    /// Ends the idle Instance that is worth least; says whether there was one.
    pub(super) fn evict(&mut self, now: Timestamp, todo: &mut Vec<Command>) -> bool {
        let mut promised = Vec::new();
        let found = self.least(now, &mut promised);
        for id in promised {
            self.put_in_rank(id, now);
        }
        let Some((id, instance, rank)) = found else { return false };
        self.floor = self.floor.max(f64::from_bits(rank));
        self.retire_idle(instance, ColdStart::MadeRoom, now, todo);
        self.put_in_rank(id, now);
        true
    }

    /// The idle Instance that is worth least, its function being out of the ranks. A rank that was
    /// noted may be too low, as the function was used since, but never too high. Functions that
    /// come before it and have none to spare go into `promised`.
    fn least(
        &mut self,
        now: Timestamp,
        promised: &mut Vec<FunctionId>,
    ) -> Option<(FunctionId, InstanceId, u64)> {
        while let Some(Reverse((noted, id))) = self.ranks.pop() {
            let Some(entry) = self.entry(id) else { continue };
            entry.ranked = false;
            if entry.idle.is_empty() {
                continue;
            }
            let Some(oldest) = self.spare_of(id) else {
                promised.push(id);
                continue;
            };
            let rank = self.rank_of(id, now)?;
            if rank > noted && self.ranks.peek().is_some_and(|Reverse((next, _))| *next < rank) {
                self.put_in_rank(id, now);
                continue;
            }
            return Some((id, oldest, rank));
        }
        None
    }

    /// The idle Instance of a function that was used longest ago, of those that may go.
    pub(super) fn spare_of(&self, id: FunctionId) -> Option<InstanceId> {
        self.known(id)?.idle.iter().copied().find(|instance| !self.is_kept(*instance))
    }

    // --- How they go ---

    /// Ends an Instance that is idle and in its function's list, and remembers it.
    pub(super) fn retire_idle(
        &mut self,
        instance: InstanceId,
        why: ColdStart,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(id) = self.instances.get(&instance).map(|slot| slot.function) else { return };
        if let Some(entry) = self.entry(id) {
            entry.idle.retain(|other| *other != instance);
        }
        self.end_idle(instance, why, now, todo);
    }

    /// Ends an Instance that was idle and is in no list, and remembers it.
    pub(super) fn end_idle(
        &mut self,
        instance: InstanceId,
        why: ColdStart,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        if let Some((since, until)) = self.idle_since(instance)
            && let Some(slot) = self.instances.get(&instance)
        {
            let (id, level) = (slot.function, slot.level);
            let facts = self.facts(id, since, level);
            self.keep.ended(now.since(since), until.is_some(), &facts);
            if until.is_none() {
                self.remember(id, (since, level));
            }
        }
        self.retire(instance, why, todo);
    }

    fn remember(&mut self, id: FunctionId, gone: (Timestamp, usize)) {
        let Some(entry) = self.entry(id) else { return };
        entry.gone.push_back(gone);
        if entry.gone.len() > GONE
            && let Some(longest) = entry.gone.pop_front()
        {
            self.learn_missed(id, longest, None);
        }
    }

    /// Ends an Instance that is idle and in no list; `why` is the reason of a start in its place.
    pub(super) fn retire(&mut self, instance: InstanceId, why: ColdStart, todo: &mut Vec<Command>) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        if let Phase::Idle { frozen: true, .. } = slot.phase {
            todo.push(Command::Thaw { instance });
        }
        slot.phase = Phase::Retiring;
        let (id, memory, provided) = (slot.function, slot.memory, slot.provided);
        self.leaving = self.leaving.saturating_add(memory);
        if let Some(entry) = self.functions.get_mut(id.0) {
            entry.retiring += 1;
            entry.ended = why;
            entry.promise.live -= usize::from(provided);
            if let Some(account) = self.accounts.get_mut(entry.tenant.0) {
                account.leaving.add(memory);
            }
        }
        self.note_idle(id, false);
        self.counts.retiring += 1;
        todo.push(Command::Retire { instance });
    }

    pub(super) fn retired(&mut self, instance: InstanceId) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let Phase::Retiring = slot.phase else { return };
        self.leaving = self.leaving.saturating_sub(slot.memory);
        if let Some(entry) = self.functions.get_mut(slot.function.0) {
            entry.retiring -= 1;
            if let Some(account) = self.accounts.get_mut(entry.tenant.0) {
                account.leaving.remove(slot.memory);
            }
        }
        self.counts.retiring -= 1;
        self.remove(instance);
    }

    pub(super) fn measured(
        &mut self,
        instance: InstanceId,
        memory: ByteSize,
        reusable: bool,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get(&instance) else { return };
        let (Phase::Idle { .. }, id) = (slot.phase, slot.function) else { return };
        self.measure(instance, memory);
        if !reusable {
            self.retire_idle(instance, ColdStart::Spent, now, todo);
            self.want(id, now);
        }
    }
}

impl<H> Entry<H> {
    /// Forgets the plan if there is enough news since it was made.
    fn has_learned(&mut self, level: usize) {
        let (new, old) = &mut self.learned[level];
        *new += 1;
        if *new > *old / NEWS {
            *old += std::mem::take(new);
            self.plans[level] = None;
        }
    }
}
