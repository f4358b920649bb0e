//! Many first requests at the same moment: to one function of which nothing runs, and each of which
//! keeps its Instance busy for a while. What counts is when the last one is answered.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::cpu::Pinning;
use crate::http_client::burst;
use crate::platform::{Language, Platform};
use crate::report::say;

/// How long a handler keeps its Instance, in milliseconds.
const BUSY_MS: u32 = 100;

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Requests at the same moment.
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// Bursts, each to another function.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { requests: 100, rounds: 5 }
    }
}

/// Measures and prints a table.
pub(crate) fn measure(binary: &Path, arguments: &Arguments) -> Result<()> {
    say(&format!(
        "\n{} first requests at the same moment, {BUSY_MS} ms in the handler (ms; {} bursts)",
        arguments.requests, arguments.rounds
    ));
    let [name, first, middle, last, worst] = ["function", "first", "half", "last", "worst last"];
    say(&format!(
        "{name:<10} {first:>9} {middle:>9} {last:>9} {worst:>11}  (medians, but for the last column)"
    ));
    for language in Language::available() {
        let Some(source) = busy(&language) else { continue };
        // What was started for one burst is gone before the next.
        let configuration = "isolation = 'required'\n[limits]\nkeep_alive = '1s'\n";
        let platform = Platform::start(binary, Pinning::Free, configuration)?;
        // The first one finds cold caches, and is not counted.
        let functions = platform.deploy_code("busy", &language, &source, arguments.rounds + 1)?;
        let mut rounds = Vec::new();
        for function in &functions {
            platform.settle(|idle| idle == 0)?;
            let mut answers = burst(function.target(), arguments.requests)?;
            answers.sort_unstable();
            let at = |place: usize| answers.get(place).copied().context("one request at least");
            rounds.push([at(0)?, at(answers.len() / 2)?, at(answers.len() - 1)?]);
        }
        rounds.remove(0);
        let [first, middle, last] = [0, 1, 2].map(|column| {
            let mut all: Vec<Duration> = rounds.iter().map(|round| round[column]).collect();
            all.sort_unstable();
            all
        });
        let millis =
            |duration: Option<&Duration>| duration.map_or(0.0, Duration::as_secs_f64) * 1e3;
        let median = |all: &[Duration]| millis(all.get(all.len() / 2));
        say(&format!(
            "{:<10} {:>9.0} {:>9.0} {:>9.0} {:>11.0}",
            language.name(),
            median(&first),
            median(&middle),
            median(&last),
            millis(last.last()),
        ));
    }
    Ok(())
}

/// A function that keeps its Instance busy.
fn busy(language: &Language) -> Option<String> {
    match language {
        Language::Python { .. } => Some(format!(
            "import time\n\ndef handler(event, context):\n    time.sleep({BUSY_MS} / 1000)\n"
        )),
        Language::Node { .. } => Some(format!(
            "exports.handler = () => new Promise((done) => setTimeout(done, {BUSY_MS}));\n"
        )),
        Language::Compiled => None,
    }
}
