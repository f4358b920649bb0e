//! `lacewing delete`

use serde_json::json;

use crate::args::Global;
use crate::client::Client;
use crate::error::Result;
use crate::output::Output;

/// Delete a function
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ARN of the function
    name: String,
}

pub(crate) async fn run(args: Args, global: &Global, output: Output) -> Result<()> {
    Client::find(global)?.delete_function(&args.name).await?;
    let name = args.name;
    output.show(&json!({ "deleted": name }), |_| format!("deleted {name}"))
}
