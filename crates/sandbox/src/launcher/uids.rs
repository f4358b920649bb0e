//! Which host uid each living sandbox has: no two share one, and a freed one rests longest.

use std::collections::VecDeque;
use std::ops::Range;

/// A range of uids, as slots counted from 0.
#[derive(Debug)]
pub(super) struct Uids {
    base: u32,
    count: u32,
    free: VecDeque<u32>,
}

impl Uids {
    /// Makes a range of `count` uids from `base`.
    pub(super) fn new(base: u32, count: u32) -> Self {
        Self { base, count, free: (0..count).collect() }
    }

    /// Takes the slot that has been free longest.
    pub(super) fn acquire(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    /// Whether none is left.
    pub(super) fn are_used_up(&self) -> bool {
        self.free.is_empty()
    }

    /// Gives a slot back, once no process and no file of it is left.
    pub(super) fn release(&mut self, slot: u32) {
        self.free.push_back(slot);
    }

    /// All host uids of the range but that of a slot, in two parts.
    pub(super) fn but(&self, slot: u32) -> [Range<u32>; 2] {
        let own = self.host(slot);
        [self.base..own, own.saturating_add(1)..self.host(self.count)]
    }

    /// Tells the host uid (and gid) of a slot.
    pub(super) fn host(&self, slot: u32) -> u32 {
        self.base.saturating_add(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_used_once_at_a_time() {
        let mut uids = Uids::new(1000, 2);
        let (first, second) = (uids.acquire().unwrap(), uids.acquire().unwrap());
        assert_ne!(uids.host(first), uids.host(second));
        assert_eq!(uids.acquire(), None);
        uids.release(first);
        assert_eq!(uids.acquire(), Some(first));
    }

    #[test]
    fn all_but_one_are_before_and_after_it() {
        let uids = Uids::new(1000, 3);
        assert_eq!(uids.but(1), [1000..1001, 1002..1003]);
        assert!(uids.but(0)[0].is_empty() && uids.but(2)[1].is_empty());
    }

    #[test]
    fn a_freed_uid_rests_longest() {
        let mut uids = Uids::new(1000, 3);
        let first = uids.acquire().unwrap();
        uids.release(first);
        assert_ne!(uids.acquire(), Some(first));
    }
}
