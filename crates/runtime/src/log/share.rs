//! What one function may have of the way that all logs take: room among the batches that wait, and
//! bytes in a time. All Instances of a function share it, so that one that floods its output neither
//! fills the disk, nor keeps a processor busy with cutting lines, nor makes others lose theirs. It says
//! yes or no, and how long until yes; it never waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use lacewing_model::{FunctionKey, Timestamp};

/// Kilobytes that the batches of one function which wait may have together.
const WAITING_KB: usize = 8 * 1024;
/// The same, of the ends of invocations, which output must not crowd out.
const ENDS_WAITING_KB: usize = 1024;
/// Bytes that a function may log in a second, on the average.
const RATE: u64 = 8 * 1024 * 1024;
/// So much it may log ahead of that: 32 MiB.
const AHEAD: Duration = Duration::from_secs(4);

/// The shares of the functions that have Instances.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<FunctionKey, Weak<Share>>>);

/// One function's.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Semaphore>,
    ends: Arc<Semaphore>,
    pace: Pace,
}

/// What a batch has room for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// Whatever the function printed.
    Output,
    /// What an invocation ends with.
    End,
}

/// A bound on bytes in a time, as a moment: when all that was taken would have been written at
/// [`RATE`]. (The generic cell rate algorithm of ITU-T I.371: one number, no lock.)
#[derive(Debug, Default)]
struct Pace(AtomicI64);

impl Shares {
    /// The function's share: the same one for all its Instances.
    pub(super) fn of(&self, function: &FunctionKey) -> Arc<Share> {
        let mut shares = self.0.lock();
        if let Some(share) = shares.get(function).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let room = |kilobytes| Arc::new(Semaphore::new(kilobytes));
        let (room, ends) = (room(WAITING_KB), room(ENDS_WAITING_KB));
        let share = Arc::new(Share { room, ends, pace: Pace::default() });
        shares.insert(function.clone(), Arc::downgrade(&share));
        share
    }
}

impl Share {
    /// Room for so many kilobytes, if there is some.
    pub(super) fn room(&self, part: Part, kilobytes: u32) -> Option<OwnedSemaphorePermit> {
        let room = match part {
            Part::Output => &self.room,
            Part::End => &self.ends,
        };
        Arc::clone(room).try_acquire_many_owned(kilobytes).ok()
    }

    /// Takes so many bytes if they are within the rate.
    pub(super) fn take(&self, bytes: usize, now: Timestamp) -> bool {
        self.pace.take(bytes, now)
    }

    /// How long until so many bytes are within the rate; nothing if they are.
    pub(super) fn wait(&self, bytes: usize, now: Timestamp) -> Option<Duration> {
        self.pace.wait(bytes, now)
    }
}

impl Pace {
    fn take(&self, bytes: usize, now: Timestamp) -> bool {
        let (now, cost) = (now.as_micros(), cost(bytes));
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            Some(from(until, now) + cost).filter(|until| *until <= now + ahead())
        });
        taken.is_ok()
    }

    fn wait(&self, bytes: usize, now: Timestamp) -> Option<Duration> {
        let now = now.as_micros();
        let until = from(self.0.load(Ordering::Relaxed), now) + cost(bytes);
        u64::try_from(until - now - ahead())
            .ok()
            .filter(|wait| *wait > 0)
            .map(Duration::from_micros)
    }
}

/// From when on something is taken, in microseconds.
fn from(until: i64, now: i64) -> i64 {
    // Further ahead than it can be: the clock was set back.
    if until > now + ahead() { now } else { until.max(now) }
}

/// [`AHEAD`] in microseconds.
fn ahead() -> i64 {
    i64::try_from(AHEAD.as_micros()).unwrap_or(i64::MAX)
}

/// How long so many bytes take at [`RATE`], in microseconds.
fn cost(bytes: usize) -> i64 {
    i64::try_from(bytes as u64 * 1_000_000 / RATE).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn taken(pace: &Pace, now: Timestamp) -> usize {
        (0..100).filter(|_| pace.take(MB, now)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let pace = Pace::default();
        assert_eq!(taken(&pace, at(1_000)), 32);
        assert_eq!(taken(&pace, at(1_000)), 0);
        assert_eq!(taken(&pace, at(1_001)), 8);
        assert_eq!(taken(&pace, at(2_000)), 32, "what was not used is not saved up");
        assert_eq!(taken(&pace, at(5)), 32, "a clock that was set back stops nobody");
    }

    #[test]
    fn who_has_had_its_share_is_told_how_long_to_wait() {
        let pace = Pace::default();
        assert_eq!(pace.wait(32 * MB, at(1_000)), None);
        assert_eq!(taken(&pace, at(1_000)), 32);
        assert_eq!(pace.wait(8 * MB, at(1_000)), Some(Duration::from_secs(1)));
        assert_eq!(pace.wait(8 * MB, at(1_001)), None);
        assert_eq!(pace.wait(8 * MB, at(5)), None, "a clock that was set back stops nobody");
    }
}
