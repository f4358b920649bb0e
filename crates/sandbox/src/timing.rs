//! How long each part of building a sandbox took, taken on the way.
//!
//! The launcher starts the watch and its copy goes on in the new process: both read the same
//! monotonic clock. One reading costs less than a tenth of a microsecond, so there is no way to turn
//! it off. It measures only; nothing is decided by it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A part of building a sandbox, named by what is made in it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
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
#[derive(Clone, Debug)]
pub(crate) struct Stopwatch {
    last: Instant,
    laps: Vec<(Part, Duration)>,
}

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        // As many as a build has, so that nothing is allocated on the way.
        Self { last: Instant::now(), laps: Vec::with_capacity(16) }
    }

    /// Says that the time since the last call went into this part.
    pub(crate) fn lap(&mut self, part: Part) {
        let now = Instant::now();
        self.laps.push((part, now - self.last));
        self.last = now;
    }

    /// Everything so far, in the order in which it came; a part may come more than once.
    pub(crate) fn laps(&self) -> &[(Part, Duration)] {
        &self.laps
    }
}
