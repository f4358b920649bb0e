//! `Invoke`: from headers and a body to an invocation, and from its outcome to headers and a body.
//!
//! The payload is passed on as it came: no copy, no parse. What it may be is checked where every
//! invocation enters, whatever it comes from.
//!
//! Source: "Invoke", <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use lacewing_model::usage::{Timeline, Trigger};
use lacewing_model::{
    Error, Invocation, Kind, Outcome, Reply, RequestId, Result, Timestamp, limits,
};
use serde_json::Value;

use crate::body::{self, Body};
use crate::gateway::{Answer, Call, Inner};
use crate::lambda::Route;
use crate::lambda::functions::not_among;
use crate::lambda::name;

pub(super) const ACTION: &str = "lambda:InvokeFunction";
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("x-amz-client-context");
const DURABLE_EXECUTION: HeaderName = HeaderName::from_static("x-amz-durable-execution-name");
const EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
pub(super) const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");
const LOG_TYPE: HeaderName = HeaderName::from_static("x-amz-log-type");
const TENANT: HeaderName = HeaderName::from_static("x-amz-tenant-id");
const TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// Asks for the invocation's timeline and, in the answer, has it. Ours, not AWS's.
const TIMELINE: HeaderName = HeaderName::from_static("x-lacewing-timeline");
/// Longest trace header that is passed on.
const TRACE_LENGTH: usize = 512;

/// How the caller wants the function to be invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    RequestResponse,
    Event,
    DryRun,
}

/// What both ways to invoke take from a request.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) target: name::Target,
    pub(super) wants_log_tail: bool,
    pub(super) wants_timeline: bool,
    pub(super) client_context: Option<String>,
    pub(super) trace: String,
}

/// Checks who may invoke what, and reads the headers that are the same for both ways.
pub(super) fn begin(inner: &Inner, call: &Call, route: &Route) -> Result<Begun> {
    let target = name::resolve(inner, call, ACTION, &route.resource)?;
    inner.services.identity.authorize(&call.caller.principal, ACTION, &target.arn())?;
    let headers = &call.parts.headers;
    refuse_unsupported(headers)?;
    Ok(Begun {
        target,
        wants_log_tail: wants_log_tail(headers)?,
        wants_timeline: wants_timeline(headers)?,
        client_context: client_context(headers)?,
        trace: trace(headers, call.request_id, inner.clock.now()),
    })
}

/// `Invoke`.
pub(crate) async fn invoke(inner: &Inner, call: Call, route: &Route) -> Answer {
    let begun = begin(inner, &call, route)?;
    let Begun { target, wants_log_tail, wants_timeline, client_context, trace } = begun;
    let mode = mode(&call.parts.headers)?;
    if mode == Mode::DryRun {
        inner.invoker()?.dry_run(&target.key, target.qualifier.as_ref())?;
        return Ok(answer(StatusCode::NO_CONTENT, body::empty(), &trace));
    }
    let invocation = Invocation {
        request_id: call.request_id,
        function: target.key,
        qualifier: target.qualifier,
        payload: call.body.bytes.clone(),
        // Lambda passes the client context on to synchronous invocations only.
        client_context: client_context.filter(|_| mode == Mode::RequestResponse),
        trace: Some(trace.clone()),
        wants_log_tail: wants_log_tail && mode == Mode::RequestResponse,
        trigger: if mode == Mode::Event { Trigger::Async } else { Trigger::Sync },
    };
    if mode == Mode::Event {
        inner.invoker()?.enqueue(invocation).await?;
        return Ok(answer(StatusCode::ACCEPTED, body::empty(), &trace));
    }
    let reply = inner.invoker()?.invoke(invocation).await?;
    let timeline = wants_timeline.then_some(reply.timeline);
    let mut response = respond(reply, &trace)?;
    if let Some(timeline) = timeline {
        response.headers_mut().insert(TIMELINE, text(timeline_text(&timeline)?)?);
    }
    Ok(response)
}

fn respond(reply: Reply, trace: &str) -> Result<Response<Body>> {
    let (payload, failed) = match reply.outcome {
        Outcome::Returned(payload) => (payload, false),
        Outcome::Failed(error) => (error.payload, true),
    };
    let mut response = answer(StatusCode::OK, body::full(payload), trace);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if failed {
        headers.insert(FUNCTION_ERROR, HeaderValue::from_static("Unhandled"));
    }
    headers.insert(EXECUTED_VERSION, text(reply.executed_version)?);
    if let Some(tail) = reply.log_tail {
        headers.insert(LOG_RESULT, text(BASE64_STANDARD.encode(tail))?);
    }
    Ok(response)
}

fn text(value: String) -> Result<HeaderValue> {
    HeaderValue::try_from(value)
        .map_err(|error| Error::internal("cannot write a header of an answer", error))
}

/// The timeline as JSON, as it is in the usage record.
pub(super) fn timeline_text(timeline: &Timeline) -> Result<String> {
    serde_json::to_string(timeline)
        .map_err(|error| Error::internal("cannot write a timeline", error))
}

pub(super) fn answer(status: StatusCode, body: Body, trace: &str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let trace = HeaderValue::from_str(trace);
    response.headers_mut().insert(TRACE, trace.expect("a trace header was read from a header"));
    response
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

fn refuse_unsupported(headers: &HeaderMap) -> Result<()> {
    match [TENANT, DURABLE_EXECUTION].iter().find(|name| headers.contains_key(*name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!("The header {name} is not supported by Lacewing.");
            Err(Error::new(Kind::Unsupported, message))
        }
    }
}

fn mode(headers: &HeaderMap) -> Result<Mode> {
    match header(headers, &INVOCATION_TYPE) {
        None | Some("RequestResponse") => Ok(Mode::RequestResponse),
        Some("Event") => Ok(Mode::Event),
        Some("DryRun") => Ok(Mode::DryRun),
        Some(other) => Err(not_among(other, "invocationType", "Event, RequestResponse, DryRun")),
    }
}

fn wants_log_tail(headers: &HeaderMap) -> Result<bool> {
    match header(headers, &LOG_TYPE) {
        None | Some("None") => Ok(false),
        Some("Tail") => Ok(true),
        Some(other) => Err(not_among(other, "logType", "None, Tail")),
    }
}

fn wants_timeline(headers: &HeaderMap) -> Result<bool> {
    match header(headers, &TIMELINE) {
        None | Some("None") => Ok(false),
        Some("Whole") => Ok(true),
        Some(other) => Err(not_among(other, "timeline", "None, Whole")),
    }
}

/// The client context as JSON text.
pub(crate) fn client_context(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(encoded) = headers.get(CLIENT_CONTEXT) else { return Ok(None) };
    if encoded.len() > limits::CLIENT_CONTEXT {
        let message = format!(
            "Client context must be no more than {} bytes when base64-encoded.",
            limits::CLIENT_CONTEXT
        );
        return Err(Error::new(Kind::InvalidContent, message));
    }
    let decoded = BASE64_STANDARD.decode(encoded.as_bytes()).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let object = |text: &String| matches!(serde_json::from_str(text), Ok(Value::Object(_)));
    text.filter(object).map(Some).ok_or_else(|| {
        let message = "Client context must be a valid Base64-encoded JSON object.";
        Error::new(Kind::InvalidContent, message)
    })
}

/// The caller's trace header, or a new one that is not sampled.
fn trace(headers: &HeaderMap, request_id: RequestId, now: Timestamp) -> String {
    let given = headers.get(TRACE).and_then(|value| value.to_str().ok());
    if let Some(given) = given.filter(|given| (1..=TRACE_LENGTH).contains(&given.len())) {
        return given.to_owned();
    }
    let id = request_id.as_uuid().simple().to_string();
    let (root, parent) = (&id[..24], [&id[24..], &id[..8]].concat());
    format!("Root=1-{:08x}-{root};Parent={parent};Sampled=0", now.as_seconds())
}

#[cfg(test)]
mod tests;
