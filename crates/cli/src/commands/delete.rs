//! `lacewing delete`

use serde_json::json;

use crate::args::Remote;
use crate::client::Client;
use crate::error::Result;
use crate::output::Output;

/// Delete a function
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ARN of the function
    name: String,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    Client::find(&args.remote)?.delete_function(&args.name).await?;
    let name = args.name;
    output.show(&json!({ "deleted": name }), |_| format!("deleted {name}"))
}
