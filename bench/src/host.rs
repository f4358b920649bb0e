//! What a server takes of its host, by part: processor time and memory. It reads `/proc` and the
//! control groups, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

const CGROUPS: &str = "/sys/fs/cgroup";
/// The files of a control group that say what it uses, in version 2 and in version 1.
const MEMORY: [&str; 2] = ["memory.current", "memory.usage_in_bytes"];
const PROCESSOR: [&str; 2] = ["cpu.stat", "cpuacct.usage"];

/// The processes of a server, and the name of its control groups.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    server: u32,
    launcher: u32,
    group: String,
}

/// Processor time, of users and of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// The server.
    pub(crate) server: Duration,
    /// The launcher, what stands beside it, and its short-lived processes.
    pub(crate) launcher: Duration,
    /// All that ran in the control groups of sandboxes.
    pub(crate) sandboxes: Duration,
    /// Everything that ran on this host, of whomever.
    pub(crate) host: Duration,
}

impl Parts {
    /// Those of a running server, whose data directory this is: the first process that it started is
    /// its launcher.
    pub(crate) fn of(server: u32, data: &Path) -> Result<Self> {
        let launcher = children(server).first().copied().context("the server has no launcher")?;
        let owner =
            fs::read_to_string(data.join("owner")).context("cannot tell the server's id")?;
        Ok(Self { server, launcher, group: format!("lacewing-{}", owner.trim()) })
    }

    /// What they took until now.
    pub(crate) fn time(&self) -> Result<Time> {
        let beside = self.beside().into_iter().filter_map(|pid| times(pid).ok());
        let (sandboxes, is_v2) = self.counted(PROCESSOR)?;
        Ok(Time {
            server: times(self.server)?,
            launcher: times(self.launcher)? + beside.sum::<Duration>(),
            sandboxes: match is_v2 {
                true => Duration::from_micros(sandboxes),
                false => Duration::from_nanos(sandboxes),
            },
            host: busy()?,
        })
    }

    /// The bytes that its control groups count, and which of them are the kernel's own and which are
    /// pages of files.
    pub(crate) fn cgroup_memory(&self) -> Result<[u64; 3]> {
        let group = find(Path::new(CGROUPS), &self.group, MEMORY).context("no group has memory")?;
        let stat = fs::read_to_string(group.join("memory.stat"))?;
        let row = |name: &str| {
            let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.parse().ok())
        };
        let kernel = fs::read_to_string(group.join("memory.kmem.usage_in_bytes"));
        let kernel = kernel.ok().and_then(|text| text.trim().parse().ok());
        Ok([
            self.counted(MEMORY)?.0,
            kernel.or_else(|| row("kernel")).unwrap_or(0),
            row("total_cache").or_else(|| row("file")).unwrap_or(0),
        ])
    }

    /// What the topmost group of the server counts, and whether it is one of version 2.
    fn counted(&self, files: [&str; 2]) -> Result<(u64, bool)> {
        let group = find(Path::new(CGROUPS), &self.group, files);
        let group =
            group.with_context(|| format!("no control group has {}", files.join(" or ")))?;
        let is_v2 = group.join(files[0]).exists();
        let text = fs::read_to_string(group.join(files[usize::from(!is_v2)]))?;
        // Either a number, or lines of which the first has a name and the number.
        let first = text.lines().next().unwrap_or_default();
        Ok((first.rsplit(' ').next().unwrap_or_default().parse()?, is_v2))
    }

    /// Memory of the server, and of launcher, snapshots' keepers and what else stands beside them:
    /// what is shared is counted in shares.
    pub(crate) fn proportional(&self) -> Result<(u64, u64)> {
        let launcher = pss(self.launcher)?;
        let beside = self.beside().into_iter().filter_map(|pid| pss(pid).ok());
        Ok((pss(self.server)?, launcher + beside.sum::<u64>()))
    }

    /// The launcher's children that are no sandboxes.
    fn beside(&self) -> Vec<u32> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace("self");
        let mut children = children(self.launcher);
        children.retain(|pid| namespace(&pid.to_string()) == own);
        children
    }
}

/// Rows of `/proc/meminfo`, in KiB.
pub(crate) fn kernel<const N: usize>(rows: [&str; N]) -> Result<[u64; N]> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(rows) {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        *value = number.with_context(|| format!("no {name} in /proc/meminfo"))?.parse()?;
    }
    Ok(values)
}

/// The topmost group of that name with one of these files.
fn find(below: &Path, name: &str, files: [&str; 2]) -> Option<PathBuf> {
    let folders = fs::read_dir(below).ok()?.flatten().map(|entry| entry.path());
    let folders: Vec<_> = folders.filter(|path| path.is_dir() && !path.is_symlink()).collect();
    let counts = |path: &Path| files.iter().any(|file| path.join(file).exists());
    let own = folders.iter().find(|path| path.ends_with(name) && counts(path));
    own.cloned().or_else(|| folders.iter().find_map(|path| find(path, name, files)))
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// Processor time of a process, and of its children that it has waited for.
fn times(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    // utime stime cutime cstime
    let ticks = fields.skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(from_ticks(ticks))
}

/// Processor time that was not idle, of all processors.
fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guests' time is in the first two.
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(7).map(str::parse).collect::<Result<_, _>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq] = ticks[..] else {
        anyhow::bail!("/proc/stat is cut off");
    };
    Ok(from_ticks(user + nice + system + irq + softirq))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// The proportional share of a process in memory, in bytes.
fn pss(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no Pss")?;
    Ok(kib.parse::<u64>()? * 1_024)
}
