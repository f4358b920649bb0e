//! `lacewing functions`

use serde_json::Value;

use crate::args::Remote;
use crate::client::Client;
use crate::error::Result;
use crate::output::{Output, table};

/// List the functions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    let functions = Client::find(&args.remote)?.functions().await?;
    if functions.is_empty() {
        output.note("no functions; `lacewing deploy` makes one");
    }
    output.show(
        &functions,
        |functions| {
            if functions.is_empty() { String::new() } else { text(functions) }
        },
    )
}

fn text(functions: &[Value]) -> String {
    let rows = functions.iter().map(|function| {
        let member = |name: &str| function[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| function[name].as_u64().unwrap_or_default();
        let state = match function["State"].as_str() {
            Some(state) => state.to_owned(),
            None => "Active".to_owned(),
        };
        [
            member("FunctionName"),
            member("Runtime"),
            member("Handler"),
            format!("{} MB", number("MemorySize")),
            format!("{} s", number("Timeout")),
            state,
            member("LastModified"),
        ]
    });
    let head = ["NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "STATE", "LAST MODIFIED"];
    table(head, rows.collect())
}
