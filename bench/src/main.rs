//! Measures the warm path of a running Lacewing against two floors in the same run: a bare hyper
//! server that answers a constant, and the bare round trip to a process of the function's language.
//!
//! It prints ratios, because absolute figures mean little on a shared machine. It never judges: the
//! promises stand in SPECIFICATION.md.

mod cpu;
mod floors;
mod http_client;
mod platform;
mod report;
mod samples;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        Some(Role::Hyper) => floors::hyper_server(),
        Some(Role::Child) => floors::compiled_child(),
        None => measure(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<()> {
    let binary = match &cli.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("lacewing"),
    };
    let length = Duration::from_secs_f64(cli.seconds);
    let languages = platform::Language::available();
    let chosen: Vec<_> = languages
        .into_iter()
        .filter(|language| cli.only.as_ref().is_none_or(|only| only == language.name()))
        .collect();
    for pinning in cpu::Pinning::ALL {
        report::head(pinning);
        let node = platform::Platform::start(&binary, pinning)?;
        let http_floor = floors::HttpFloor::start(pinning)?;
        for language in &chosen {
            let function = node.deploy(language)?;
            let pipe = floors::PipeFloor::start(language, pinning)?;
            let result = samples::interleave(&http_floor, pipe, &function, cli.rounds, length)?;
            report::row(language.name(), &result);
        }
    }
    Ok(())
}
