//! Measures the warm path of a running Lacewing against two floors in the same run: a bare hyper
//! server that answers a constant, and the bare round trip to a process of the function's language.
//! Then what first requests cost, one by one, many at once and restored from snapshots; how many
//! Instances can be made in a second; and what sandboxes cost, in time, and idle ones in memory.
//!
//! It prints ratios, because absolute figures mean little on a shared machine. It never judges: the
//! promises stand in SPECIFICATION.md.

mod burst;
mod churn;
mod cold;
mod cpu;
mod decisions;
mod density;
mod floors;
mod host;
mod http_client;
mod peers;
mod platform;
mod report;
mod restores;
mod samples;
mod sandbox;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Measure the warm path of Lacewing against its floors.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// The program to measure.
    #[arg(long, env = "LACEWING_BIN")]
    binary: Option<PathBuf>,
    /// How often each measurement is repeated; the median is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measure only this language: python, node or compiled.
    #[arg(long)]
    only: Option<String>,
    /// Measure only with this pinning.
    #[arg(long)]
    cpus: Option<cpu::Pinning>,
}

/// The parts that the bench runs as processes of their own.
#[derive(Debug, Subcommand)]
enum Role {
    /// The floor of HTTP: a bare hyper server.
    #[command(hide = true)]
    Hyper,
    /// The floor of a compiled function: a bare loop over a socketpair.
    #[command(hide = true)]
    Child,
    /// The privileged part, as in the server.
    #[command(hide = true, name = "__launcher")]
    Launcher,
    /// First requests to functions of which nothing exists yet.
    Cold(cold::Arguments),
    /// First requests to published versions with SnapStart.
    Restores(restores::Arguments),
    /// Many first requests to one function at the same moment.
    Burst(burst::Arguments),
    /// Instances that are made and retired, as many as go; as root.
    Churn(churn::Arguments),
    /// What many idle Instances hold; as root.
    Density(density::Arguments),
    /// The same function on other programs that `scripts/prepare-peers` has got.
    Peers(peers::Arguments),
    /// What a sandbox costs to make, part by part, and what an idle one holds; as root.
    SandboxCost(sandbox::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let binary = program(&cli);
    let result = match &cli.role {
        Some(Role::Launcher) => return lacewing_sandbox::launcher_main(),
        Some(Role::Hyper) => floors::hyper_server(),
        Some(Role::Child) => floors::compiled_child(),
        Some(Role::Cold(how)) => binary.and_then(|binary| cold::measure(&binary, how)),
        Some(Role::Restores(how)) => binary.and_then(|binary| restores::measure(&binary, how)),
        Some(Role::Burst(how)) => binary.and_then(|binary| burst::measure(&binary, how)),
        Some(Role::Churn(how)) => binary.and_then(|binary| churn::measure(&binary, how)),
        Some(Role::Density(how)) => binary.and_then(|binary| density::measure(&binary, how)),
        Some(Role::Peers(how)) => binary.and_then(|binary| peers::measure(&binary, how)),
        Some(Role::SandboxCost(how)) => sandbox::measure(how),
        None if cli.only.is_some() || cli.cpus.is_some() => {
            binary.and_then(|binary| measure(&binary, &cli))
        }
        None => binary.and_then(|binary| everything(&binary, &cli)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What `make bench` measures, in turn.
fn everything(binary: &Path, cli: &Cli) -> Result<()> {
    measure(binary, cli)?;
    cold::measure(binary, &cold::Arguments::default())?;
    restores::measure(binary, &restores::Arguments::default())?;
    burst::measure(binary, &burst::Arguments::default())?;
    churn::measure(binary, &churn::Arguments::default())?;
    sandbox::measure(&sandbox::Arguments::default())?;
    density::measure(binary, &density::Arguments::default())
}

/// The program to measure.
fn program(cli: &Cli) -> Result<PathBuf> {
    match &cli.binary {
        Some(binary) => Ok(binary.clone()),
        None => Ok(std::env::current_exe()?.with_file_name("lacewing")),
    }
}

/// The directory of what is fetched once.
fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("LACEWING_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/lacewing"));
    cache.or_else(home).context("neither LACEWING_CACHE nor HOME is set")
}

fn measure(binary: &Path, cli: &Cli) -> Result<()> {
    decisions::measure(cli.rounds)?;
    let length = Duration::from_secs_f64(cli.seconds);
    let languages = platform::Language::available();
    let chosen: Vec<_> = languages
        .into_iter()
        .filter(|language| cli.only.as_ref().is_none_or(|only| only == language.name()))
        .collect();
    let pinnings: Vec<_> = cpu::Pinning::ALL
        .into_iter()
        .filter(|way| cli.cpus.is_none_or(|cpus| cpus == *way))
        .collect();
    let rows = u32::try_from(chosen.len() * pinnings.len())?;
    let expected = samples::expected(cli.rounds, length) * rows;
    report::say(&format!("This takes about {:.0} s.", expected.as_secs_f64()));
    for pinning in pinnings {
        report::head(pinning);
        let node = platform::Platform::start(binary, pinning, "")?;
        let http_floor = floors::HttpFloor::start(pinning)?;
        for language in &chosen {
            let function = node.deploy(language)?;
            let pipe = floors::PipeFloor::start(language, pinning)?;
            let result = samples::interleave(&http_floor, pipe, &function, cli.rounds, length)?;
            report::rows(language.name(), &result);
        }
    }
    Ok(())
}
