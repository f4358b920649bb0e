//! `lacewing runtimes`

use serde_json::Value;

use crate::args::Remote;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::output::{Output, table};

/// List the interpreters that the server found
///
/// The custom runtimes provided.al2023 and provided.al2 are always there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    let found = found(&Client::find(&args.remote)?).await?;
    if found.is_empty() {
        output.note("no interpreters found; only custom runtimes can run");
    }
    output.show(&found, |found| text(found))
}

/// Runtime identifiers of the interpreters that the server found, by language and version.
pub(super) async fn offered(client: &Client) -> Result<Vec<String>> {
    let found = found(client).await?;
    Ok(found.iter().filter_map(|one| one["runtime"].as_str()).map(str::to_owned).collect())
}

/// Interpreters as text.
pub(super) fn text(found: &[Value]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let rows = found.iter().map(|one| {
        ["runtime", "version", "path", "origin"]
            .map(|member| one[member].as_str().unwrap_or_default().to_owned())
    });
    table(["RUNTIME", "VERSION", "INTERPRETER", "FOUND IN"], rows.collect())
}

async fn found(client: &Client) -> Result<Vec<Value>> {
    match client.admin("runtimes").await?.get_mut("runtimes").map(Value::take) {
        Some(Value::Array(found)) => Ok(found),
        _ => Err(Error::server("the server's list of runtimes cannot be understood")),
    }
}
