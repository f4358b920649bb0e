//! How long each part of building a sandbox took, taken on the way.
//!
//! The launcher starts the watch and its copy goes on in the sandbox's first process: both read the
//! same monotonic clock. One reading costs less than a tenth of a microsecond, so there is no way to turn
//! it off. It measures only; nothing is decided by it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A part of building a sandbox, named by what is made in it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// For a sandbox that waited empty: until its first process has read whose it is.
    Order,
    /// The cgroup leaves with their limits, made by the launcher and joined by the new process.
    Cgroup,
    /// The new process with its namespaces, its user map, and descriptors that it lets go of.
    Namespaces,
    /// Loopback and the listeners.
    Network,
    /// The private `/tmp`.
    Tmp,
    /// All other mounts.
    Mounts,
    /// The user, without capabilities.
    User,
    /// The second opinion on the mounts.
    Landlock,
    /// The filter on system calls.
    Filter,
}

/// Measures one part after the other.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Stopwatch {
    /// By the monotonic clock.
    last: Duration,
    laps: Vec<(Part, Duration)>,
}

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        // As many as a build has, so that nothing is allocated on the way.
        Self { last: now(), laps: Vec::with_capacity(16) }
    }

    /// Says that the time since the last call went into this part.
    pub(crate) fn lap(&mut self, part: Part) {
        let now = now();
        self.laps.push((part, now.saturating_sub(self.last)));
        self.last = now;
    }

    /// Everything so far, in the order in which it came; a part may come more than once.
    pub(crate) fn laps(&self) -> &[(Part, Duration)] {
        &self.laps
    }
}

fn now() -> Duration {
    // The kernel's clocks begin at zero.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
