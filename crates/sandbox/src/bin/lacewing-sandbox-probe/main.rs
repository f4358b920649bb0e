//! For the tests only: a launcher program, and the program that runs inside and tries what it must
//! not be able to do.
//!
//! `__launcher` is the launcher, `__server` a server that a test can kill; any other first argument
//! names an experiment, whose result is printed.

#![expect(clippy::print_stdout, reason = "its output is what the tests read")]

mod experiments;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("__launcher") => lacewing_sandbox::launcher_main(),
        Some("__server") => server::run(arguments),
        Some(experiment) => {
            let arguments: Vec<String> = arguments.collect();
            println!("{}", experiments::run(experiment, &arguments));
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}
