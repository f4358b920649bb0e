//! Which CPUs the load and the measured program run on.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the two sides of a measurement run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pinning {
    /// The scheduler decides.
    Free,
    /// Load and server share the first CPU.
    Together,
    /// The server has the first CPU, the load the second.
    Apart,
}

/// Which side of a measurement a process is on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// It makes requests.
    Load,
    /// It answers them.
    Server,
}

impl Pinning {
    /// Every way of pinning.
    pub(crate) const ALL: [Self; 3] = [Self::Free, Self::Together, Self::Apart];

    /// What a report calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Free => "unpinned",
            Self::Together => "one CPU",
            Self::Apart => "two CPUs",
        }
    }

    /// Puts the calling thread, and what it starts from now on, where its side belongs.
    pub(crate) fn apply(self, side: Side) -> Result<()> {
        let mut set = CpuSet::new();
        match (self, side) {
            (Self::Free, _) => (0..CpuSet::MAX_CPU).take(64).for_each(|cpu| set.set(cpu)),
            (Self::Together, _) | (Self::Apart, Side::Server) => set.set(0),
            (Self::Apart, Side::Load) => set.set(1),
        }
        sched_setaffinity(None, &set).context("cannot pin to a CPU")?;
        sched_getaffinity(None).map(drop).context("cannot read the CPU set back")
    }
}
