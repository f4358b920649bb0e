//! What runs in the virtual machine, as whom, and for how long at most.
//!
//! The limits of time are for a processor in software that shares two cores with other work: about
//! four times what was measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{cache, root, target};

/// A test of the sandbox that asserts how a processor is divided.
const DIVIDED: &str = "cgroup_weights_divide_a_processor_that_two_want";
/// What is left out by name, and why; beside it, tests leave themselves out and say so.
pub(super) const LEFT_OUT: [(&str, &str); 3] = [
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
];

/// End-to-end files that need nothing but interpreters and boto3, and whether they run on the host with
/// systemd, too: what those of a sandbox are limits of is another group there.
const END_TO_END: [(&str, bool); 8] = [
    ("environment", false),
    ("custom_runtimes", false),
    ("ordinary_user", false),
    ("isolation", false),
    ("limits", true),
    ("probes", true),
    ("attacks", true),
    ("exhaustion", true),
];

/// How much longer than on a real processor something may take.
const SLOWNESS: u32 = 4;

/// What kind of host the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No systemd; the user has a delegated cgroup.
    Plain,
    /// systemd is process 1, and nobody has a cgroup of its own until it is asked.
    Systemd,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Plain, Self::Systemd];

    /// As `scripts/vm/guest` knows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Systemd => "systemd",
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
pub(super) fn all(programs: &[(String, PathBuf)], tests: Option<&str>) -> Result<Vec<Suite>> {
    let found = programs.iter().find(|(target, _)| target == "sandbox");
    let (_, sandbox) = found.context("the tests of the sandbox were not built")?;
    let sandbox = super::path(sandbox)?;
    let binary = target()?.join("debug/lacewing");
    let mut suites = Vec::new();
    for (kind, user) in Kind::ALL.into_iter().flat_map(|kind| USERS.map(|user| (kind, user))) {
        let mut add = |name: &str, seconds, command: String| {
            suites.push(Suite { kind, user, name: name.to_owned(), seconds, command });
        };
        add("doctor", 90, format!("{} doctor --here", super::path(&binary)?));
        let threads = format!("--test-threads=2 --show-output --color=never --skip {DIVIDED}");
        let environment = format!("LACEWING_NO_SKIP=1 LACEWING_SLOWNESS={SLOWNESS}");
        add("sandbox", 1200, format!("{environment} {sandbox} {threads}"));
        let here = |(_, too): &&(&str, bool)| kind == Kind::Plain || *too;
        let files: Vec<&str> = END_TO_END.iter().filter(here).map(|(name, _)| *name).collect();
        add("functions", 600 * files.len() as u64, pytest(&files, tests, &binary)?);
    }
    Ok(suites)
}

/// The most that all may take together.
pub(super) fn time(suites: &[Suite]) -> Duration {
    suites.iter().map(|suite| Duration::from_secs(suite.seconds + 20)).sum()
}

/// All files in one run, with one server for all: a start of either takes half a minute here.
fn pytest(files: &[&str], tests: Option<&str>, binary: &Path) -> Result<String> {
    let python = std::fs::canonicalize(cache()?.join("venv"))?.join("bin/python");
    let chosen = tests.map(|tests| format!("-k '{tests}' ")).unwrap_or_default();
    let left_out = LEFT_OUT.iter().filter(|(name, _)| name.contains(".py::"));
    let left_out: String = left_out.map(|(name, _)| format!(" '--deselect={name}'")).collect();
    let files: Vec<String> = files.iter().map(|name| format!("tests/e2e/test_{name}.py")).collect();
    Ok(format!(
        "cd {} && LACEWING_BIN={} LACEWING_CACHE={} LACEWING_TARGET={} LACEWING_PROBE=/vm/probe \
         LACEWING_SLOWNESS={SLOWNESS} PYTHONDONTWRITEBYTECODE=1 {} -m pytest -p no:cacheprovider -v -rA \
         --color=no --durations=20 {chosen}{}{left_out}",
        super::path(&root())?,
        super::path(binary)?,
        super::path(&cache()?)?,
        super::path(&target()?)?,
        super::path(&python)?,
        files.join(" "),
    ))
}
