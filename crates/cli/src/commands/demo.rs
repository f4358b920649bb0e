//! `lacewing demo`

mod elf;
mod report;
mod sample;

use std::path::Path;
use std::time::Duration;

use lacewing_node::telemetry::{self, LogFormat};
use lacewing_node::{Config, Keep, Node, Prepared, Settings, config::Isolation};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use self::report::Report;
use self::sample::Sample;
use crate::args::Remote;
use crate::client::Client;
use crate::commands::serve::{self, Caught};
use crate::commands::{on_all_cores, on_this_thread};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::lambda::InvokeOptions;
use crate::output::{Format, Output, table};
use crate::scratch::Scratch;

/// Warm invocations of each function.
const WARM: usize = 20;
const EVENT: &[u8] = br#"{"name":"Lambda"}"#;

/// Show on this machine, in a minute, what Lacewing does
///
/// Starts a server in a temporary directory on a free port, deploys a Python, a Node and a compiled
/// function, invokes each of them cold and warm through the public API, and removes everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the server running, and say how to talk to it
    #[arg(long)]
    keep: bool,
}

/// How one function did.
#[derive(Debug, Serialize)]
struct Row {
    function: &'static str,
    runtime: String,
    cold: Call,
    warm: Call,
    answer: String,
}

#[derive(Debug, Serialize)]
struct Call {
    latency_us: u64,
    report: Report,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<()> {
    telemetry::install(LogFormat::Text, "warn").map_err(|error| Error::usage(error.to_string()))?;
    // Before there is anything that a signal could leave behind.
    let signals = on_this_thread(async { Caught::now() })?;
    let scratch = Scratch::new("demo")
        .map_err(|error| Error::server("cannot make a temporary directory").caused_by(&error))?;
    let config = Config {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(scratch.path().join("data")),
        isolation: Some(Isolation::BestEffort),
        ..Config::default()
    };
    let settings = Settings::check(&config).map_err(|error| Error::bug(error.to_string()))?;
    let exe = serve::this_program()?;
    let packed = Sample::ALL.into_iter().map(|sample| Ok((sample, sample.zip(&exe)?)));
    let packed: Vec<_> = packed.collect::<Result<_>>()?;
    let clearable = scratch.path().parent().map(Path::to_owned).into_iter().collect();
    let own = Keep { writable: vec![scratch.path().to_owned()], clearable, ..Keep::default() };
    let prepared = Prepared::new(settings, &exe, own);
    let prepared = prepared.map_err(|error| serve::start_failed(&error))?;
    let shown = on_all_cores(present(prepared, signals, packed, args.keep, output));
    drop(scratch);
    shown
}

/// Each sample with its archive.
type Packed = Vec<(Sample, Vec<u8>)>;

async fn present(
    prepared: Prepared,
    signals: Caught,
    packed: Packed,
    keep: bool,
    output: Output,
) -> Result<()> {
    let signals = signals.listen();
    let node = Node::start(prepared).await.map_err(|error| serve::start_failed(&error))?;
    let shown = tokio::select! {
        shown = show(&node, packed, keep, output) => shown,
        fault = node.run(&signals.stop) => match fault {
            Ok(()) => Err(Error::user("interrupted")),
            Err(fault) => Err(Error::server("the server stopped").caused_by(&fault)),
        },
    };
    if shown.is_ok() && keep {
        say_how_to_talk(&node, output)?;
        let ran = node.run(&signals.stop).await;
        ran.map_err(|fault| Error::server("the server stopped").caused_by(&fault))?;
    }
    node.shutdown().await;
    shown
}

async fn show(node: &Node, packed: Packed, keep: bool, output: Output) -> Result<()> {
    let ready = node.ready();
    let client = client_of(node)?;
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for (sample, zip) in packed {
        let Some(runtime) = sample.runtime(&ready.runtimes) else {
            output.note(&format!("skipped {}: {}", sample.name(), sample.missing()));
            skipped.push(json!({ "function": sample.name(), "reason": sample.missing() }));
            continue;
        };
        let spinner = output.spinner(format!("{} on {runtime}", sample.name()));
        rows.push(try_out(&client, sample, zip, runtime).await?);
        spinner.finish_and_clear();
    }
    if !keep {
        for row in &rows {
            client.delete_function(row.function).await?;
        }
    }
    let document = json!({
        "isolation_is_full": ready.isolation_is_full,
        "lacks": ready.lacks,
        "without": ready.without,
        "functions": rows,
        "skipped": skipped,
    });
    let isolation = serve::isolation(ready);
    output.show(&document, |_| format!("{}\n\nisolation: {isolation}", text(&rows)))
}

/// A client with the key of the node's own data directory.
fn client_of(node: &Node) -> Result<Client> {
    let remote = Remote { data_dir: Some(node.ready().data_dir.clone()), ..Remote::default() };
    Client::new(Connection::find(&remote, &|_| None)?)
}

/// Deploys a function and invokes it cold and warm.
async fn try_out(client: &Client, sample: Sample, zip: Vec<u8>, runtime: String) -> Result<Row> {
    let name = sample.name();
    let info = client.admin("info").await?;
    let account = info["account"].as_str().unwrap_or_default();
    let settings = json!({
        "FunctionName": name,
        "Runtime": runtime,
        "Handler": sample.handler(),
        "Role": format!("arn:aws:iam::{account}:role/lambda"),
        "MemorySize": 256,
        "Timeout": 10,
    });
    let hidden = |_| indicatif::ProgressBar::hidden();
    client.create_function(settings, &zip, hidden).await?;
    client.settled(name).await?;
    let (cold, answer) = call(client, name).await?;
    let mut warm = Vec::with_capacity(WARM);
    for _ in 0..WARM {
        warm.push(call(client, name).await?.0);
    }
    warm.sort_by_key(|call| call.latency_us);
    let warm = warm.swap_remove(WARM / 2);
    Ok(Row { function: name, runtime, cold, warm, answer })
}

async fn call(client: &Client, name: &str) -> Result<(Call, String)> {
    let options =
        InvokeOptions { qualifier: None, is_async: false, wants_log: true, wants_timeline: false };
    let started = Instant::now();
    let invoked = client.invoke(name, EVENT.into(), options).await?;
    let latency = started.elapsed();
    let answer = String::from_utf8_lossy(&invoked.payload).into_owned();
    if let Some(kind) = invoked.function_error {
        return Err(Error::server(format!("{name} failed ({kind}): {answer}"))
            .hint("`lacewing doctor` says what this host lacks"));
    }
    let report = invoked
        .log
        .as_deref()
        .and_then(Report::find)
        .ok_or_else(|| Error::server(format!("the log of {name} has no REPORT line")))?;
    Ok((Call { latency_us: micros(latency), report }, answer))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn text(rows: &[Row]) -> String {
    let field = |field: &Option<String>| field.clone().unwrap_or_else(|| "-".to_owned());
    // Without a cgroup there is nothing to measure it with.
    let memory = |memory: &Option<String>| match memory.as_deref() {
        Some("0 MB") => "-".to_owned(),
        _ => field(memory),
    };
    let millis = |micros: u64| format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10);
    let cells = rows.iter().flat_map(|row| {
        let line = |start: &str, call: &Call| {
            [
                row.function.to_owned(),
                row.runtime.clone(),
                start.to_owned(),
                millis(call.latency_us),
                field(&call.report.init),
                field(&call.report.duration),
                field(&call.report.billed),
                memory(&call.report.memory),
            ]
        };
        [line("cold", &row.cold), line("warm", &row.warm)]
    });
    let head = ["FUNCTION", "RUNTIME", "START", "LATENCY", "INIT", "DURATION", "BILLED", "MEMORY"];
    let answers: Vec<String> =
        rows.iter().map(|row| format!("{}: {}", row.function, row.answer)).collect();
    format!("{}\n\n{}", table(head, cells.collect()), answers.join("\n"))
}

fn say_how_to_talk(node: &Node, output: Output) -> Result<()> {
    let (address, dir) = (node.ready().address, node.ready().data_dir.display());
    if output.format == Format::Json {
        let endpoint = format!("http://{address}");
        return output
            .row(&json!({ "endpoint": endpoint, "data_dir": dir.to_string() }), |_| String::new());
    }
    output.line(&format!(
        "\nthe server stays at http://{address}; in another terminal:\n\
         \n  eval \"$(lacewing env --data-dir {dir})\"\
         \n  lacewing invoke hello-python --payload '{{\"name\":\"you\"}}' --log\
         \n  aws lambda list-functions\n\
         \nCtrl-C stops it and removes everything."
    ))
}
