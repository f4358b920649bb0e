//! Development tasks: `cargo xtask ci | soak | vm | bench | bench-peers | simulate | fuzz | tidy | codegen`.
//!
//! Each task is one file. Nothing here is part of the product.

mod ci;
mod codegen;
mod fuzz;
mod process;
mod skips;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Development tasks of Lacewing")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything a change must pass: format, lints, tidy, all tests.
    Ci,
    /// The long forms of the crash and soak tests.
    Soak,
    /// The suites of the sandbox on a host with cgroup v2 only, in a virtual machine.
    Vm(vm::Args),
    /// Measure the promises of SPECIFICATION.md.
    Bench,
    /// Measure other programs that run such functions, and this one beside them.
    BenchPeers,
    /// Run the fuzzers for a bounded time.
    Fuzz(fuzz::Args),
    /// Play a synthetic day through the pool under several policies.
    Simulate {
        /// Arguments of the simulator; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The house rules that no compiler checks.
    Tidy,
    /// Generate Rust tables from the public API model.
    Codegen(codegen::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci => ci::run(),
        Task::Soak => ci::soak(),
        Task::Vm(args) => vm::run(&args),
        Task::Bench => ci::bench(),
        Task::BenchPeers => ci::bench_peers(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Simulate { arguments } => ci::simulate(&arguments),
        Task::Tidy => tidy::run(),
        Task::Codegen(args) => codegen::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
