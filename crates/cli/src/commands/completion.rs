//! `lacewing completion`

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::error::Result;
use crate::output::Output;

/// Print the completion script of a shell
///
/// For example: `lacewing completion bash > /etc/bash_completion.d/lacewing`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "lacewing", &mut script);
    output.bytes(&script)
}
