//! What a sandbox costs: the time of each part of making one, and the memory that an idle one holds.
//!
//! It asks a launcher of its own as the server would, for sandboxes as functions have them. Starts
//! with pauses matter more than starts back to back: some costs hide in a tight loop.

mod freeze;
mod idle;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lacewing_sandbox::{
    Cpu, CpuQuota, Error, Event, Identity, Isolation, Launcher, LauncherOptions, Limits, Mount,
    Network, NetworkOptions, Part, Role, Sandbox, ScratchOptions, Spec, TmpFs,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

use crate::report::say;

const MIB: u64 = 1 << 20;
const TMP: TmpFs = TmpFs { bytes: 512 * MIB, inodes: 32_768 };
/// Time in which a launcher makes ahead what it should have.
const SETTLING: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(20);
/// A program that does nothing, and needs no shared library for that.
const IDLE: &str = "fn main() { loop { std::thread::park(); } }";

/// What is measured, and how often.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Sandboxes of one row.
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Milliseconds between two starts, for each table.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 0])]
    pauses: Vec<u64>,
    /// Idle sandboxes whose memory is measured; 0 for none.
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    idle: Vec<usize>,
    /// Empty sandboxes that wait, for each group of tables.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 0])]
    empty: Vec<usize>,
    /// Keep `/tmp` in memory.
    #[arg(long)]
    tmp_in_memory: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            count: 200,
            pauses: vec![200, 0],
            idle: vec![100],
            empty: vec![8, 0],
            tmp_in_memory: false,
        }
    }
}

/// A launcher with what its sandboxes need on this host.
struct Bed {
    launcher: Launcher,
    files: TempDir,
}

/// How long one start took.
struct Start {
    whole: Duration,
    parts: Vec<(Part, Duration)>,
}

/// Measures everything that was asked for.
pub(crate) fn measure(arguments: &Arguments) -> Result<()> {
    for empty in &arguments.empty {
        let Some(bed) = Bed::new(arguments, *empty)? else { return Ok(()) };
        for pause in &arguments.pauses {
            bed.starts(arguments.count, Duration::from_millis(*pause), *empty)?;
        }
    }
    let Some(bed) = Bed::new(arguments, 0)? else { return Ok(()) };
    freeze::measure(&bed, arguments.count)?;
    for count in arguments.idle.iter().filter(|count| **count > 0) {
        idle::measure(&bed, *count)?;
    }
    Ok(())
}

impl Bed {
    fn new(arguments: &Arguments, empty: usize) -> Result<Option<Self>> {
        let files = tempfile::Builder::new().prefix("lacewing-bench-").tempdir()?;
        let scratch =
            ScratchOptions { dir: files.path().to_owned(), expected: TMP, most_bytes: u64::MAX };
        let options = LauncherOptions {
            owner: format!("bench{:07}", std::process::id()),
            isolation: Isolation::Required,
            cpu: Cpu::Fair,
            uid_base: 0x7f00_0000,
            uid_count: 4096,
            cgroup_parent: None,
            root: None,
            sources: vec![files.path().to_owned()],
            shared: None,
            origins: Vec::new(),
            scratch: (!arguments.tmp_in_memory).then_some(scratch),
            network: NetworkOptions::egress(),
            empty,
        };
        let launcher = match Launcher::start(&std::env::current_exe()?, &options) {
            Err(Error::Refused(why)) => {
                say(&format!("\nno sandboxes are measured: {why}"));
                return Ok(None);
            }
            launcher => launcher?,
        };
        for feature in launcher.report().features.iter().filter(|feature| !feature.in_force) {
            say(&format!("\nnot in force: {} ({})", feature.name, feature.detail));
        }
        build_idle(files.path())?;
        Ok(Some(Self { launcher, files }))
    }

    /// Makes many, one after the other, and prints what each part took.
    fn starts(&self, count: usize, pause: Duration, empty: usize) -> Result<()> {
        // The first ones find cold caches and nothing that waits.
        (0..5).try_for_each(|number| self.start(&format!("warm-{number}")).map(|_| ()))?;
        std::thread::sleep(SETTLING);
        let mut starts = Vec::with_capacity(count);
        for number in 0..count {
            std::thread::sleep(pause);
            starts.push(self.start(&format!("cost-{}-{number}", pause.as_millis()))?);
        }
        table::print(pause, empty, &starts);
        Ok(())
    }

    /// Makes one, waits until it is there, and ends it.
    fn start(&self, name: &str) -> Result<Start> {
        let spec = self.spec(name);
        let began = Instant::now();
        let sandbox = self.launcher.spawn(&spec, Vec::new())?;
        wait(&sandbox)?;
        let whole = began.elapsed();
        let parts = sandbox.build_times().to_vec();
        sandbox.kill();
        gone(&sandbox)?;
        Ok(Start { whole, parts })
    }

    /// As a function with a program of its own has it.
    fn spec(&self, name: &str) -> Spec {
        let bind = |target: &str| Mount::Bind {
            source: self.files.path().to_owned(),
            target: PathBuf::from(target),
            exec: true,
        };
        Spec {
            name: name.to_owned(),
            hostname: "sandbox".to_owned(),
            argv: vec!["/var/task/idle".to_owned()],
            env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            cwd: "/var/task".to_owned(),
            mounts: ["/etc", "/var/runtime", "/var/task", "/var/lang"].map(bind).to_vec(),
            tmp: TMP,
            identity: Identity::default(),
            limits: Limits {
                memory_bytes: 128 * MIB,
                pids: 1024,
                cpu_weight: 7,
                cpu_quota: Some(CpuQuota { quota_us: 7_235, period_us: 100_000 }),
                open_files: 1024,
                memlock: 64 * 1024,
                stack: 8 * MIB,
                core: 0,
                nproc: Some(742),
            },
            listeners: vec![9001, 9002],
            network: Network::Egress,
            role: Role::Program,
        }
    }
}

fn build_idle(dir: &Path) -> Result<()> {
    let source = dir.join("idle.rs");
    std::fs::write(&source, IDLE)?;
    let status = Command::new("rustc")
        .args(["--edition=2021", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o"])
        .arg(dir.join("idle"))
        .arg(&source)
        .status()
        .context("cannot run rustc")?;
    ensure!(status.success(), "rustc could not build the idle program");
    // Other users run it: the directory is the sandbox's own.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    Ok(std::fs::set_permissions(dir, open)?)
}

/// Waits until a sandbox is built.
fn wait(sandbox: &Sandbox) -> Result<()> {
    match event(sandbox)? {
        Event::Ready { .. } => Ok(()),
        other => bail!("{} was not built: {other:?}", sandbox.name()),
    }
}

/// Waits until nothing of a sandbox runs any more.
fn gone(sandbox: &Sandbox) -> Result<()> {
    while !matches!(event(sandbox)?, Event::Gone) {}
    Ok(())
}

fn event(sandbox: &Sandbox) -> Result<Event> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = sandbox.try_event()? {
            return Ok(event);
        }
        ensure!(Instant::now() < until, "nothing came from {}", sandbox.name());
        let mut readable = [PollFd::new(sandbox, PollFlags::IN)];
        poll(&mut readable, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))?;
    }
}
