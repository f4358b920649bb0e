//! Instances that are made and retired, one after the other and as many as go: each call is of the
//! function that was called longest ago, of which nothing runs any more as there is room for few.
//!
//! The processor time of a start counts whatever else the machine does; the rate does.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::cpu::Pinning;
use crate::host::{Parts, Time};
use crate::platform::{Function, Language, Platform};
use crate::report::say;

/// Instances that may be there at a time.
const ROOM: usize = 16;
/// Functions for each of them, so that none is called again while its Instance is there.
const OTHERS: usize = 8;
/// Usage records are counted once a second.
const COUNTED: Duration = Duration::from_millis(2_500);

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds.
    #[arg(long, default_value_t = 12.0)]
    seconds: f64,
    /// Callers at a time.
    #[arg(long, default_value_t = 8)]
    callers: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { seconds: 12.0, callers: 8 }
    }
}

/// Measures and prints.
pub(crate) fn measure(binary: &Path, arguments: &Arguments) -> Result<()> {
    let length = Duration::from_secs_f64(arguments.seconds);
    say(&format!(
        "\nInstances made and retired, full isolation, {} callers, {:.0} s after a warm-up",
        arguments.callers, arguments.seconds
    ));
    let head = ["starts/s", "a core", "server", "launcher", "sandbox", "whole host"];
    let [rate, core, server, launcher, sandbox, host] = head;
    say(&format!(
        "{:<10} {rate:>9} {core:>8} {server:>10} {launcher:>10} {sandbox:>10} {host:>11}  \
         (processor ms of a start)",
        "function"
    ));
    for language in Language::available() {
        let text = format!("isolation = 'required'\n[limits]\ninstances = {ROOM}\n");
        let platform = Platform::start(binary, Pinning::Free, &text)?;
        let functions = platform.deploy_many(&language, ROOM * OTHERS)?;
        let next = AtomicUsize::new(0);
        call(&functions, &next, arguments.callers, length / 6)?;
        std::thread::sleep(COUNTED);
        let started = || platform.metric("lacewing_cold_starts_total", "");
        let parts = Parts::of(platform.pid(), &platform.data())?;
        let (before, cold) = (parts.time()?, started()?);
        let began = Instant::now();
        let calls = call(&functions, &next, arguments.callers, length)?;
        let (took, after) = (began.elapsed(), parts.time()?);
        std::thread::sleep(COUNTED);
        let starts = u32::try_from(started()? - cold)?;
        ensure!(starts * 10 > calls * 9, "of {calls} calls only {starts} were first ones");
        row(language.name(), starts, took, &before, &after);
    }
    Ok(())
}

/// Calls one function after the other for a while, and gives how often.
fn call(
    functions: &[Function],
    next: &AtomicUsize,
    callers: usize,
    length: Duration,
) -> Result<u32> {
    let until = Instant::now() + length;
    let one = || {
        let mut calls = 0;
        while Instant::now() < until {
            let number = next.fetch_add(1, Ordering::Relaxed);
            functions[number % functions.len()].target().connect()?.request()?;
            calls += 1;
        }
        Ok(calls)
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..callers).map(|_| scope.spawn(one)).collect();
        let ended = |caller: std::thread::ScopedJoinHandle<'_, Result<u32>>| {
            caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?
        };
        all.into_iter().map(ended).sum()
    })
}

fn row(name: &str, starts: u32, took: Duration, before: &Time, after: &Time) {
    let starts = f64::from(starts);
    let rate = starts / took.as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
    let each = |of: fn(&Time) -> Duration| {
        (of(after).saturating_sub(of(before))).as_secs_f64() * 1e3 / starts
    };
    say(&format!(
        "{name:<10} {rate:>9.0} {:>8.0} {:>10.2} {:>10.2} {:>10.2} {:>11.2}",
        rate / cores,
        each(|time| time.server),
        each(|time| time.launcher),
        each(|time| time.sandboxes),
        each(|time| time.host),
    ));
}
