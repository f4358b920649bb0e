//! The verbs, one file each: an `Args` whose doc comments are the help text, and one `run`.

pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod functions;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod runtimes;
pub(crate) mod serve;
pub(crate) mod usage;

use tokio::runtime::Builder;

use crate::args::{Cli, Command};
use crate::error::{Error, Result};
use crate::output::Output;

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let Cli { output, command } = cli;
    let output = Output { format: output };
    match command {
        Command::Serve(args) => serve::run(args, output),
        Command::Demo(args) => demo::run(&args, output),
        Command::Deploy(args) => on_this_thread(deploy::run(args, output)),
        Command::Invoke(args) => on_this_thread(invoke::run(args, output)),
        Command::Functions(args) => on_this_thread(functions::run(args, output)),
        Command::Logs(args) => on_this_thread(logs::run(args, output)),
        Command::Usage(args) => on_this_thread(usage::run(args, output)),
        Command::Delete(args) => on_this_thread(delete::run(args, output)),
        Command::Env(args) => env::run(&args, output),
        Command::Runtimes(args) => on_this_thread(runtimes::run(args, output)),
        Command::Doctor(args) => on_this_thread(doctor::run(args, output)),
        Command::Completion(args) => completion::run(&args, output),
    }
}

/// Starts threads; a node has given up its privileges before.
fn on_all_cores<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::server("cannot start threads").caused_by(&error))?.block_on(work)
}

fn on_this_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::server("cannot start a timer").caused_by(&error))?.block_on(work)
}
