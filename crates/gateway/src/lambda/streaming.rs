//! `InvokeWithResponseStream`: an answer that leaves while the function still works on it.
//!
//! What a function returns in one piece is one event; what it streams is one for each piece. Until
//! the answer begins, a refusal is an ordinary error; a failure later is told by the last event.
//!
//! Source: "InvokeWithResponseStream",
//! <https://docs.aws.amazon.com/lambda/latest/api/API_InvokeWithResponseStream.html>.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use lacewing_invoke::Streamed;
use lacewing_model::usage::Trigger;
use lacewing_model::{Error, Invocation, Outcome, Reply, Result};
use serde_json::{Map, Value};

use crate::body::{self, Received};
use crate::eventstream::encode;
use crate::gateway::{Answer, Call, Inner};
use crate::lambda::Route;
use crate::lambda::functions::not_among;
use crate::lambda::invoke::{INVOCATION_TYPE, answer, begin, header, timeline_text};

/// The type of what the function streams; the answer's own is that of the frames.
const REMAPPED: HeaderName = HeaderName::from_static("x-amzn-remapped-content-type");
/// What a function returns that does not stream.
const BUFFERED_TYPE: &str = "application/json";
/// Most bytes of an error's type, and of its document, that are told: a function words both, and escapes
/// may make them six times as long.
const CODE: usize = 1024;
const DETAILS: usize = 1024 * 1024;
/// How a failure is named that came before the function streamed anything, as by `Invoke`.
const UNHANDLED: &str = "Unhandled";

/// `InvokeWithResponseStream`.
pub(crate) async fn invoke(inner: &Inner, call: Call, route: &Route) -> Answer {
    let begun = begin(inner, &call, route)?;
    if is_dry_run(&call.parts.headers)? {
        inner.invoker()?.dry_run(&begun.target.key, begun.target.qualifier.as_ref())?;
        return Ok(answer(StatusCode::NO_CONTENT, body::empty(), &begun.trace));
    }
    let invocation = Invocation {
        request_id: call.request_id,
        function: begun.target.key,
        qualifier: begun.target.qualifier,
        payload: call.body.bytes.clone(),
        client_context: begun.client_context,
        trace: Some(begun.trace.clone()),
        wants_log_tail: begun.wants_log_tail,
        trigger: Trigger::Sync,
    };
    let streamed = inner.invoker()?.stream(invocation).await?;
    let text = |value: &str| {
        HeaderValue::from_str(value)
            .map_err(|error| Error::internal("cannot write a header of an answer", error))
    };
    let version = text(streamed.executed_version())?;
    let content_type = text(streamed.content_type().unwrap_or(BUFFERED_TYPE))?;
    let events = events(streamed, call.body, begun.wants_timeline);
    let mut response = answer(StatusCode::OK, body::stream(events), &begun.trace);
    let headers = response.headers_mut();
    let own_type = HeaderValue::from_static("application/vnd.amazon.eventstream");
    headers.insert(CONTENT_TYPE, own_type);
    headers.insert(REMAPPED, content_type);
    headers.insert("x-amz-executed-version", version);
    Ok(response)
}

fn is_dry_run(headers: &HeaderMap) -> Result<bool> {
    match header(headers, &INVOCATION_TYPE) {
        None | Some("RequestResponse") => Ok(false),
        Some("DryRun") => Ok(true),
        Some(other) => Err(not_among(other, "invocationType", "RequestResponse, DryRun")),
    }
}

/// The frames of an answer, each made when it is asked for. The request's body is counted against the
/// memory for bodies as long.
fn events(
    streamed: Streamed,
    request: Received,
    wants_timeline: bool,
) -> BoxStream<'static, io::Result<Bytes>> {
    let pieces = unfold(Some((streamed, request)), move |open| async move {
        let (mut streamed, request) = open?;
        if let Some(piece) = streamed.next().await {
            return Some((Ok(chunk(&piece)), Some((streamed, request))));
        }
        let has_begun = streamed.content_type().is_some();
        let last = match streamed.end().await {
            Ok(reply) => Ok(last(&reply, has_begun, wants_timeline)),
            // Too late to say so otherwise than by breaking off.
            Err(error) => {
                tracing::warn!(error = %error.chain(), "A streamed answer broke off.");
                Err(io::Error::other(error))
            }
        };
        Some((last, None))
    });
    pieces.boxed()
}

/// The text, cut off after so many bytes.
fn text_of(text: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&text[..text.len().min(most)]).into_owned()
}

fn chunk(payload: &[u8]) -> Bytes {
    encode("PayloadChunk", "application/octet-stream", payload)
}

/// What ends the answer; before it, all of a response that did not come in pieces.
fn last(reply: &Reply, has_begun: bool, wants_timeline: bool) -> Bytes {
    let mut members = Map::new();
    let mut add = |name: &str, value: String| members.insert(name.to_owned(), Value::from(value));
    let mut payload = None;
    match &reply.outcome {
        Outcome::Returned(whole) => payload = Some(whole).filter(|whole| !whole.is_empty()),
        Outcome::Failed(error) => {
            let code = if has_begun { error.error_type.as_bytes() } else { UNHANDLED.as_bytes() };
            add("ErrorCode", text_of(code, CODE));
            add("ErrorDetails", text_of(&error.payload, DETAILS));
        }
    }
    if let Some(tail) = &reply.log_tail {
        add("LogResult", BASE64_STANDARD.encode(tail));
    }
    if wants_timeline && let Ok(timeline) = timeline_text(&reply.timeline) {
        // Clients skip what they do not know.
        add("LacewingTimeline", timeline);
    }
    let complete =
        encode("InvokeComplete", "application/json", Value::from(members).to_string().as_bytes());
    match payload {
        Some(payload) => [chunk(payload), complete].concat().into(),
        None => complete,
    }
}
