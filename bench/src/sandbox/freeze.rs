//! How long it takes to stop and to continue the processes of a sandbox: the two writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Bed, gone, wait};
use crate::report::say;

/// Between two writes, so that each finds processes that have settled.
const PAUSE: Duration = Duration::from_millis(20);

/// Measures and prints one line for each.
pub(super) fn measure(bed: &Bed, count: usize) -> Result<()> {
    let sandbox = bed.launcher.spawn(&bed.spec("freeze"), Vec::new())?;
    wait(&sandbox)?;
    let freezer = sandbox.freezer().context("this host has no freezer")?;
    let (mut freezes, mut thaws) = (Vec::new(), Vec::new());
    for number in 0..2 * count {
        std::thread::sleep(PAUSE);
        freezer.want(number % 2 == 0);
        let before = Instant::now();
        freezer.apply()?;
        let times = if number % 2 == 0 { &mut freezes } else { &mut thaws };
        times.push(before.elapsed());
    }
    sandbox.kill();
    gone(&sandbox)?;
    say(&format!(
        "\nfreezing, {count} of each, {} ms between them (us, p50 / p99)",
        PAUSE.as_millis()
    ));
    for (name, mut times) in [("freeze", freezes), ("thaw", thaws)] {
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() - 1) * percent / 100).copied();
        let micros = |percent| at(percent).unwrap_or_default().as_secs_f64() * 1e6;
        say(&format!("{name:<10} {:>8.1} / {:.1}", micros(50), micros(99)));
    }
    Ok(())
}
