//! `lacewing usage`

use std::collections::BTreeMap;

use lacewing_model::{Clock, SystemClock, Timestamp};
use serde_json::{Map, Value, json};

use crate::args::Remote;
use crate::client::{ADMIN, Call, Client};
use crate::error::{Error, Result};
use crate::lambda;
use crate::output::{Format, Output, table};
use crate::since::Since;

/// Show what invocations cost
///
/// The sums of each function, or with `--records` every invocation; those of deleted functions stay
/// as long as usage is kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// How far back to begin: 10m, 2h, or a moment such as 2026-11-21T08:00:00Z [default: the
    /// beginning]
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// One line for each invocation; with `--output json`, one JSON object a line
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    let mut query = Vec::new();
    if let Some(name) = &args.function {
        lambda::path_of(name)?;
        query.push(format!("function={}", lambda::encode(name)));
    }
    if let Some(since) = args.since {
        query.push(format!("since={}", since.moment(SystemClock.now()).as_millis()));
    }
    let client = Client::find(&args.remote)?;
    if args.records {
        return pages(&client, "usage", query, |page| {
            let records = page["records"].as_array().map(Vec::as_slice).unwrap_or_default();
            records.iter().try_for_each(|record| output.row(record, line))
        })
        .await;
    }
    let mut sums: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    pages(&client, "usage/totals", query, |page| {
        for (name, totals) in page["totals"].as_object().into_iter().flatten() {
            let sum = sums.entry(name.clone()).or_default();
            for (member, value) in totals.as_object().into_iter().flatten() {
                let so_far = sum.get(member).and_then(Value::as_u64).unwrap_or_default();
                let sum_of = so_far.saturating_add(value.as_u64().unwrap_or_default());
                sum.insert(member.clone(), json!(sum_of));
            }
        }
        Ok(())
    })
    .await?;
    if sums.is_empty() && output.format == Format::Text {
        output.note("no usage yet");
    }
    output.show(&sums, |sums| if sums.is_empty() { String::new() } else { text(sums) })
}

/// Asks for one page after the other.
async fn pages(
    client: &Client,
    what: &str,
    mut query: Vec<String>,
    mut take: impl FnMut(&Value) -> Result<()>,
) -> Result<()> {
    let parameters = query.len();
    loop {
        let target = format!("/_lacewing/v1/{what}?{}", query.join("&"));
        let page = client.json(Call::get(ADMIN, &target)).await?;
        take(&page)?;
        match (page["more"].as_bool(), page["cursor"].as_u64()) {
            (Some(false), _) => return Ok(()),
            (Some(true), Some(next)) => {
                query.truncate(parameters);
                query.push(format!("cursor={next}"));
            }
            _ => {
                return Err(Error::server("the server's page of usage does not say where it ends"));
            }
        }
    }
}

fn line(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| record[name].as_u64().unwrap_or_default();
    let at = Timestamp::from_micros(record["at"].as_i64().unwrap_or_default());
    let timeline = &record["timeline"];
    let start = match timeline["cold_start"].as_str() {
        Some(reason) => format!("cold ({reason})"),
        None if record["init_us"].is_null() => "warm".to_owned(),
        None => "cold".to_owned(),
    };
    let parts = ["queued_us", "placed_us", "sandbox_us", "init_us"];
    let waited: u64 = parts.iter().map(|part| timeline[part].as_u64().unwrap_or_default()).sum();
    format!(
        "{at}  {} {} {}  {} {} {start}  {} ms billed after {} ms, {} of {} MB",
        text("function"),
        text("version"),
        text("request_id"),
        text("trigger"),
        text("ending"),
        number("billed_ms"),
        waited.div_ceil(1_000),
        number("max_memory_mb"),
        number("memory_mb"),
    )
}

fn text(sums: &BTreeMap<String, Map<String, Value>>) -> String {
    let rows = sums.iter().map(|(name, sum)| {
        let number = |member: &str| sum.get(member).and_then(Value::as_u64).unwrap_or_default();
        let count = |member: &str| number(member).to_string();
        // Thousandths: a MB for a millisecond is the 1,024,000th part of a GB for a second.
        let thousandths = number("memory_mb_ms") / 1_024;
        [
            name.clone(),
            count("invocations"),
            count("errors"),
            count("cold_starts"),
            format!("{} ms", number("billed_ms")),
            format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000),
            count("bytes_in"),
            count("bytes_out"),
        ]
    });
    let head = [
        "FUNCTION",
        "INVOCATIONS",
        "ERRORS",
        "COLD STARTS",
        "BILLED",
        "GB-SECONDS",
        "BYTES IN",
        "BYTES OUT",
    ];
    table(head, rows.collect())
}
