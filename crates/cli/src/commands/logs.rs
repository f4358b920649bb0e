//! `lacewing logs`

use lacewing_model::{Clock, SystemClock, Timestamp};
use serde_json::Value;

use crate::args::Remote;
use crate::client::{ADMIN, Call, Client};
use crate::error::{Error, Result};
use crate::lambda;
use crate::output::{Format, Output};
use crate::since::Since;

/// Seconds that the server may wait for the next event.
const WAIT: u64 = 20;

/// Print what a function wrote
///
/// With `--output json`, one JSON object a line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ARN of the function
    name: String,
    /// Wait for more
    #[arg(long, short)]
    follow: bool,
    /// How far back to begin: 10m, 2h, or a moment such as 2026-11-21T08:00:00Z [default: the
    /// beginning; with --follow: now]
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    lambda::path_of(&args.name)?;
    let client = Client::find(&args.remote)?;
    let now = SystemClock.now();
    let since = match args.since {
        None => args.follow.then_some(now),
        Some(since) => Some(since.moment(now)),
    };
    let mut position = since.map(|since| format!("&since={}", since.as_millis()));
    loop {
        let wait = if args.follow { WAIT } else { 0 };
        let target = format!(
            "/_lacewing/v1/functions/{}/logs?wait={wait}{}",
            lambda::encode(&args.name),
            position.as_deref().unwrap_or_default()
        );
        let page = client.json(Call::get(ADMIN, &target)).await?;
        let events = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        for event in events {
            print(event, output)?;
        }
        if events.is_empty() && !args.follow {
            return Ok(());
        }
        let cursor = page["cursor"].as_str().ok_or_else(|| {
            Error::server("the server's page of log events does not say where it ends")
        })?;
        position = Some(format!("&cursor={}", lambda::encode(cursor)));
    }
}

fn print(event: &Value, output: Output) -> Result<()> {
    let text = event["text"].as_str().unwrap_or_default();
    if output.format == Format::Json {
        return output.row(event, |_| String::new());
    }
    let at = Timestamp::from_micros(event["at"].as_i64().unwrap_or_default());
    output.line(&format!("{at}  {}", text.trim_end()))
}
