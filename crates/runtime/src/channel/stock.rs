//! Frames over a stream socket: the warm path of the stock runtimes.
//!
//! No task, no lock, no copy of the payload on its way in. Buffers live as long as the sandbox.

use std::future::pending;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::net::UnixStream as StdStream;

use bytes::{Buf, Bytes, BytesMut};

use lacewing_model::{FunctionError, limits};

use super::homed::Homed;
use super::{Answer, Call, Readiness};
use crate::frames::{Decoder, Failure, FromBootstrap, Invoke, encode_become, encode_restore};
use crate::stream::{Intake, Outlet};

/// Least free room in the buffer before each read.
const ROOM: usize = 16 * 1024;
/// Bytes read at most before other things get their turn.
const TURN: usize = 256 * 1024;

/// The way to one of our bootstraps.
#[derive(Debug)]
pub(crate) struct Stock {
    stream: Homed,
    decoder: Decoder,
    inbox: BytesMut,
    /// What has not been written yet: the head of a frame, then the payload.
    head: BytesMut,
    payload: Bytes,
    /// Nothing more will come; the sandbox's status says why.
    is_closed: bool,
    /// Something came that nobody had asked for.
    is_broken: bool,
}

impl Stock {
    /// Takes our end of the socket.
    pub(crate) fn open(stream: StdStream) -> io::Result<Self> {
        Ok(Self {
            stream: Homed::open(stream)?,
            decoder: Decoder::default(),
            inbox: BytesMut::new(),
            head: BytesMut::new(),
            payload: Bytes::new(),
            is_closed: false,
            is_broken: false,
        })
    }

    pub(super) async fn readiness(&mut self) -> Readiness {
        match self.receive().await {
            Some(FromBootstrap::Ready) => Readiness::Ready,
            Some(FromBootstrap::InitError(failure)) => Readiness::Failed(error(failure)),
            _ => pending().await,
        }
    }

    pub(super) async fn r#become(&mut self, environment: &[(String, String)]) {
        self.head.clear();
        encode_become(environment, &mut self.head);
        self.send().await;
    }

    pub(super) async fn restore(&mut self, environment: &[(String, String)]) {
        self.head.clear();
        encode_restore(environment, &mut self.head);
        self.send().await;
    }

    pub(super) fn begin(&mut self, call: &Call<'_>) {
        let invocation = call.invocation;
        let mut request_id = uuid::Uuid::encode_buffer();
        let head = Invoke {
            deadline_ms: u64::try_from(call.deadline.as_millis()).unwrap_or(0),
            request_id: invocation.request_id.as_uuid().hyphenated().encode_lower(&mut request_id),
            invoked_function_arn: &call.arn(),
            trace_id: invocation.trace.as_deref().unwrap_or_default(),
            client_context: invocation.client_context.as_deref().unwrap_or_default(),
            cognito_identity: "",
            tenant_id: "",
        };
        self.stream.move_here();
        let unasked = self.stream.try_read_buf(&mut self.inbox).is_ok_and(|read| read > 0);
        self.is_broken |= unasked || !self.inbox.is_empty();
        self.head.clear();
        head.encode_head(invocation.payload.len(), &mut self.head);
        self.payload = invocation.payload.clone();
    }

    pub(super) async fn answer(&mut self, outlet: Option<&Outlet>) -> Answer {
        if self.is_broken {
            return Answer::Broken;
        }
        self.send().await;
        match self.receive().await {
            // Boxed, so that all that do not stream need no room for it.
            Some(FromBootstrap::Stream(content_type)) => {
                Box::pin(self.stream(&content_type, outlet)).await
            }
            Some(FromBootstrap::Response(payload)) => returned(payload),
            Some(FromBootstrap::Error(failure)) => Answer::Failed(error(failure)),
            Some(FromBootstrap::TooLarge(_)) => Answer::TooLarge,
            Some(_) | None => Answer::Broken,
        }
    }

    /// Passes a streamed response on, or collects it. The rest of one that is too large to be
    /// collected is skipped, so that what runs inside can serve again; but not for ever.
    async fn stream(&mut self, content_type: &[u8], outlet: Option<&Outlet>) -> Answer {
        let mut intake = Intake::begin(outlet, str::from_utf8(content_type).unwrap_or_default());
        let (mut size, mut is_skipping) = (0, false);
        loop {
            match self.receive().await {
                Some(FromBootstrap::Piece(piece)) => {
                    size += piece.len() as u64;
                    is_skipping = is_skipping || intake.take(piece).await.is_err();
                    let is_endless = size > limits::STREAMED_RESPONSE.as_bytes();
                    if is_skipping && (outlet.is_some() || is_endless) {
                        return Answer::StreamTooLarge;
                    }
                }
                Some(FromBootstrap::End | FromBootstrap::Error(_)) if is_skipping => {
                    return Answer::TooLarge;
                }
                Some(FromBootstrap::End) => return intake.end(),
                Some(FromBootstrap::Error(failure)) => return Answer::Failed(error(failure)),
                Some(_) | None => return Answer::Broken,
            }
        }
    }

    /// Writes what is left to write; a peer that is gone shows when reading.
    async fn send(&mut self) {
        while self.head.has_remaining() || self.payload.has_remaining() {
            let parts = [IoSlice::new(&self.head), IoSlice::new(&self.payload)];
            match self.stream.try_write_vectored(&parts) {
                Ok(written) => {
                    let of_head = written.min(self.head.len());
                    self.head.advance(of_head);
                    self.payload.advance(written - of_head);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.stream.writable().await.is_err() {
                        return;
                    }
                }
                Err(_) => {
                    self.head.clear();
                    self.payload = Bytes::new();
                }
            }
        }
    }

    /// Reads one frame; `None` if what came is none. Waits for ever when the peer is gone.
    async fn receive(&mut self) -> Option<FromBootstrap> {
        let mut total = 0;
        loop {
            match self.decoder.decode(&mut self.inbox) {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) if self.is_closed => return pending().await,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "A bootstrap broke the protocol.");
                    return None;
                }
            }
            // Doubling keeps a large answer from being copied for each part of it.
            self.inbox.reserve(ROOM.max(self.inbox.len()));
            match self.stream.try_read_buf(&mut self.inbox) {
                Ok(0) => self.is_closed = true,
                Ok(read) if total + read < TURN => total += read,
                // Who never stops sending must not keep the thread, nor hide the deadline.
                Ok(_) => {
                    total = 0;
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_closed = self.stream.readable().await.is_err();
                }
                Err(_) => self.is_closed = true,
            }
        }
    }
}

fn returned(payload: Bytes) -> Answer {
    if payload.len() as u64 > limits::SYNC_RESPONSE.as_bytes() {
        return Answer::TooLarge;
    }
    Answer::Returned(payload)
}

fn error(failure: Failure) -> FunctionError {
    FunctionError { error_type: failure.error_type, payload: failure.document }
}
