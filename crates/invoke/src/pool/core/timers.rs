//! What is to be looked at again later, and when.
//!
//! An alarm is a hint and never a decision: whoever set it may have changed its mind, so it is
//! checked when it rings. It reads no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use lacewing_model::Timestamp;

use super::FunctionId;

/// No alarm is set further ahead: one for a later moment is set again when it rings, so that those
/// nobody waits for any more do not pile up.
const FURTHEST: Duration = Duration::from_secs(30 * 60);

/// What an alarm is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// The function's idle Instances may have been kept long enough.
    Keep(FunctionId),
    /// The function may be wanted soon.
    Ahead(FunctionId),
    /// A caller of the function may have waited long enough for one of its busy Instances.
    Queue(FunctionId),
    /// Another Instance may be started.
    Start,
}

/// The alarms, earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Timestamp, Alarm)>>);

impl Timers {
    /// Sets an alarm; says when it will ring.
    pub(super) fn set(&mut self, alarm: Alarm, due: Timestamp, now: Timestamp) -> Timestamp {
        let due = due.min(now.plus(FURTHEST));
        self.0.push(Reverse((due, alarm)));
        due
    }

    /// When the first one rings.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the first one if it rings by now.
    pub(super) fn ring(&mut self, now: Timestamp) -> Option<(Timestamp, Alarm)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}
