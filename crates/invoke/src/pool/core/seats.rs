//! Instances that serve several callers at a time: who sits where, and who gets a free seat.
//!
//! An Instance has as many seats as its function said when it was started; nearly all have one, and
//! then all of this is over with the first comparison. Those that are busy and have a free one are in
//! `Entry::open`. One that is of no use any more gives out no seat, and ends with its last invocation.

use lacewing_model::Timestamp;
use lacewing_model::usage::ColdStart;

use super::{
    CodeState, Command, Core, FunctionId, InstanceId, Keep, Phase, Slot, Waiter, WaiterId,
};

/// A caller who is served, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seated {
    pub(super) waiter: Waiter,
    pub(super) since: Timestamp,
}

/// What is left when a caller is served no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) id: FunctionId,
    pub(super) seated: Seated,
    /// Why the Instance is ended after its last invocation.
    pub(super) ending: Option<ColdStart>,
    /// Whether it serves nobody else.
    pub(super) is_last: bool,
}

impl Slot {
    /// Whether it is busy and could serve one more.
    fn has_free_seat(&self) -> bool {
        let is_busy = matches!(self.phase, Phase::Busy { .. });
        is_busy && self.ending.is_none() && self.beside.len() + 1 < self.seats
    }

    /// Takes a caller out of its seat; says whether it was the last.
    fn stand_up(&mut self, who: WaiterId, now: Timestamp) -> Option<(Seated, bool)> {
        let Phase::Busy { waiter, since } = self.phase else { return None };
        if waiter.id != who {
            let place = self.beside.iter().position(|seated| seated.waiter.id == who)?;
            return Some((self.beside.swap_remove(place), false));
        }
        let next = self.beside.pop();
        self.phase = match next {
            Some(Seated { waiter, since }) => Phase::Busy { waiter, since },
            None => Phase::Idle { since: now, frozen: false },
        };
        Some((Seated { waiter, since }, next.is_none()))
    }
}

impl<K: Keep> Core<K> {
    /// A busy Instance of the function with a free seat that is not too old.
    pub(super) fn open_of(&mut self, id: FunctionId, now: Timestamp) -> Option<InstanceId> {
        let entry = self.functions.get_mut(id.0)?;
        while let Some(&instance) = entry.open.back() {
            let slot = self.instances.get(&instance)?;
            if now.since(slot.born) < self.config.max_age {
                return Some(instance);
            }
            entry.open.pop_back();
        }
        None
    }

    /// Gives a free seat of a busy Instance to a caller, who is in no list.
    pub(super) fn seat(
        &mut self,
        instance: InstanceId,
        waiter: Waiter,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        slot.beside.push(Seated { waiter, since: now });
        let (id, is_full) = (slot.function, !slot.has_free_seat());
        if is_full {
            self.close(id, instance);
        }
        self.counts.served += 1;
        todo.push(Command::Serve { waiter: waiter.id, instance });
    }

    /// Gives the free seats of a busy Instance to those who wait; what is left of them is noted.
    pub(super) fn fill(&mut self, instance: InstanceId, now: Timestamp, todo: &mut Vec<Command>) {
        while let Some(slot) = self.instances.get(&instance).filter(|slot| slot.has_free_seat()) {
            let (id, state, born) = (slot.function, slot.state, slot.born);
            let Some(entry) = self.functions.get_mut(id.0) else { return };
            let is_stale = entry.deleted || state != CodeState::of(&entry.function);
            if is_stale || now.since(born) >= self.config.max_age {
                return;
            }
            if entry.waiting.is_empty() {
                if !entry.open.contains(&instance) {
                    entry.open.push_back(instance);
                }
                return;
            }
            let Some(waiter) = self.take_first(id, now) else { return };
            self.seat(instance, waiter, now, todo);
        }
    }

    /// A caller is served no more. If it was the last, the Instance is idle, and in no list.
    pub(super) fn leave_seat(
        &mut self,
        instance: InstanceId,
        waiter: WaiterId,
        now: Timestamp,
    ) -> Option<Left> {
        let slot = self.instances.get_mut(&instance)?;
        let (seated, is_last) = slot.stand_up(waiter, now)?;
        let (id, ending, has_seats) = (slot.function, slot.ending, slot.seats > 1);
        self.counts.served -= 1;
        if is_last {
            self.counts.busy -= 1;
            self.note_idle(id, true);
            if let Some(entry) = self.entry(id) {
                entry.busy -= 1;
            }
        }
        if has_seats {
            self.close(id, instance);
        }
        Some(Left { id, seated, ending, is_last })
    }

    /// An Instance serves others still. If there is a reason it is ended after them, else its free
    /// seats are given out.
    pub(super) fn goes_on(
        &mut self,
        instance: InstanceId,
        ending: Option<ColdStart>,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(slot) = self.instances.get_mut(&instance) else { return };
        slot.ending = slot.ending.or(ending);
        let id = slot.function;
        self.fill(instance, now, todo);
        self.want(id, now);
    }

    fn close(&mut self, id: FunctionId, instance: InstanceId) {
        if let Some(entry) = self.entry(id) {
            entry.open.retain(|other| *other != instance);
        }
    }
}
