//! `lacewing invoke`

mod stream;
mod timeline;

use std::io::Read;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::args::Remote;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::lambda::{InvokeOptions, Invoked};
use crate::output::{Format, Output};

/// Invoke a function and print what it returns
///
/// The payload goes to stdout, all else to stderr. The exit code is 4 when the function itself failed:
/// an error that it raised or reported, a timeout, a crash or too much memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ARN of the function
    name: String,
    /// The event: JSON, @FILE, or - for stdin
    #[arg(long, short, value_name = "JSON")]
    payload: Option<String>,
    /// Version or alias to invoke
    #[arg(long, value_name = "QUALIFIER")]
    qualifier: Option<String>,
    /// Print the end of the invocation's log to stderr
    #[arg(long)]
    log: bool,
    /// Print to stderr where the time went, and why the call was a cold start
    #[arg(long)]
    timeline: bool,
    /// Leave the event with the server and do not wait for the answer
    #[arg(long = "async", conflicts_with_all = ["log", "timeline"])]
    is_async: bool,
    /// Print the payload's bytes as they came, without a line feed
    #[arg(long)]
    raw: bool,
    /// Print the pieces of a streamed response as they come, with --output json one document a line
    #[arg(long, conflicts_with = "is_async")]
    stream: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<()> {
    let payload = payload(args.payload.as_deref())?;
    let options = InvokeOptions {
        qualifier: args.qualifier.as_deref(),
        is_async: args.is_async,
        wants_log: args.log,
        wants_timeline: args.timeline,
    };
    if args.stream {
        return stream::run(&args, payload, options, output).await;
    }
    let invoked = Client::find(&args.remote)?.invoke(&args.name, payload, options).await?;
    print(&args, &invoked, output)?;
    match &invoked.function_error {
        None => Ok(()),
        Some(kind) => Err(failed(kind, &args)),
    }
}

fn failed(kind: &str, args: &Args) -> Error {
    Error::function(format!("the function failed ({kind})"))
        .hint(format!("`lacewing logs {}` shows what it wrote", args.name))
}

fn print(args: &Args, invoked: &Invoked, output: Output) -> Result<()> {
    if let (Some(log), Format::Text) = (&invoked.log, output.format) {
        output.note(log.trim_end());
    }
    if let (Some(timeline), Format::Text) = (&invoked.timeline, output.format) {
        output.note(&timeline::text(timeline));
    }
    match output.format {
        Format::Json => output.show(&document(invoked), |_| String::new()),
        Format::Text if args.is_async => {
            output.line(&format!("accepted {}", invoked.request_id.as_deref().unwrap_or_default()))
        }
        Format::Text if args.raw => output.bytes(&invoked.payload),
        Format::Text => output.line(&String::from_utf8_lossy(&invoked.payload)),
    }
}

fn document(invoked: &Invoked) -> Value {
    let text = || Value::from(String::from_utf8_lossy(&invoked.payload).into_owned());
    let payload = if invoked.payload.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&invoked.payload).unwrap_or_else(|_| text())
    };
    let mut document = json!({
        "statusCode": invoked.status.as_u16(),
        "requestId": invoked.request_id,
        "executedVersion": invoked.executed_version,
        "functionError": invoked.function_error,
        "log": invoked.log,
        "payload": payload,
    });
    if let Some(timeline) = &invoked.timeline {
        document["timeline"] = timeline.clone();
    }
    document
}

fn payload(argument: Option<&str>) -> Result<Bytes> {
    let bytes = match argument {
        None => return Ok(Bytes::new()),
        Some("-") => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            read.map_err(|error| {
                Error::user("cannot read stdin")
                    .caused_by(&error)
                    .hint("--payload takes text or @FILE")
            })?;
            bytes
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read(file).map_err(|error| {
                Error::user(format!("cannot read {file}"))
                    .caused_by(&error)
                    .hint("behind an @ is the file of the payload; without one it is the payload")
            })?,
            None => text.as_bytes().to_vec(),
        },
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).map_err(|error| {
        Error::user("the payload is no JSON")
            .caused_by(&error)
            .hint("a string needs its quotes: --payload '\"text\"'")
    })?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_from_the_line_or_a_file() {
        assert_eq!(payload(Some("{\"a\":1}")).unwrap(), "{\"a\":1}");
        assert_eq!(payload(None).unwrap(), "");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(payload(Some(&format!("@{}", file.path().display()))).unwrap(), "[1]");
        let error = payload(Some("{name: x}")).unwrap_err();
        assert_eq!((error.category.exit_code(), error.hints.len()), (1, 1));
        assert!(payload(Some("@/does/not/exist")).is_err());
    }
}
