//! The frames that the server and a stock bootstrap exchange over file descriptor 3.
//!
//! A frame is `u32 little-endian length | u8 kind | body`; the length counts the kind and the body.
//! A string inside a body is `u32 little-endian length | UTF-8`. An invocation's six strings come as
//! one, joined by NUL, which a bootstrap takes apart with one call. Both directions share one stream
//! socket, and one invocation at most is under way: a frame that comes while none is, other than
//! the first `Ready` or `InitError` (a blank bootstrap says `Ready` before it has a function, too), shows a broken bootstrap, and its Instance must not be reused.
//!
//! Here are pure functions and an incremental decoder over a byte buffer. They never do IO, never
//! read a payload, and never reserve memory for bytes that a peer has announced but not sent.
//!
//! See `docs/design/003-bootstraps.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use lacewing_model::limits::SYNC_RESPONSE;

use crate::stream::PIECE;

/// Most bytes that a frame of a bootstrap may have beside the largest response: strings and kind.
const ENVELOPE: u64 = 64 * 1024;
/// A longer frame is skipped and told as [`FromBootstrap::TooLarge`].
const MOST: u64 = SYNC_RESPONSE.as_bytes() + ENVELOPE;
/// Bytes of the length field.
const LENGTH: usize = 4;

/// Kinds of frames to the bootstrap.
mod to_bootstrap {
    pub(super) const INVOKE: u8 = 1;
    pub(super) const BECOME: u8 = 2;
    pub(super) const RESTORE: u8 = 3;
}

/// Kinds of frames from the bootstrap.
mod from_bootstrap {
    pub(super) const READY: u8 = 1;
    pub(super) const INIT_ERROR: u8 = 2;
    pub(super) const RESPONSE: u8 = 3;
    pub(super) const ERROR: u8 = 4;
    pub(super) const STREAM: u8 = 5;
    pub(super) const PIECE: u8 = 6;
    pub(super) const END: u8 = 7;
}

/// One invocation as the bootstrap is told of it. What does not apply is an empty string; a string
/// ends before its first NUL, which none of them may have.
#[derive(Clone, Copy, Debug)]
pub struct Invoke<'a> {
    /// When the function times out, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// Names the invocation.
    pub request_id: &'a str,
    /// The ARN as the handler sees it.
    pub invoked_function_arn: &'a str,
    /// The X-Ray trace header.
    pub trace_id: &'a str,
    /// The client context as JSON.
    pub client_context: &'a str,
    /// The Cognito identity as JSON.
    pub cognito_identity: &'a str,
    /// The tenant.
    pub tenant_id: &'a str,
}

/// Writes the frame that gives a blank bootstrap its function: the whole environment, as `NAME=value`
/// joined by NUL, which neither may have.
///
/// # Panics
/// If it would not fit the length field. The API bounds an environment to 4 KB.
pub fn encode_become(environment: &[(String, String)], into: &mut BytesMut) {
    encode_environment(to_bootstrap::BECOME, environment, into);
}

/// Writes the same as the frame that tells a restored bootstrap that it is one.
///
/// # Panics
/// As [`encode_become`].
pub fn encode_restore(environment: &[(String, String)], into: &mut BytesMut) {
    encode_environment(to_bootstrap::RESTORE, environment, into);
}

fn encode_environment(kind: u8, environment: &[(String, String)], into: &mut BytesMut) {
    let pairs: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let body = pairs.join("\0");
    into.reserve(LENGTH + 1 + body.len());
    put_length(into, 1 + body.len());
    into.put_u8(kind);
    into.put_slice(body.as_bytes());
}

/// What a bootstrap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromBootstrap {
    /// The handler is loaded.
    Ready,
    /// The handler could not be loaded; the bootstrap exits after this.
    InitError(Failure),
    /// The handler returned this payload.
    Response(Bytes),
    /// The handler failed; after `Stream`, on the way.
    Error(Failure),
    /// The handler has begun to stream a response of this content type.
    Stream(Bytes),
    /// A part of it, of at most 64 KiB.
    Piece(Bytes),
    /// It is whole.
    End,
    /// A frame of so many bytes was longer than any response may be, and was skipped.
    TooLarge(u64),
}

/// A failure that the bootstrap reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exception's type, or one of Lambda's `Runtime.*` types.
    pub error_type: String,
    /// The JSON document for the caller, unread.
    pub document: Bytes,
}

/// Bytes that no bootstrap of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame without a kind.
    #[error("a frame from the bootstrap is empty")]
    Empty,
    /// A frame of a kind that does not exist.
    #[error("a frame from the bootstrap has the unknown kind {0}")]
    UnknownKind(u8),
    /// A part of a streamed response that is longer than one may be.
    #[error("a piece of a response has {0} bytes")]
    LongPiece(usize),
    /// A string that is longer than its frame, or not UTF-8.
    #[error("a string in a frame from the bootstrap is broken")]
    BrokenString,
}

/// Finds the frames in what a bootstrap sends.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Size of a frame that is being skipped, and what has not come of it yet.
    skipping: Option<(u64, u64)>,
}

// === Invoke ===

impl Invoke<'_> {
    /// Writes the whole frame but for its last `payload` bytes, which are the event. Sending those
    /// from where they are saves a copy of a large one.
    ///
    /// # Panics
    /// If the frame would not fit its length field. The API bounds an event to 6 MB.
    pub fn encode_head(&self, payload: usize, into: &mut BytesMut) {
        let strings = self.strings();
        let joined = strings.len() - 1 + strings.iter().map(|text| text.len()).sum::<usize>();
        let head = 1 + 8 + LENGTH + joined;
        into.reserve(LENGTH + head);
        put_length(into, head + payload);
        into.put_u8(to_bootstrap::INVOKE);
        into.put_u64_le(self.deadline_ms);
        put_length(into, joined);
        for (at, text) in strings.into_iter().enumerate() {
            if at > 0 {
                into.put_u8(0);
            }
            into.put_slice(text.as_bytes());
        }
    }

    /// Writes the whole frame.
    ///
    /// # Panics
    /// As [`Self::encode_head`].
    pub fn encode(&self, payload: &[u8], into: &mut BytesMut) {
        self.encode_head(payload.len(), into);
        into.put_slice(payload);
    }

    fn strings(&self) -> [&str; 6] {
        [
            self.request_id,
            self.invoked_function_arn,
            self.trace_id,
            self.client_context,
            self.cognito_identity,
            self.tenant_id,
        ]
        .map(|text| text.split('\0').next().unwrap_or_default())
    }
}

// === Decoder ===

impl Decoder {
    /// Takes the first frame off the buffer; `None` if it is not whole yet. The caller appends what
    /// it reads to the same buffer and calls again until nothing comes.
    ///
    /// # Errors
    /// [`FrameError`] if the bytes are no frame. The stream is of no use after that.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<FromBootstrap>, FrameError> {
        if self.skipping.is_some() {
            return Ok(self.skip(buffer));
        }
        let Some(&announced) = buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let announced = u32::from_le_bytes(announced);
        if announced == 0 {
            return Err(FrameError::Empty);
        }
        if u64::from(announced) > MOST {
            buffer.advance(LENGTH);
            self.skipping = Some((announced.into(), announced.into()));
            return Ok(self.skip(buffer));
        }
        let length = announced as usize;
        if buffer.len() < LENGTH + length {
            return Ok(None);
        }
        buffer.advance(LENGTH);
        parse(buffer.split_to(length).freeze()).map(Some)
    }

    /// Drops what has come of a frame that is too large; tells of it at its end.
    fn skip(&mut self, buffer: &mut BytesMut) -> Option<FromBootstrap> {
        let (size, missing) = self.skipping?;
        let here = usize::try_from(missing).unwrap_or(usize::MAX).min(buffer.len());
        buffer.advance(here);
        let missing = missing.saturating_sub(here as u64);
        self.skipping = (missing > 0).then_some((size, missing));
        (missing == 0).then_some(FromBootstrap::TooLarge(size))
    }
}

fn put_length(into: &mut BytesMut, length: usize) {
    into.put_u32_le(u32::try_from(length).expect("payloads and strings are bounded by the API"));
}

fn parse(mut body: Bytes) -> Result<FromBootstrap, FrameError> {
    match body.get_u8() {
        from_bootstrap::READY => Ok(FromBootstrap::Ready),
        from_bootstrap::INIT_ERROR => failure(body).map(FromBootstrap::InitError),
        from_bootstrap::RESPONSE => Ok(FromBootstrap::Response(body)),
        from_bootstrap::ERROR => failure(body).map(FromBootstrap::Error),
        from_bootstrap::STREAM => Ok(FromBootstrap::Stream(body)),
        from_bootstrap::PIECE if body.len() > PIECE => Err(FrameError::LongPiece(body.len())),
        from_bootstrap::PIECE => Ok(FromBootstrap::Piece(body)),
        from_bootstrap::END => Ok(FromBootstrap::End),
        kind => Err(FrameError::UnknownKind(kind)),
    }
}

fn failure(mut body: Bytes) -> Result<Failure, FrameError> {
    let length = body.try_get_u32_le().map_err(|_| FrameError::BrokenString)? as usize;
    if length > body.len() {
        return Err(FrameError::BrokenString);
    }
    let text = body.split_to(length);
    let error_type = str::from_utf8(&text).map_err(|_| FrameError::BrokenString)?.to_owned();
    Ok(Failure { error_type, document: body })
}

#[cfg(test)]
mod tests;
