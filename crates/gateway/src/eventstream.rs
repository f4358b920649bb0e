//! Frames of `application/vnd.amazon.eventstream`, in which Lambda answers piece by piece.
//!
//! ```text
//! total length u32 | headers' length u32 | CRC-32 of the two | headers | payload | CRC-32 of all before
//! header: length u8 | name | 7 | length u16 | value
//! ```
//!
//! Numbers are big-endian. Here are pure functions and an incremental decoder; they never do IO, and
//! never keep room for what was only announced. Headers of other types than text are skipped.
//!
//! See "Amazon Event Stream Specification",
//! <https://smithy.io/2.0/aws/amazon-eventstream.html>.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes before the headers.
const PRELUDE: usize = 12;
/// Bytes after the payload.
const CHECKSUM: usize = 4;
/// Longest headers, as the specification has it.
const HEADERS: usize = 128 * 1024;
/// Longest payload, as the specification has it.
const PAYLOAD: usize = 24 * 1024 * 1024;
/// The type of a header that is a text.
const TEXT: u8 = 7;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `event`, or `exception` or `error` instead of one; empty if it does not say.
    pub message_type: String,
    /// Which event it is; of an exception, which exception.
    pub event_type: String,
    /// What it carries.
    pub payload: Bytes,
}

/// Bytes that are no frame. What comes after them cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Lengths that contradict each other, or are larger than allowed.
    #[error("an event has impossible lengths")]
    Lengths,
    /// A checksum is wrong.
    #[error("an event is damaged: its checksum is wrong")]
    Checksum,
    /// The headers are not what they say.
    #[error("the headers of an event are broken")]
    Headers,
}

/// Writes one event.
///
/// # Panics
/// If the payload is longer than 24 MB, or a header than 64 KB.
pub fn encode(event_type: &str, content_type: &str, payload: &[u8]) -> Bytes {
    let headers =
        [(":event-type", event_type), (":content-type", content_type), (":message-type", "event")];
    let length: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let total = PRELUDE + length + payload.len() + CHECKSUM;
    assert!(payload.len() <= PAYLOAD, "no response is so long");
    let mut frame = BytesMut::with_capacity(total);
    frame.put_u32(u32::try_from(total).expect("it is bounded"));
    frame.put_u32(u32::try_from(length).expect("they are few and short"));
    let checksum = crc32fast::hash(&frame);
    frame.put_u32(checksum);
    for (name, value) in headers {
        frame.put_u8(u8::try_from(name.len()).expect("they are short"));
        frame.put_slice(name.as_bytes());
        frame.put_u8(TEXT);
        frame.put_u16(u16::try_from(value.len()).expect("they are short"));
        frame.put_slice(value.as_bytes());
    }
    frame.put_slice(payload);
    let checksum = crc32fast::hash(&frame);
    frame.put_u32(checksum);
    frame.freeze()
}

/// Takes the first event off the buffer; `None` if it is not whole yet. The caller appends what it
/// reads to the same buffer and calls again until nothing comes.
///
/// # Errors
/// [`FrameError`] if the bytes are no event.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
    let Some(mut prelude) = buffer.get(..PRELUDE) else { return Ok(None) };
    let checked = crc32fast::hash(&prelude[..PRELUDE - CHECKSUM]);
    let (total, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
    if prelude.get_u32() != checked {
        return Err(FrameError::Checksum);
    }
    let payload = total.checked_sub(PRELUDE + CHECKSUM).and_then(|rest| rest.checked_sub(headers));
    if headers > HEADERS || payload.is_none_or(|payload| payload > PAYLOAD) {
        return Err(FrameError::Lengths);
    }
    if buffer.len() < total {
        return Ok(None);
    }
    let frame = buffer.split_to(total).freeze();
    let mut end = frame.slice(total - CHECKSUM..);
    if end.get_u32() != crc32fast::hash(&frame[..total - CHECKSUM]) {
        return Err(FrameError::Checksum);
    }
    let mut event = Event::default();
    read_headers(frame.slice(PRELUDE..PRELUDE + headers), &mut event).ok_or(FrameError::Headers)?;
    event.payload = frame.slice(PRELUDE + headers..total - CHECKSUM);
    Ok(Some(event))
}

fn read_headers(mut headers: Bytes, event: &mut Event) -> Option<()> {
    while headers.has_remaining() {
        let length = headers.try_get_u8().ok()?.into();
        let name = take(&mut headers, length)?;
        let kind = headers.try_get_u8().ok()?;
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            6 | TEXT => headers.try_get_u16().ok()?.into(),
            9 => 16,
            _ => return None,
        };
        let value = take(&mut headers, length)?;
        let field = match &name[..] {
            b":message-type" => &mut event.message_type,
            b":event-type" | b":exception-type" => &mut event.event_type,
            _ => continue,
        };
        if kind != TEXT {
            return None;
        }
        str::from_utf8(&value).ok()?.clone_into(field);
    }
    Some(())
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests;
