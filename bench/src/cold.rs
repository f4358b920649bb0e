//! First requests: each goes to a function that was never called, so that no process and no cgroup of
//! it exists; beside them, in the same run, the start of the bare interpreter.
//!
//! The package is unpacked and the page cache is warm after the first few, which are not counted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::cpu::Pinning;
use crate::platform::{Language, Platform};
use crate::report;

/// Requests before those that are counted.
const WARM_UP: usize = 10;
/// Idle Instances go soon: the memory of a bench is bounded.
const SOON: &str = "keep_alive = '2s'\n";

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// First requests of each language.
    #[arg(long, default_value_t = 200)]
    starts: usize,
    /// Milliseconds between them.
    #[arg(long, default_value_t = 200)]
    pause: u64,
    /// Measure only this language: python, node or compiled.
    #[arg(long)]
    language: Option<String>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { starts: 200, pause: 200, language: None }
    }
}

/// Measures and prints a table.
pub(crate) fn measure(binary: &Path, arguments: &Arguments) -> Result<()> {
    report::say(&format!(
        "\nfirst requests, {} of each, {} ms between them (ms, p50 / p99)",
        arguments.starts, arguments.pause
    ));
    let [name, bare, with, ratio] = ["function", "bare start", "lacewing", "p50 ratio"];
    report::say(&format!("{name:<10} {:>8} {bare:>15} {with:>15} {ratio:>10}", "blanks"));
    for (blanks, text) in
        [(8, "blank_instances = 8\n"), (0, "blank_instances = 0\nempty_sandboxes = 0\n")]
    {
        let platform = Platform::start(binary, Pinning::Free, &format!("[limits]\n{SOON}{text}"))?;
        for language in Language::available() {
            if arguments.language.as_ref().is_some_and(|wanted| wanted != language.name()) {
                continue;
            }
            let (bare, first) = interleave(&platform, &language, arguments)?;
            report::say(&format!(
                "{:<10} {blanks:>8} {:>15} {:>15} {:>10.2}",
                language.name(),
                pair(&bare),
                pair(&first),
                at(&first, 50).as_secs_f64() / at(&bare, 50).as_secs_f64(),
            ));
        }
    }
    Ok(())
}

/// Measures the bare start and the first request in turn; both sorted.
fn interleave(
    platform: &Platform,
    language: &Language,
    arguments: &Arguments,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let pause = Duration::from_millis(arguments.pause);
    let functions = platform.deploy_many(language, arguments.starts + WARM_UP)?;
    let (mut bare, mut first) = (Vec::new(), Vec::new());
    for function in &functions {
        std::thread::sleep(pause / 2);
        bare.push(bare_start(language)?);
        // A connection that is there already, as a client has it.
        let mut connection = function.target().connect()?;
        std::thread::sleep(pause / 2);
        let before = Instant::now();
        connection.request()?;
        first.push(before.elapsed());
    }
    let sorted = |mut all: Vec<Duration>| {
        all.drain(..WARM_UP);
        all.sort_unstable();
        all
    };
    Ok((sorted(bare), sorted(first)))
}

/// How long the interpreter alone takes to start and end.
fn bare_start(language: &Language) -> Result<Duration> {
    let mut command = match language {
        Language::Python { interpreter } => {
            let mut command = Command::new(interpreter);
            command.args(["-I", "-S", "-c", "pass"]);
            command
        }
        Language::Node { interpreter } => {
            let mut command = Command::new(interpreter);
            command.args(["-e", "0"]);
            command
        }
        Language::Compiled => Command::new("/bin/true"),
    };
    let before = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "the bare {} failed", language.name());
    Ok(before.elapsed())
}

/// The latency that so many percent do not exceed.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// The 50th and the 99th percentile in milliseconds.
pub(crate) fn pair(sorted: &[Duration]) -> String {
    let millis = |percent| at(sorted, percent).as_secs_f64() * 1e3;
    format!("{:.2} / {:.2}", millis(50), millis(99))
}
