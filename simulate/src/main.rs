//! Plays a synthetic day of arrivals through the pool's own core, once for each judgement of what
//! is worth keeping, and prints what each costs and saves.
//!
//! It measures decisions, not Instances: nothing is started. As many days are played at a time as there
//! are processors; one of 100,000 functions has some hundred million decisions for each judgement.

mod policies;
mod rng;
mod workload;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use lacewing_invoke::pool::core::{Adaptive, Core, Keep};
use lacewing_model::ByteSize;

use crate::policies::{Fixed, GreedyDual, Hybrid};
use crate::world::{Figures, config};

/// Compare how long Instances are kept, on a synthetic day.
#[derive(Clone, Debug, Parser)]
struct Cli {
    /// How many functions there are.
    #[arg(long, default_value_t = 100_000)]
    functions: usize,
    /// How many hours are played.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// How many days are drawn.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
}

/// The figures of one day under each judgement.
#[derive(Debug)]
struct Day {
    fixed: Figures,
    hybrid: Figures,
    ours: Figures,
    /// Ours with as much idle memory as the hybrid histogram took.
    richer: Figures,
}

const FIXED: Duration = Duration::from_secs(600);
const UNBOUNDED: ByteSize = ByteSize::bytes(u64::MAX);

fn main() -> ExitCode {
    match play_all(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn play_all(cli: &Cli) -> Result<()> {
    say(&format!("{} functions, {} hours, {} days", cli.functions, cli.hours, cli.seeds));
    say(HEAD);
    let (next, began) = (AtomicU64::new(cli.first), Instant::now());
    let some_days = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= cli.first + cli.seeds {
            return Ok(());
        }
        play(cli, seed)?;
    };
    let threads = thread::available_parallelism()?.get().min(usize::try_from(cli.seeds)?);
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(some_days)).collect();
        let ended = |day: thread::ScopedJoinHandle<'_, Result<()>>| {
            day.join().map_err(|_| anyhow!("a day ended in a panic"))?
        };
        all.into_iter().try_for_each(ended)
    })?;
    say(&format!("{:.0} s, at most {} MB", began.elapsed().as_secs_f64(), most_memory_mb()?));
    Ok(())
}

fn play(cli: &Cli, seed: u64) -> Result<()> {
    let day = Day::play(cli, seed)?;
    say(&format!(
        "{seed:>4}  ours has {:.3} of the cold starts of fixed with {:.3} of its idle memory, \
         {:.3} of those of hybrid with {:.3}",
        day.ours.cold_share() / day.fixed.cold_share(),
        day.ours.wasted / day.fixed.wasted,
        day.richer.cold_share() / day.hybrid.cold_share(),
        day.richer.wasted / day.hybrid.wasted,
    ));
    Ok(())
}

/// The most memory that this process had.
fn most_memory_mb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    Ok(kib.parse::<u64>()? / 1024)
}

impl Day {
    fn play(cli: &Cli, seed: u64) -> Result<Self> {
        let fixed = one("fixed, 10 minutes", cli, seed, Fixed(FIXED), UNBOUNDED)?;
        let hybrid = one("hybrid histogram", cli, seed, Hybrid, UNBOUNDED)?;
        // Its only bound is memory: as much as the fixed keep-alive took on average.
        let memory = ByteSize::bytes(Duration::from_secs_f64(fixed.memory).as_secs());
        one("greedy-dual", cli, seed, GreedyDual, memory)?;
        let ours = one("ours", cli, seed, Adaptive::new(FIXED), UNBOUNDED)?;
        let richer = Adaptive::new(FIXED).times(hybrid.wasted / fixed.wasted);
        let richer = one("ours, as hybrid", cli, seed, richer, UNBOUNDED)?;
        Ok(Self { fixed, hybrid, ours, richer })
    }
}

const HEAD: &str = "seed  policy              calls      cold   share   queued  refused     starts  \
    idle GB*h  wait p50  p99 ms  decisions/s";

fn one<K: Keep>(name: &str, cli: &Cli, seed: u64, keep: K, memory: ByteSize) -> Result<Figures> {
    let mut callers = workload::functions(seed, cli.functions)?;
    let core = Core::with(config(memory), keep);
    let figures = world::run(core, &mut callers, seed, cli.hours);
    say(&format!(
        "{seed:>4}  {name:<17} {:>9} {:>9} {:>6.3}% {:>8} {:>8} {:>10} {:>10.1} {:>9} {:>7} {:>12.0}",
        figures.calls,
        figures.cold,
        figures.cold_share() * 100.0,
        figures.queued,
        figures.refused,
        figures.starts,
        figures.wasted,
        figures.wait(0.5),
        figures.wait(0.99),
        figures.rate(),
    ));
    Ok(figures)
}

#[expect(clippy::print_stdout, reason = "a development tool talks to its terminal")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests;
