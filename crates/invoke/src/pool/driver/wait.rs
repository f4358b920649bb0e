//! Where a call's time went before it had its Instance. It reads the clock, and decides nothing.

use std::time::{Duration, Instant};

use lacewing_model::usage::{ColdStart, Timeline};
use lacewing_runtime::StartTimes;

/// How an Instance came to be; its first caller takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) reason: ColdStart,
    /// When its start was decided.
    pub(super) decided: Instant,
    /// When it was ready.
    pub(super) ready: Instant,
    pub(super) times: StartTimes,
}

/// What a caller waited for, until it had its Instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    timeline: Timeline,
    since: Instant,
}

impl Wait {
    /// Of a caller who arrived then, and has got its Instance now.
    pub(super) fn new(arrived: Instant, at_once: bool, birth: Option<Birth>) -> Self {
        let since = Instant::now();
        let mut timeline = Timeline::default();
        match birth {
            Some(birth) => birth.tell(arrived, since, &mut timeline),
            None if at_once => timeline.placed_us = micros(since - arrived),
            None => timeline.queued_us = micros(since - arrived),
        }
        Self { timeline, since }
    }

    /// The whole timeline, now that the answer is there, after so long in the handler.
    pub(crate) fn end(self, handler: Duration) -> Timeline {
        let response = self.since.elapsed().saturating_sub(handler);
        let (handler_us, response_us) = (micros(handler), micros(response));
        Timeline { handler_us, response_us, ..self.timeline }
    }
}

impl Birth {
    /// What of the start a caller waited for: nothing of what was over when it arrived.
    fn tell(&self, arrived: Instant, served: Instant, timeline: &mut Timeline) {
        let program = self.ready - self.times.init;
        let sandbox = program - self.times.sandbox;
        let decided = self.decided.max(arrived);
        let part = |from: Instant, to: Instant| to.saturating_duration_since(from.max(decided));
        timeline.queued_us = micros(decided - arrived);
        timeline.sandbox_us = micros(part(sandbox, program));
        timeline.init_us = micros(part(program, self.ready));
        let others = timeline.queued_us + timeline.sandbox_us + timeline.init_us;
        timeline.placed_us = micros(served - arrived).saturating_sub(others);
        timeline.cold_start = Some(self.reason);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A start that was decided 10 ms after `zero`, began its sandbox at 12 and its program at 20,
    /// and was ready at 50.
    fn birth(zero: Instant) -> Birth {
        let times = StartTimes { sandbox: MS(8), init: MS(30) };
        let (decided, ready) = (zero + MS(10), zero + MS(50));
        Birth { reason: ColdStart::First, decided, ready, times }
    }

    fn parts(arrived: u64) -> [u64; 4] {
        let zero = Instant::now();
        let mut timeline = Timeline::default();
        birth(zero).tell(zero + MS(arrived), zero + MS(51.max(arrived)), &mut timeline);
        assert_eq!(timeline.cold_start, Some(ColdStart::First));
        let Timeline { queued_us, placed_us, sandbox_us, init_us, .. } = timeline;
        [queued_us, placed_us, sandbox_us, init_us].map(|micros| micros / 1_000)
    }

    #[test]
    fn a_caller_waits_for_what_was_not_over_when_it_arrived() {
        assert_eq!(parts(0), [10, 3, 8, 30], "all of it");
        assert_eq!(parts(11), [0, 2, 8, 30]);
        assert_eq!(parts(15), [0, 1, 5, 30]);
        assert_eq!(parts(40), [0, 1, 0, 10]);
        assert_eq!(parts(90), [0, 0, 0, 0], "one that stood ready");
    }

    #[test]
    fn without_a_start_it_waits_for_a_busy_one_or_not_at_all() {
        let arrived = Instant::now() - MS(7);
        let waited = Wait::new(arrived, false, None).end(MS(0));
        assert!(waited.queued_us >= 7_000 && waited.placed_us == 0);
        let at_once = Wait::new(arrived, true, None).end(MS(0));
        assert!(at_once.placed_us >= 7_000 && at_once.queued_us == 0);
        assert_eq!(at_once.cold_start, None);
    }
}
