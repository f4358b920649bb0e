//! What idle sandboxes hold: their own memory by their cgroups, the kernel's by `/proc/meminfo`.
//!
//! The kernel's numbers are the whole machine's, so they say little while others work.

use std::time::Duration;

use anyhow::Result;
use lacewing_sandbox::Sandbox;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::host::kernel;
use crate::report::say;

use super::{Bed, gone, wait};

const ROWS: [&str; 6] =
    ["MemAvailable", "Slab", "SUnreclaim", "PageTables", "KernelStack", "Percpu"];

/// Starts `count` sandboxes and prints what each holds on average.
pub(super) fn measure(bed: &Bed, count: usize) -> Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let before = kernel(ROWS)?;
    let mut all = Vec::with_capacity(count);
    for number in 0..count {
        let sandbox =
            bed.launcher.spawn(&bed.spec(&format!("idle-{count}-{number}")), Vec::new())?;
        wait(&sandbox)?;
        all.push(sandbox);
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = kernel(ROWS)?;
    let own: u64 = all.iter().filter_map(|one| one.memory().ok()).map(|one| one.current).sum();
    say(&format!("\n{count} idle sandboxes (KiB for each)"));
    let share = |kib: i64| kib / i64::try_from(count).unwrap_or(i64::MAX);
    say(&format!("{:<14} {:>9}", "own cgroup", share(i64::try_from(own / 1024)?)));
    for ((name, before), after) in ROWS.iter().zip(before).zip(after) {
        say(&format!("{name:<14} {:>+9}", share(i64::try_from(after)? - i64::try_from(before)?)));
    }
    all.iter().for_each(Sandbox::kill);
    all.iter().try_for_each(gone)
}
