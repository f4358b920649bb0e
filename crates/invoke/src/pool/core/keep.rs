//! The seam between the core and what is learned of each function's arrivals.
//!
//! The core asks; an implementation answers from a history that the core stores for it beside each
//! function. The server has one, [`Adaptive`](super::Adaptive); the simulator has those it is compared with.

use std::fmt::Debug;
use std::time::Duration;

use lacewing_model::{ByteSize, Timestamp};

/// Judges how long Instances are worth their memory.
pub trait Keep: Debug {
    /// What it remembers of one function.
    type History: Debug + Default;

    /// An Instance is used that was idle for so long.
    fn used(&mut self, history: &mut Self::History, idle: Duration, facts: &Facts);

    /// An Instance ends that was idle for so long. If it was started for nobody and nobody came,
    /// it is `in_vain`.
    fn ended(&mut self, idle: Duration, in_vain: bool, facts: &Facts);

    /// An Instance is wanted that has ended, so long after it had become idle; none if it is given
    /// up as never wanted again.
    fn missed(&mut self, history: &mut Self::History, idle: Option<Duration>, facts: &Facts);

    /// How long the function's idle Instances are to be kept.
    fn plan(&self, history: &Self::History, facts: &Facts) -> Plan;

    /// What goes first when memory is short: the smallest. `floor` is the rank of the last one
    /// that had to go when the function's Instance was last used.
    fn rank(&self, history: &Self::History, facts: &Facts, floor: f64) -> f64;
}

/// What is known of a function's Instances.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What one uses.
    pub memory: ByteSize,
    /// How long one takes to start.
    pub start: Duration,
    /// When the one in question became idle.
    pub idle_since: Timestamp,
    /// How many others of its function served then; see [`Facts::LEVELS`].
    pub level: usize,
}

impl Facts {
    /// Levels are told apart as none, up to 2, 6, 14, and more.
    ///
    /// The Instance used last is used next. So one that became idle while two others served is
    /// wanted again when two others serve: each level has its own arrivals, and those that only
    /// the crest of a burst needs are judged by the bursts.
    pub const LEVELS: usize = 5;

    /// The level for so many others that serve.
    pub fn level(busy: usize) -> usize {
        let log = (busy + 1).ilog2();
        usize::try_from(log).unwrap_or(Self::LEVELS).min(Self::LEVELS - 1)
    }
}

/// How long idle Instances of one function are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// So long after they became idle they end.
    pub keep: Duration,
    /// If all have ended: from when to when after the last became idle one should stand ready again.
    pub again: Option<(Duration, Duration)>,
}
