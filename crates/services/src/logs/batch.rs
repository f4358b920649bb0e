//! Batches of lines as entries of the store's log, each bounded.

use std::borrow::Cow;

use bytes::Bytes;
use lacewing_model::{Error, RequestId, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::{LogEvent, failed};

/// The format of an entry.
const FORMAT: u32 = 1;
/// Most bytes of text in one entry, and of one event: longer lines become several events.
const TEXT: usize = 256 * 1024;
/// Most events of one entry.
const EVENTS: usize = 1_000;

/// What is borrowed to be written is owned when it is read.
#[derive(Serialize, Deserialize)]
struct Batch<'a> {
    format: u32,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    events: Vec<(Timestamp, Option<RequestId>, Cow<'a, str>)>,
}

/// The entries for these lines, in order.
pub(super) fn encode(
    stream: &str,
    lines: &[(Timestamp, Option<RequestId>, Bytes)],
) -> Result<Vec<Bytes>> {
    let texts: Vec<_> = lines.iter().map(|(_, _, text)| text_of(text)).collect();
    let mut entries = Vec::new();
    let mut batch = Batch { format: FORMAT, stream: stream.into(), events: Vec::new() };
    let mut bytes = 0;
    for ((at, request_id, _), text) in lines.iter().zip(&texts) {
        for part in parts(text) {
            if !batch.events.is_empty()
                && (bytes + part.len() > TEXT || batch.events.len() >= EVENTS)
            {
                entries.push(written(&batch)?);
                batch.events.clear();
                bytes = 0;
            }
            bytes += part.len();
            batch.events.push((*at, *request_id, part.into()));
        }
    }
    if !batch.events.is_empty() {
        entries.push(written(&batch)?);
    }
    Ok(entries)
}

/// The events of an entry.
pub(super) fn decode(entry: &[u8]) -> Result<Vec<LogEvent>> {
    let Batch { format, stream, events } = serde_json::from_slice(entry).map_err(failed)?;
    if format > FORMAT {
        return Err(Error::internal("A batch of log events is too new.", format!("{format}")));
    }
    let event = |(at, request_id, text): (_, _, Cow<'_, str>)| LogEvent {
        at,
        stream: stream.clone().into_owned(),
        request_id,
        text: text.into_owned(),
    };
    Ok(events.into_iter().map(event).collect())
}

/// Almost all of it is text, which is looked at more quickly than replaced.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn written(batch: &Batch<'_>) -> Result<Bytes> {
    Ok(serde_json::to_vec(batch).map_err(failed)?.into())
}

/// Cuts a text between characters; the empty text is one part.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= TEXT {
            return rest.take();
        }
        let (part, tail) = text.split_at(text.floor_char_boundary(TEXT));
        rest = Some(tail);
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_and_many_lines_are_split_and_nothing_is_lost() {
        let long = "ä".repeat(TEXT);
        let mut lines = vec![(Timestamp::from_seconds(1), None, Bytes::from(long.clone()))];
        for _ in 0..EVENTS + 1 {
            lines.push((Timestamp::from_seconds(2), None, Bytes::from_static(b"")));
        }
        let entries = encode("s", &lines).expect("written");
        assert!(entries.iter().all(|entry| entry.len() < 2 * TEXT));
        let events: Vec<LogEvent> =
            entries.iter().flat_map(|entry| decode(entry).expect("its own")).collect();
        let text: String = events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(text, long);
        assert_eq!(events.iter().filter(|event| event.text.is_empty()).count(), EVENTS + 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let entries = encode("s", &[(Timestamp::default(), None, Bytes::from_static(b"a\xff"))]);
        let events = decode(&entries.expect("written")[0]).expect("its own");
        assert_eq!(events[0].text, "a\u{fffd}");
    }
}
