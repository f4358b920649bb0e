//! An answer that comes event by event.

use bytes::BytesMut;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lacewing_gateway::eventstream::{self, Event};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};

/// The events of an answer, read when they are asked for.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    deadline: Instant,
}

impl Events {
    pub(super) fn new(answer: Response<Incoming>, deadline: Instant) -> Self {
        let (parts, body) = answer.into_parts();
        let (status, headers, buffer) = (parts.status, parts.headers, BytesMut::new());
        Self { status, headers, body, buffer, deadline }
    }

    /// A header of the answer as text, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Waits for the next event; `None` at the end of the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let event = eventstream::decode(&mut self.buffer);
            let event = event.map_err(|error| {
                Error::server("the server's answer is no stream of events").caused_by(&error)
            })?;
            if event.is_some() {
                return Ok(event);
            }
            let frame = timeout_at(self.deadline, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::server("the answer did not end in time"))?;
            match frame.transpose() {
                Ok(Some(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(Error::server("the server's answer broke off")),
                Err(error) => {
                    return Err(Error::server("the server's answer broke off").caused_by(&error));
                }
            }
        }
    }
}
