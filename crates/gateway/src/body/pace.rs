//! The pace at which a large body must come: so much in each window of time, without credit for what
//! came before, so that a sender who stops is found within two windows.
//!
//! It is a number and a moment; it waits for nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The window, which is also the grace that every body has.
const WINDOW: Duration = Duration::from_secs(5);
/// Bytes of a window: 128 KiB/s.
const LEAST: u64 = 640 * 1024;
/// The same while others wait for the memory that the body holds: 1 MiB/s.
const LEAST_WANTED: u64 = 5 * 1024 * 1024;

/// The window that is open.
#[derive(Debug)]
pub(super) struct Pace {
    ends: Instant,
    came: u64,
}

impl Pace {
    pub(super) fn begin(now: Instant) -> Self {
        Self { ends: now + WINDOW, came: 0 }
    }

    /// When [`Pace::go_on`] is to be asked.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// Some of the body came.
    pub(super) fn came(&mut self, bytes: u64) {
        self.came += bytes;
    }

    /// Whether enough came in the window that is over; then the next one begins.
    pub(super) fn go_on(&mut self, now: Instant, is_wanted: bool) -> bool {
        let enough = self.came >= if is_wanted { LEAST_WANTED } else { LEAST };
        *self = Self::begin(now);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_stands_for_itself() {
        let start = Instant::now();
        let mut pace = Pace::begin(start);
        pace.came(100 * LEAST);
        assert!(pace.go_on(pace.ends(), false));
        assert_eq!(pace.ends(), start + 2 * WINDOW);
        pace.came(LEAST - 1);
        assert!(!pace.go_on(pace.ends(), false), "no credit");
    }

    #[test]
    fn who_keeps_others_waiting_must_hurry() {
        let mut pace = Pace::begin(Instant::now());
        pace.came(LEAST_WANTED - 1);
        assert!(!pace.go_on(pace.ends(), true));
        pace.came(LEAST);
        assert!(pace.go_on(pace.ends(), false));
        pace.came(LEAST_WANTED);
        assert!(pace.go_on(pace.ends(), true));
    }
}
