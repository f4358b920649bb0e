//! The command line: one subcommand for each verb, and the options that several of them share.
//!
//! The doc comments here and in `commands` are the help texts; `docs/cli.md` is made of them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    completion, delete, demo, deploy, doctor, env, functions, invoke, logs, runtimes, serve, usage,
};
use crate::output::Format;

/// Runs AWS Lambda functions on this machine.
///
/// Exit codes: 0 done; 1 the request cannot be done as it was made; 2 the command line or the
/// configuration is wrong; 3 the server cannot be reached, cannot start or failed; 4 the invoked
/// function itself failed; 70 a bug of Lacewing.
#[derive(Debug, Parser)]
#[command(name = "lacewing", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    #[arg(help_heading = "Options of every command")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which server to talk to, and with which key: options of the verbs that are clients.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Server and key")]
pub(crate) struct Remote {
    /// URL of the server [else: AWS_ENDPOINT_URL_LAMBDA, AWS_ENDPOINT_URL, the data directory's]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Region to sign for [else: AWS_REGION, AWS_DEFAULT_REGION, the credentials file's]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Profile of the credentials file [else: AWS_PROFILE]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The server's directory [else: LACEWING_DATA_DIR, $XDG_DATA_HOME/lacewing, for root
    /// /var/lib/lacewing, for others ~/.local/share/lacewing]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Deploy(deploy::Args),
    Invoke(invoke::Args),
    Functions(functions::Args),
    Logs(logs::Args),
    Usage(usage::Args),
    Delete(delete::Args),
    Env(env::Args),
    Runtimes(runtimes::Args),
    Doctor(doctor::Args),
    Completion(completion::Args),
}
