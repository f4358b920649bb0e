//! The binary `lacewing`.
//!
//! It is three programs. As `lacewing __launcher` it is the small privileged process that makes
//! sandboxes: that is decided before any runtime, logger or thread exists. As a function's
//! `bootstrap` it is the compiled function of `lacewing demo`. Else it is the command line.
//!
//! Only this crate prints, and only this crate sees the terminal and the environment.

mod args;
mod client;
mod commands;
mod connection;
mod error;
mod example;
mod lambda;
mod output;
mod project;
#[cfg(test)]
mod reference;
mod scratch;
mod since;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

use crate::args::Cli;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "__launcher") {
        return lacewing_sandbox::launcher_main();
    }
    if example::is_wanted() {
        return example::main();
    }
    match commands::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.category.exit_code())
        }
    }
}
