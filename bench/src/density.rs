//! What many idle Instances hold, of everything that is theirs: their control groups, the kernel's
//! own objects, the server and the launcher; and whether the node still answers others.
//!
//! The kernel's numbers are the whole machine's, so they say little while others work.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::cpu::Pinning;
use crate::host::{self, Parts};
use crate::http_client::burst;
use crate::platform::{Language, Platform};
use crate::report::say;
use crate::samples::sequence;

/// It keeps its Instance until all that are called at a time have one.
const SOURCE: &str = "import time\n\ndef handler(event, context):\n    time.sleep(2)\n";
/// Calls of all functions until each has its Instances.
const ROUNDS: usize = 4;
/// Functions that are called at a time.
const AT_ONCE: usize = 5;
/// How long a neighbour's latency is measured.
const NEIGHBOUR: Duration = Duration::from_secs(3);
const MIB: u64 = 1 << 20;

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Functions.
    #[arg(long, default_value_t = 100)]
    functions: usize,
    /// Idle Instances of each.
    #[arg(long, default_value_t = 10)]
    instances: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { functions: 100, instances: 10 }
    }
}

/// Memory of one kind before there was any Instance, and with all of them, in bytes.
struct Row(&'static str, u64, u64);

/// Measures and prints.
pub(crate) fn measure(binary: &Path, arguments: &Arguments) -> Result<()> {
    let Some(python) = Language::available().into_iter().find(Language::is_python) else {
        say("\nno idle Instances are measured: there is no Python");
        return Ok(());
    };
    let count = arguments.functions * arguments.instances;
    let configuration = format!(
        "isolation = 'required'\n[limits]\nkeep_alive = '1h'\ninstances = {}\nfunction_instances = {}\n",
        count + 100,
        count + 100
    );
    let platform = Platform::start(binary, Pinning::Free, &configuration)?;
    platform.deploy(&python)?;
    platform.deploy_code("idle", &python, SOURCE, arguments.functions)?;
    let neighbour = || -> Result<Duration> {
        let function = platform.function("bench-python-0", None)?;
        Ok(sequence(function.target(), NEIGHBOUR)?.p50)
    };
    let alone = neighbour()?;
    platform.settle(|_| true)?;
    let before = memory(&platform)?;
    fill(&platform, arguments)?;
    let all = u64::try_from(count)?;
    platform.settle(|idle| idle >= all)?;
    let rows: Vec<_> = before
        .into_iter()
        .zip(memory(&platform)?)
        .map(|((name, before), (_, after))| Row(name, before, after))
        .collect();
    let beside = neighbour()?;

    say(&format!("\n{count} idle Python Instances of {} functions (MiB)", arguments.functions));
    say(&format!("{:<24} {:>9} {:>9}", "", "before", "with them"));
    for Row(name, before, after) in &rows {
        say(&format!("{name:<24} {:>9} {:>9}", before / MIB, after / MIB));
    }
    let grown = |name: &str| {
        let row = rows.iter().find(|row| row.0 == name);
        row.map_or(0, |Row(_, before, after)| after.saturating_sub(*before))
    };
    let last = |name: &str| rows.iter().find(|row| row.0 == name).map_or(0, |row| row.2);
    let programs = last(SERVER) + last(LAUNCHER);
    let kernel = grown(SLAB);
    let once = last(GROUPS) + kernel.saturating_sub(grown(OF_KERNEL)) + programs;
    say(&format!(
        "groups, growth of the slab, server and launcher: {} MiB; {} MiB if what the groups count of \
         the slab is counted once",
        (last(GROUPS) + kernel + programs) / MIB,
        once / MIB,
    ));
    let micros = |latency: Duration| latency.as_secs_f64() * 1e6;
    say(&format!(
        "a neighbour's warm p50: {:.0} us before, {:.0} us beside them ({:.2} x)",
        micros(alone),
        micros(beside),
        micros(beside) / micros(alone)
    ));
    Ok(())
}

const GROUPS: &str = "control groups";
const OF_KERNEL: &str = "  of them the kernel's";
const OF_FILES: &str = "  of them pages of files";
const SLAB: &str = "slab of the kernel";
const SERVER: &str = "server (PSS)";
const LAUNCHER: &str = "launcher (PSS)";
/// Shown only: it has what the others have, and all else that the machine did.
const MACHINE: &str = "used of the machine";

fn memory(platform: &Platform) -> Result<[(&'static str, u64); 7]> {
    let parts = Parts::of(platform.pid(), &platform.data())?;
    let (server, launcher) = parts.proportional()?;
    let [groups, of_kernel, of_files] = parts.cgroup_memory()?;
    let [total, available, slab] = host::kernel(["MemTotal", "MemAvailable", "Slab"])?;
    Ok([
        (GROUPS, groups),
        (OF_KERNEL, of_kernel),
        (OF_FILES, of_files),
        (SLAB, slab * 1_024),
        (SERVER, server),
        (LAUNCHER, launcher),
        (MACHINE, (total - available) * 1_024),
    ])
}

/// Calls each function by so many at a time, until there are so many Instances of each.
fn fill(platform: &Platform, arguments: &Arguments) -> Result<()> {
    let wanted = u64::try_from(arguments.functions * arguments.instances)?;
    let call = |number: usize| {
        let function = platform.function(&format!("bench-idle-{number}"), None)?;
        burst(function.target(), arguments.instances)
    };
    let mut idle = 0;
    for _ in 0..ROUNDS {
        // Some functions at a time, as each call takes two seconds.
        for some in (0..arguments.functions).collect::<Vec<_>>().chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let calls: Vec<_> =
                    some.iter().map(|number| scope.spawn(|| call(*number))).collect();
                calls.into_iter().try_for_each(|call| {
                    call.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?.map(drop)
                })
            })?;
        }
        idle = platform.metric("lacewing_instances", "state=\"idle\"")?;
        if idle >= wanted {
            return Ok(());
        }
    }
    bail!("only {idle} Instances are idle, of {wanted}")
}
