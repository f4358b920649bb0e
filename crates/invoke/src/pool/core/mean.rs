//! A mean that forgets: each new value counts an eighth, so that a change is believed after a
//! dozen of them.

use std::time::Duration;

/// The share of a new value, as a power of two.
const SHIFT: u32 = 3;

/// The mean of durations seen lately, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean(Option<u64>);

impl Mean {
    pub(super) fn add(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX >> SHIFT);
        self.0 = Some(match self.0 {
            None => micros,
            Some(mean) => mean - (mean >> SHIFT) + (micros >> SHIFT),
        });
    }

    /// The mean, if anything was seen.
    pub(super) fn get(self) -> Option<Duration> {
        self.0.map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_close_to_what_is_seen() {
        let mut mean = Mean::default();
        assert_eq!(mean.get(), None);
        mean.add(Duration::from_secs(10));
        for _ in 0..60 {
            mean.add(Duration::from_secs(2));
        }
        let near = mean.get().expect("seen").abs_diff(Duration::from_secs(2));
        assert!(near < Duration::from_millis(10), "{near:?} off");
    }
}
