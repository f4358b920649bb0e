//! What runs in the virtual machine, as whom, and for how long at most.
//!
//! The limits of time are for a processor in software that shares two cores with other work: about
//! four times what was measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Args;
use crate::process::{cache, root, target};

/// A test of the sandbox that asserts how a processor is divided.
const DIVIDED: &str = "cgroup_weights_divide_a_processor_that_two_want";
/// What is left out by name, and why; beside it, tests leave themselves out and say so.
pub(super) const LEFT_OUT: [(&str, &str); 4] = [
    (
        DIVIDED,
        "two processors in software share those of the host with other work, which decides it",
    ),
    (
        "tests/e2e/test_custom_runtimes.py::test_a_static_binary_is_a_runtime",
        "the machine has no compiler; the probes are a static binary, too",
    ),
    (
        "tests/e2e/test_environment.py::test_tmp_is_as_large_as_configured_whatever_the_memory[1500]",
        "a slow processor does not digest 3 GB in time; a test of the sandbox writes and reads 1025 MB",
    ),
    (
        "tests/e2e/test_bounds.py::test_slow_uploads_are_cut_off_and_hold_up_nobody",
        "slow uploads are cut off after 5 seconds, in which a slow processor has not begun all of them",
    ),
];

/// End-to-end files that need nothing but interpreters and boto3, and on which kinds of hosts they run:
/// with systemd those of which the group is part that a sandbox is in, without Landlock those that it
/// has a part in.
const END_TO_END: [(&str, &[Kind]); 17] = [
    ("environment", &[Kind::Plain]),
    ("custom_runtimes", &[Kind::Plain]),
    ("blanks", &[Kind::Plain]),
    ("bounds", &[Kind::Plain]),
    ("network", &[Kind::Plain]),
    ("pasta", &[Kind::Plain]),
    ("processor", &[Kind::Plain]),
    ("retirement", &[Kind::Plain]),
    ("snapstart", &[Kind::Plain]),
    ("ordinary_user", &[Kind::Plain, Kind::NoLandlock]),
    ("isolation", &[Kind::Plain, Kind::NoLandlock]),
    ("privileges", &[Kind::Plain, Kind::NoLandlock]),
    ("hosts", &[Kind::Plain, Kind::NoLandlock]),
    ("limits", &[Kind::Plain, Kind::Systemd]),
    ("probes", &Kind::ALL),
    ("attacks", &Kind::ALL),
    ("exhaustion", &[Kind::Plain, Kind::Systemd]),
];

/// How much longer than on a real processor something may take, if nobody says otherwise.
pub(super) const SLOWNESS: u32 = 4;

/// How many Instances of a runtime of its own `test_retirement` starts and ends.
const STARTS: u32 = 100;

/// What kind of host the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No systemd; the user has a delegated cgroup.
    Plain,
    /// systemd is process 1, and nobody has a cgroup of its own until it is asked.
    Systemd,
    /// As `Plain`, and the kernel was started without Landlock.
    NoLandlock,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Systemd, Self::NoLandlock];

    /// As `scripts/vm/guest` knows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Systemd => "systemd",
            Self::NoLandlock => "no-landlock",
        }
    }

    /// Parameters of the kernel that make it.
    pub(super) fn kernel(self) -> &'static str {
        match self {
            Self::Plain | Self::Systemd => "",
            // What Debian's kernel has beside it.
            Self::NoLandlock => "lsm=lockdown,yama,loadpin,safesetid,integrity,apparmor,bpf",
        }
    }
}

/// As `scripts/vm/guest` knows them.
pub(super) const USERS: [&str; 2] = ["user", "root"];

/// One command in the machine.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) kind: Kind,
    pub(super) user: &'static str,
    pub(super) name: String,
    seconds: u64,
    command: String,
}

impl Suite {
    /// The name that no other suite has: host, user and what runs.
    pub(super) fn name(&self) -> String {
        format!("{}:{}:{}", self.kind.name(), self.user, self.name)
    }

    /// As `scripts/vm/guest` reads it.
    pub(super) fn line(&self) -> String {
        format!("{}\t{}\t{}\t{}\n", self.name(), self.user, self.seconds, self.command)
    }
}

/// Lists all suites, each for root and for an ordinary user.
///
/// # Errors
/// If a test program is missing or a path cannot be written down.
pub(super) fn all(programs: &[(String, PathBuf)], args: &Args) -> Result<Vec<Suite>> {
    let found = programs.iter().find(|(target, _)| target == "sandbox");
    let (_, sandbox) = found.context("the tests of the sandbox were not built")?;
    let sandbox = super::path(sandbox)?;
    let binary = target()?.join("debug/lacewing");
    let mut suites = Vec::new();
    for (kind, user) in Kind::ALL.into_iter().flat_map(|kind| USERS.map(|user| (kind, user))) {
        let mut add = |name: &str, seconds, command: String| {
            let seconds = args.at_most(seconds);
            suites.push(Suite { kind, user, name: name.to_owned(), seconds, command });
        };
        let is_without = match kind {
            Kind::NoLandlock => " && ! grep landlock /sys/kernel/security/lsm",
            Kind::Plain | Kind::Systemd => " && grep landlock /sys/kernel/security/lsm",
        };
        add("doctor", 90, format!("{} doctor --here{is_without}", super::path(&binary)?));
        let threads = format!("--test-threads=2 --show-output --color=never --skip {DIVIDED}");
        let environment = format!("LACEWING_NO_SKIP=1 LACEWING_SLOWNESS={}", args.slowness);
        add("sandbox", 3600, format!("{environment} {sandbox} {threads}"));
        let files: Vec<&str> = files(kind, &args.files).collect();
        if !files.is_empty() {
            let command = pytest(&files, args, &binary)?;
            add("functions", 1200 * files.len() as u64, command);
        }
    }
    Ok(suites)
}

/// The end-to-end files for such a host, of those that are wanted; all are if none is named.
fn files(kind: Kind, wanted: &[String]) -> impl Iterator<Item = &'static str> {
    let is_wanted = move |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    let here = END_TO_END.iter().filter(move |(_, kinds)| kinds.contains(&kind));
    here.map(|(name, _)| *name).filter(move |name| is_wanted(name))
}

/// The most that all may take together.
pub(super) fn time(suites: &[Suite]) -> Duration {
    suites.iter().map(|suite| Duration::from_secs(suite.seconds + 20)).sum()
}

/// All files in one run, with one server for all: a start of either takes half a minute here.
fn pytest(files: &[&str], args: &Args, binary: &Path) -> Result<String> {
    let python = std::fs::canonicalize(cache()?.join("venv"))?.join("bin/python");
    let chosen = args.tests.as_ref().map(|tests| format!("-k '{tests}' ")).unwrap_or_default();
    let slowness = args.slowness;
    let left_out = LEFT_OUT.iter().filter(|(name, _)| name.contains(".py::"));
    let left_out: String = left_out.map(|(name, _)| format!(" '--deselect={name}'")).collect();
    let files: Vec<String> = files.iter().map(|name| format!("tests/e2e/test_{name}.py")).collect();
    Ok(format!(
        "cd {} && LACEWING_BIN={} LACEWING_CACHE={} LACEWING_TARGET={} LACEWING_PROBE=/vm/probe \
         LACEWING_SLOWNESS={slowness} LACEWING_STARTS={STARTS} PYTHONDONTWRITEBYTECODE=1 {} -m pytest -p no:cacheprovider -v -rA \
         --color=no --durations=20 {chosen}{}{left_out}",
        super::path(&root())?,
        super::path(binary)?,
        super::path(&cache()?)?,
        super::path(&target()?)?,
        super::path(&python)?,
        files.join(" "),
    ))
}
