//! How much of the logs is kept, and what goes first. It decides; it forgets nothing itself.
//!
//! Within a function's log the oldest records go first. If all logs of an account are too much, its
//! largest ones are cut down to one level: whoever writes much pays, and a quiet function keeps its
//! own. What is cut is cut with some slack, so that it is not cut again with the next record.

use std::collections::BTreeMap;

use lacewing_store::{Key, Weight};

/// A cut leaves this part of the bound free.
const SLACK: u64 = 16;

/// Bytes of logs that are kept, as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Of one function.
    pub function: u64,
    /// Of all functions of one account.
    pub account: u64,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self { function: 256 << 20, account: 4 << 30 }
    }
}

impl LogBounds {
    /// To how many bytes which of an account's streams must be cut before `incoming` is appended.
    pub(super) fn cuts(
        self,
        held: &BTreeMap<Key, Weight>,
        incoming: &BTreeMap<Key, Weight>,
    ) -> BTreeMap<Key, Weight> {
        let mut left = held.clone();
        let mut cuts = BTreeMap::new();
        for (stream, more) in incoming {
            let held = left.entry(stream.clone()).or_default();
            if *held > 0 && held.saturating_add(*more) > self.function {
                *held = (*held).min(with_slack(self.function).saturating_sub(*more));
                cuts.insert(stream.clone(), *held);
            }
        }
        let more: Weight = incoming.values().sum();
        if left.values().sum::<Weight>().saturating_add(more) > self.account {
            let level = level(&left, with_slack(self.account).saturating_sub(more));
            let above = left.into_iter().filter(|(_, held)| *held > level);
            cuts.extend(above.map(|(stream, _)| (stream, level)));
        }
        cuts
    }
}

fn with_slack(bound: u64) -> u64 {
    bound - bound / SLACK
}

/// The highest level so that all streams, cut down to it, are within `bound` together.
fn level(held: &BTreeMap<Key, Weight>, bound: u64) -> Weight {
    let mut sizes: Vec<Weight> = held.values().copied().collect();
    sizes.sort_unstable();
    let (mut left, mut count) = (bound, sizes.len() as u64);
    for size in sizes {
        if size.saturating_mul(count) > left {
            return left / count;
        }
        (left, count) = (left - size, count - 1);
    }
    Weight::MAX
}

#[cfg(test)]
mod tests {
    use lacewing_model::{AccountId, Region};
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> Key {
        let account = AccountId::new("000000000000").expect("valid");
        Key::new(&account, &Region::new("us-east-1").expect("valid"), &["log", name])
    }

    fn weights(pairs: &[(&str, Weight)]) -> BTreeMap<Key, Weight> {
        pairs.iter().map(|(name, weight)| (key(name), *weight)).collect()
    }

    const BOUNDS: LogBounds = LogBounds { function: 160, account: 320 };

    #[test]
    fn within_the_bounds_nothing_is_cut() {
        let held = weights(&[("a", 100), ("b", 160)]);
        assert_eq!(BOUNDS.cuts(&held, &weights(&[("a", 60)])), weights(&[]));
    }

    #[test]
    fn a_function_that_writes_too_much_loses_its_own_oldest() {
        let held = weights(&[("a", 150), ("b", 100)]);
        assert_eq!(BOUNDS.cuts(&held, &weights(&[("a", 20)])), weights(&[("a", 130)]));
        assert_eq!(BOUNDS.cuts(&held, &weights(&[("a", 500)])), weights(&[("a", 0), ("b", 0)]));
    }

    #[test]
    fn the_largest_of_an_account_pay() {
        let held = weights(&[("a", 150), ("b", 140), ("c", 20)]);
        assert_eq!(BOUNDS.cuts(&held, &weights(&[("c", 20)])), weights(&[("a", 130), ("b", 130)]));
    }

    proptest! {
        #[test]
        fn after_the_cuts_all_is_within_and_the_small_are_untouched(
            held in prop::collection::btree_map("[a-h]", 0..200_u64, 0..8),
            more in prop::collection::btree_map("[a-h]", 0..100_u64, 0..4),
        ) {
            let keyed = |map: &BTreeMap<String, u64>| -> BTreeMap<Key, u64> {
                map.iter().map(|(name, weight)| (key(name), *weight)).collect()
            };
            let (held, more) = (keyed(&held), keyed(&more));
            let cuts = BOUNDS.cuts(&held, &more);
            let mut after = held.clone();
            after.extend(cuts.clone());
            for (stream, weight) in &more {
                *after.entry(stream.clone()).or_default() += weight;
                prop_assert!(after[stream] <= BOUNDS.function.max(held.get(stream).copied().unwrap_or(0)));
            }
            let incoming: u64 = more.values().sum();
            prop_assert!(after.values().sum::<u64>() <= BOUNDS.account.max(incoming));
            for (stream, left) in &cuts {
                prop_assert!(*left < held[stream], "a cut that cuts nothing");
                let spared = held.iter().filter(|(other, _)| !cuts.contains_key(other));
                let incoming = more.contains_key(stream);
                prop_assert!(incoming || spared.clone().all(|(_, weight)| weight <= left));
            }
        }
    }
}
