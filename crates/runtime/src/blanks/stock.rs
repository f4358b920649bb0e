//! What is in stock of each kind, and what should be made next. A pure core: it makes nothing, and
//! knows time only as it is told.

use std::time::Instant;

/// Kinds that are remembered.
const KINDS: usize = 64;

/// Things that wait, by kind, those asked for last first.
#[derive(Debug)]
pub(super) struct Stock<K, T> {
    most: usize,
    shelves: Vec<Shelf<K, T>>,
}

#[derive(Debug)]
struct Shelf<K, T> {
    kind: K,
    used: Instant,
    things: Vec<T>,
}

impl<K: Clone + PartialEq, T> Stock<K, T> {
    /// A stock of `most` things in all.
    pub(super) fn new(most: usize) -> Self {
        Self { most, shelves: Vec::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.things.len()).sum()
    }

    /// Notes that a kind is in use.
    pub(super) fn note(&mut self, kind: &K, now: Instant) {
        match self.shelves.iter().position(|shelf| shelf.kind == *kind) {
            Some(place) => {
                if let Some(above) = self.shelves.get_mut(..=place) {
                    above.rotate_right(1);
                }
            }
            None => {
                // What had things has been used lately.
                if self.shelves.len() == KINDS {
                    self.shelves.pop();
                }
                let things = Vec::new();
                self.shelves.insert(0, Shelf { kind: kind.clone(), used: now, things });
            }
        }
        if let Some(first) = self.shelves.first_mut() {
            first.used = now;
        }
    }

    /// Notes that a kind may come into use: it gets what others leave, however many are expected.
    pub(super) fn expect(&mut self, kind: &K, now: Instant) {
        if let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.kind == *kind) {
            shelf.used = now;
        } else if self.shelves.len() < KINDS {
            self.shelves.push(Shelf { kind: kind.clone(), used: now, things: Vec::new() });
        }
    }

    pub(super) fn take(&mut self, kind: &K) -> Option<T> {
        self.shelves.iter_mut().find(|shelf| shelf.kind == *kind)?.things.pop()
    }

    /// The kinds that were used last, and after them those that are expected.
    pub(super) fn latest(&self, most: usize) -> Vec<K> {
        self.shelves.iter().take(most).map(|shelf| shelf.kind.clone()).collect()
    }

    /// The kind of which one more should be made.
    pub(super) fn wanted(&self) -> Option<&K> {
        let mut shelves = self.shelves.iter().zip(self.shares());
        shelves.find(|(shelf, share)| shelf.things.len() < *share).map(|(shelf, _)| &shelf.kind)
    }

    /// How many there may be of each kind: half of all are of the kind that was used last, half of the
    /// rest of the one before it, and so on.
    fn shares(&self) -> impl Iterator<Item = usize> + use<K, T> {
        let mut left = self.most;
        std::iter::repeat_with(move || {
            let share = left.div_ceil(2);
            left -= share;
            share
        })
    }

    /// Adds one; gives back what there is no room for any more: one of a kind that has more than its
    /// share, and was used longest ago.
    pub(super) fn put(&mut self, kind: &K, thing: T) -> Option<T> {
        match self.shelves.iter_mut().find(|shelf| shelf.kind == *kind) {
            Some(shelf) => shelf.things.push(thing),
            None => return Some(thing),
        }
        if self.count() <= self.most {
            return None;
        }
        let shares = self.shares();
        let above = self.shelves.iter_mut().zip(shares);
        above.filter(|(shelf, share)| shelf.things.len() > *share).last()?.0.things.pop()
    }

    /// Gives back what is of kinds that were last used before a moment, and forgets them.
    pub(super) fn expire(&mut self, before: Instant) -> Vec<T> {
        let expired = self.shelves.extract_if(.., |shelf| shelf.used < before);
        expired.flat_map(|shelf| shelf.things).collect()
    }

    /// Gives back everything, and forgets all kinds.
    pub(super) fn clear(&mut self) -> Vec<T> {
        std::mem::take(&mut self.shelves).into_iter().flat_map(|shelf| shelf.things).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Fills a stock until it wants nothing; gives what it did not keep.
    fn fill(stock: &mut Stock<char, u32>) -> Vec<u32> {
        let mut surplus = Vec::new();
        for number in 0..1_000 {
            let Some(kind) = stock.wanted().copied() else { return surplus };
            surplus.extend(stock.put(&kind, number));
        }
        panic!("it is never full")
    }

    fn counts(stock: &Stock<char, u32>) -> Vec<(char, usize)> {
        stock.shelves.iter().map(|shelf| (shelf.kind, shelf.things.len())).collect()
    }

    #[test]
    fn half_is_of_the_kind_that_was_used_last() {
        let (mut stock, now) = (Stock::new(8), Instant::now());
        assert_eq!(stock.wanted(), None, "nobody has asked for anything");
        for kind in ['a', 'b', 'c', 'd', 'e'] {
            stock.note(&kind, now);
        }
        assert!(fill(&mut stock).is_empty());
        assert_eq!(counts(&stock), [('e', 4), ('d', 2), ('c', 1), ('b', 1), ('a', 0)]);
        assert_eq!((stock.take(&'a'), stock.take(&'x')), (None, None));
    }

    #[test]
    fn what_is_used_again_takes_the_room_of_what_is_not() {
        let (mut stock, now) = (Stock::new(4), Instant::now());
        stock.note(&'a', now);
        stock.note(&'b', now);
        fill(&mut stock);
        assert_eq!(counts(&stock), [('b', 2), ('a', 1)]);
        stock.note(&'a', now);
        assert_eq!(fill(&mut stock).len(), 0);
        assert_eq!(counts(&stock), [('a', 2), ('b', 2)]);
        stock.note(&'c', now);
        assert_eq!(fill(&mut stock).len(), 2);
        assert_eq!(counts(&stock), [('c', 2), ('a', 1), ('b', 1)]);
    }

    #[test]
    fn what_is_only_expected_takes_nothing_from_what_is_used() {
        let (mut stock, now) = (Stock::new(4), Instant::now());
        stock.expect(&'a', now);
        fill(&mut stock);
        assert_eq!(counts(&stock), [('a', 2)]);
        stock.note(&'b', now);
        stock.expect(&'a', now + Duration::from_secs(2));
        for kind in 'c'..'\u{300}' {
            stock.expect(&kind, now);
        }
        assert_eq!((fill(&mut stock).len(), stock.shelves.len()), (1, KINDS));
        assert_eq!(counts(&stock)[..4], [('b', 2), ('a', 1), ('c', 1), ('d', 0)]);
        assert_eq!(stock.expire(now + Duration::from_secs(1)).len(), 3);
        assert_eq!(counts(&stock), [('a', 1)], "it was expected again");
    }

    #[test]
    fn no_stock_wants_nothing_and_one_of_one_is_of_the_last_kind() {
        let (mut none, now) = (Stock::<_, u32>::new(0), Instant::now());
        none.expect(&'b', now);
        none.note(&'a', now);
        assert_eq!(
            (none.wanted(), none.latest(1), none.latest(9)),
            (None, vec!['a'], vec!['a', 'b'])
        );
        let mut one = Stock::new(1);
        one.note(&'a', now);
        fill(&mut one);
        one.note(&'b', now);
        assert_eq!(fill(&mut one).len(), 1);
        assert_eq!(counts(&one), [('b', 1), ('a', 0)]);
        assert_eq!(one.put(&'x', 7), Some(7), "nobody asks for it any more");
    }

    #[test]
    fn kinds_out_of_use_lose_theirs_and_few_are_remembered() {
        let (mut stock, now) = (Stock::new(4), Instant::now());
        stock.note(&'a', now);
        fill(&mut stock);
        stock.note(&'b', now + Duration::from_secs(2));
        assert_eq!(stock.expire(now + Duration::from_secs(1)).len(), 2);
        assert_eq!(counts(&stock), [('b', 0)]);
        for kind in 'A'..'\u{300}' {
            stock.note(&kind, now);
        }
        assert_eq!(stock.shelves.len(), KINDS);
        fill(&mut stock);
        assert_eq!(stock.clear().len(), 4);
        assert_eq!((stock.count(), stock.wanted()), (0, None));
    }
}
