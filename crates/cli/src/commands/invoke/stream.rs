//! `lacewing invoke --stream`

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Args, failed, timeline};
use crate::client::{Client, Events};
use crate::error::{Error, Result};
use crate::lambda::{self, InvokeOptions, log_text};
use crate::output::{Format, Output};

/// How an answer ended.
#[derive(Debug, Default)]
struct End {
    error: Option<String>,
    details: Option<Value>,
    log: Option<String>,
    timeline: Option<Value>,
}

pub(super) async fn run(
    args: &Args,
    payload: Bytes,
    options: InvokeOptions<'_>,
    output: Output,
) -> Result<()> {
    let mut events = Client::find(&args.remote)?.stream(&args.name, payload, options).await?;
    let mut ends_line = true;
    let end = loop {
        let Some(event) = events.next().await? else {
            return Err(Error::server("the server's answer broke off"));
        };
        match (event.message_type.as_str(), event.event_type.as_str()) {
            ("event", "PayloadChunk") => {
                ends_line = event.payload.ends_with(b"\n");
                match output.format {
                    Format::Json => output.row(&piece(&event.payload), |_| String::new())?,
                    Format::Text => output.piece(&event.payload)?,
                }
            }
            ("event", "InvokeComplete") => break end(&event.payload)?,
            ("event", _) => {}
            (_, name) => return Err(Error::server(format!("the server failed ({name})"))),
        }
    };
    show_end(args, &events, &end, ends_line, output)?;
    match &end.error {
        None => Ok(()),
        Some(kind) => Err(failed(kind, args)),
    }
}

fn show_end(
    args: &Args,
    events: &Events,
    end: &End,
    ends_line: bool,
    output: Output,
) -> Result<()> {
    if output.format == Format::Json {
        let mut last = json!({
            "statusCode": events.status.as_u16(),
            "requestId": events.header("x-amzn-requestid"),
            "executedVersion": events.header("x-amz-executed-version"),
            "contentType": events.header("x-amzn-remapped-content-type"),
            "functionError": end.error,
            "errorDetails": end.details,
            "log": end.log,
        });
        if let Some(timeline) = &end.timeline {
            last["timeline"] = timeline.clone();
        }
        return output.row(&last, |_| String::new());
    }
    if !ends_line && !args.raw {
        output.piece(b"\n")?;
    }
    if let Some(log) = &end.log {
        output.note(log.trim_end());
    }
    if let Some(timeline) = &end.timeline {
        output.note(&timeline::text(timeline));
    }
    if let Some(details) = &end.details {
        output.note(&details.as_str().map_or_else(|| details.to_string(), str::to_owned));
    }
    Ok(())
}

/// A piece as JSON: text if it is text.
fn piece(payload: &[u8]) -> Value {
    match str::from_utf8(payload) {
        Ok(text) => json!({ "payload": text }),
        Err(_) => json!({ "payloadBase64": STANDARD.encode(payload) }),
    }
}

fn end(document: &[u8]) -> Result<End> {
    let document: Value = serde_json::from_slice(document)
        .map_err(|error| Error::server("the end of the answer is no JSON").caused_by(&error))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let details = text("ErrorDetails");
    Ok(End {
        error: text("ErrorCode"),
        details: details.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| text.into())),
        log: text("LogResult").as_deref().map(log_text).transpose()?,
        timeline: text("LacewingTimeline").as_deref().map(lambda::timeline).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_is_no_text_is_base64() {
        assert_eq!(piece(b"text"), json!({ "payload": "text" }));
        assert_eq!(piece(&[0xff]), json!({ "payloadBase64": "/w==" }));
    }

    #[test]
    fn the_end_tells_error_and_log() {
        let whole = end(b"{}").unwrap();
        assert!(whole.error.is_none() && whole.details.is_none() && whole.log.is_none());
        let failed = end(br#"{"ErrorCode":"X","ErrorDetails":"{\"a\":1}","LogResult":"aGk="}"#);
        let failed = failed.unwrap();
        assert_eq!((failed.error.as_deref(), failed.log.as_deref()), (Some("X"), Some("hi")));
        assert_eq!(failed.details, Some(json!({ "a": 1 })));
        let plain = end(br#"{"ErrorCode":"X","ErrorDetails":"words"}"#).unwrap();
        assert_eq!(plain.details, Some(json!("words")));
        assert!(end(b"").is_err());
    }
}
