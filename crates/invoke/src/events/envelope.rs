//! An event as the queue keeps it: `u32 length (little-endian) | header as JSON | payload`.
//!
//! The payload stays as it came, never parsed, never escaped. The header's version is checked, so
//! that a later form is refused by an earlier program instead of being misread.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use lacewing_model::usage::Trigger;
use lacewing_model::{Error, FunctionKey, Invocation, RequestId, Result, Timestamp};

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    request_id: RequestId,
    qualifier: Option<String>,
    trace: Option<String>,
    accepted: Timestamp,
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnvelopeError {
    #[error("the event is cut off")]
    CutOff,
    #[error("the event's header is broken")]
    ReadHeader(#[source] serde_json::Error),
    #[error("the event's qualifier is broken")]
    ReadQualifier(#[source] Error),
    #[error("the event has version {0}, this program knows {VERSION}")]
    TooNew(u32),
}

/// The stored form of a call.
pub(super) fn encode(call: &Invocation, now: Timestamp) -> Result<Bytes> {
    let header = Header {
        version: VERSION,
        request_id: call.request_id,
        qualifier: call.qualifier.as_ref().map(ToString::to_string),
        trace: call.trace.clone(),
        accepted: now,
    };
    let header =
        serde_json::to_vec(&header).map_err(|error| Error::internal("event header", error))?;
    let length =
        u32::try_from(header.len()).map_err(|error| Error::internal("event header", error))?;
    let mut body = BytesMut::with_capacity(4 + header.len() + call.payload.len());
    body.put_u32_le(length);
    body.put_slice(&header);
    body.put_slice(&call.payload);
    Ok(body.freeze())
}

/// The call of a stored event, and when it was accepted.
pub(super) fn decode(
    function: FunctionKey,
    body: &Bytes,
) -> Result<(Invocation, Timestamp), EnvelopeError> {
    let (length, rest) = body.split_first_chunk::<4>().ok_or(EnvelopeError::CutOff)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (header, payload) = rest.split_at_checked(length).ok_or(EnvelopeError::CutOff)?;
    let header: Header = serde_json::from_slice(header).map_err(EnvelopeError::ReadHeader)?;
    if header.version != VERSION {
        return Err(EnvelopeError::TooNew(header.version));
    }
    let qualifier = header.qualifier.map(|text| text.parse()).transpose();
    let call = Invocation {
        request_id: header.request_id,
        function,
        qualifier: qualifier.map_err(EnvelopeError::ReadQualifier)?,
        payload: body.slice_ref(payload),
        client_context: None,
        trace: header.trace,
        wants_log_tail: false,
        trigger: Trigger::Async,
    };
    Ok((call, header.accepted))
}
