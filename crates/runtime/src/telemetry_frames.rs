//! The frames in which a runtime writes log records that must stay whole, on the file descriptor
//! that `_LAMBDA_TELEMETRY_LOG_FD` names.
//!
//! Lambda's own runtimes and the published interface clients for Python and Node.js write the same
//! form, so an unmodified client works here too. All numbers are big-endian:
//!
//! ```text
//! | u32 type | u32 length of the message | u64 microseconds since 1970 | message, UTF-8 |
//! type = 0xa55a0000 | severity << 2 | 2 if the message is JSON, 3 if it is text
//! severity: 0 none, 1 trace, 2 debug, 3 info, 4 warn, 5 error, 6 fatal
//! ```
//!
//! A message may end with a line end (Python's logging module) or not (Node's JSON records); the
//! decoder takes one away. The writers are code of the function in the end: what they send is
//! bounded and checked here, and a stream that is not of this form is read to its end and dropped.
//!
//! Pure functions over a byte buffer; no IO. Source: the sources of `awslambdaric` (PyPI) and
//! `aws-lambda-ric` (npm).

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use lacewing_model::{LogLevel, Timestamp};

/// Bytes before the message.
const HEAD: usize = 16;
/// The part of the type that is always the same.
const MAGIC: u32 = 0xa55a_0000;
/// The bits of the type that are not part of it.
const VARIABLE: u32 = 0x1f;
/// A longer message is cut: the largest event that CloudWatch Logs takes.
const MOST: usize = 1024 * 1024;

/// One log record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was written, as the writer says.
    pub at: Timestamp,
    /// How severe it is, if the writer has levels.
    pub level: Option<LogLevel>,
    /// Whether the message is a JSON object.
    pub is_json: bool,
    /// The message without its last line end; others inside it belong to it.
    pub message: Bytes,
}

/// Something else than records was written to the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a log record has the unknown type {0:#010x}")]
pub struct NotARecord(pub u32);

/// Finds the records in what a runtime writes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has not come yet of a message that was cut.
    skipping: usize,
    is_broken: bool,
}

impl Decoder {
    /// Takes the first record off the buffer; `None` if it is not whole yet. The caller appends
    /// what it reads to the same buffer and calls again until nothing comes.
    ///
    /// # Errors
    /// [`NotARecord`], once: from then on all bytes are dropped, so that the function may go on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Record>, NotARecord> {
        if self.is_broken {
            buffer.clear();
            return Ok(None);
        }
        let here = self.skipping.min(buffer.len());
        buffer.advance(here);
        self.skipping -= here;
        let Some(mut head) = buffer.first_chunk::<HEAD>().map(<[u8; HEAD]>::as_slice) else {
            return Ok(None);
        };
        let (kind, length, micros) = (head.get_u32(), head.get_u32(), head.get_u64());
        let (Some(level), true) = (level(kind), kind & 2 != 0) else {
            self.is_broken = true;
            buffer.clear();
            return Err(NotARecord(kind));
        };
        let length = length as usize;
        let kept = length.min(MOST);
        if buffer.len() < HEAD + kept {
            return Ok(None);
        }
        buffer.advance(HEAD);
        let mut message = buffer.split_to(kept).freeze();
        self.skipping = length - kept;
        if message.last() == Some(&b'\n') {
            message.truncate(message.len() - 1);
        }
        let at = Timestamp::from_micros(i64::try_from(micros).unwrap_or(0));
        Ok(Some(Record { at, level, is_json: kind & 1 == 0, message }))
    }
}

/// The level in the type of a record; `None` if it is no type of one.
fn level(kind: u32) -> Option<Option<LogLevel>> {
    if kind & !VARIABLE != MAGIC {
        return None;
    }
    match ((kind & VARIABLE) >> 2) as usize {
        0 => Some(None),
        number => LogLevel::ALL.get(number - 1).copied().map(Some),
    }
}

#[cfg(test)]
mod tests;
