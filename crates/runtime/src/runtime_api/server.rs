//! HTTP/1.1 for one custom runtime.
//!
//! One task serves all connections of one sandbox, a bounded number at a time; it ends with
//! the sandbox. Bodies are bounded: what is too large is read on and thrown away, so that the
//! client gets to read its 413, but not for ever.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

use lacewing_model::{ByteSize, Credentials, FunctionError, limits};

use super::snap_start::{Asked, Counts, SnapStart, Waiting, What};
use super::state::{Answer, Event, Readiness, Refusal, State};
use crate::stream::{Intake, Outlet};

/// Connections of one sandbox that are served at the same time, beside one for each invocation.
const CONNECTIONS: usize = 15;
/// Bodies of one sandbox that are read at the same time, if it serves so many invocations.
const READS: usize = 4;
/// A body of so many bytes is small.
const SMALL: usize = 64 * 1024;
/// Bytes of a request's head.
const HEAD: usize = 64 * 1024;
/// Bytes of a body that is too large which are read and thrown away.
const SURPLUS: u64 = 256 << 20;
/// The largest answer.
const MOST: u64 = limits::SYNC_RESPONSE.as_bytes();
/// The type of an error that comes without one.
const UNKNOWN: &str = "Runtime.Unknown";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";

type Reply = Response<Full<Bytes>>;

/// What server and platform share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// How many invocations may be under way.
    most: usize,
    state: Mutex<State>,
    snap_start: Option<SnapStart>,
    /// Calls that wait.
    waiting: Waiting,
    /// Calls that a copy has made already and that have not come from it yet.
    asked: Mutex<Vec<Asked>>,
    /// There is an event.
    offered: Notify,
    /// The runtime became ready, failed, or answered.
    changed: Notify,
    /// One large body is read at a time, or a few: what one sandbox can make us hold is as many answers.
    /// A small one, which may come slowly, holds up nobody.
    reading: Semaphore,
}

/// What became of a request's body.
enum Content {
    Whole(Bytes, Option<HeaderMap>),
    TooLarge,
    Truncated,
}

// === Shared ===

impl Shared {
    /// For a runtime that serves so many invocations at a time, with SnapStart or not.
    pub(crate) fn new(most: usize, snap_start: Option<SnapStart>) -> Self {
        let is_copy = snap_start.as_ref().is_some_and(SnapStart::is_copy);
        let state = if is_copy { State::restored(most) } else { State::new(most) };
        Self {
            most,
            state: Mutex::new(state),
            waiting: Waiting::default(),
            asked: Mutex::new(snap_start.as_ref().map(SnapStart::asked).unwrap_or_default()),
            snap_start,
            offered: Notify::new(),
            changed: Notify::new(),
            reading: Semaphore::new(most.min(READS)),
        }
    }

    /// Gives the runtime an event, and a streamed response a place if the caller wants one.
    pub(crate) fn offer(&self, event: Event, outlet: Option<Outlet>) {
        self.state.lock().offer(event, outlet);
        self.offered.notify_one();
    }

    /// Waits for the end of the init phase; may be dropped and called again.
    pub(crate) async fn readiness(&self) -> Readiness {
        loop {
            let changed = self.changed.notified();
            if let Some(readiness) = self.state.lock().readiness() {
                return readiness;
            }
            changed.await;
        }
    }

    /// Waits for an answer; may be dropped and called again.
    pub(crate) async fn answer(&self, request_id: &str) -> Answer {
        loop {
            let changed = self.changed.notified();
            if let Some(answer) = self.state.lock().take_answer(request_id) {
                return answer;
            }
            changed.await;
        }
    }

    /// Nobody waits for an answer any more.
    pub(crate) fn withdraw(&self, request_id: &str) {
        self.state.lock().withdraw(request_id);
    }

    /// Whether an answer waits to be taken.
    pub(crate) fn is_answered(&self) -> bool {
        self.state.lock().has_answer()
    }

    /// The terms of what is copied from a runtime that stands.
    pub(crate) fn of_copy(&self, credentials: Credentials) -> Option<SnapStart> {
        Some(self.snap_start.as_ref()?.of_copy(credentials, self.waiting.all()))
    }

    /// Calls of a runtime with SnapStart.
    pub(crate) fn counts(&self) -> Counts {
        self.waiting.counts()
    }

    /// What was asked for already over a connection that a copy has made anew.
    fn take_asked(&self, port: u16) -> Option<What> {
        let mut asked = self.asked.lock();
        let at = asked.iter().position(|it| it.port == port)?;
        Some(asked.swap_remove(at).what)
    }

    /// Waits for an event on behalf of the runtime.
    async fn next(&self) -> Result<Event, Refusal> {
        loop {
            let offered = self.offered.notified();
            let event = self.state.lock().next()?;
            self.changed.notify_waiters();
            if let Some(event) = event {
                return Ok(event);
            }
            offered.await;
        }
    }
}

/// Serves the runtime for ever; the caller drops the future when the sandbox is gone.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let most = CONNECTIONS + shared.most;
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, peer)) => {
                    let _unsupported = stream.set_nodelay(true);
                    connections.push(serve_peer(stream, peer.port(), Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::debug!(%error, "A runtime's connection could not be accepted.");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            },
            Some(()) = connections.next() => {}
        }
    }
}

/// Serves a connection of this port; what was asked for over one that was made anew comes first.
async fn serve_peer(stream: TcpStream, port: u16, shared: Arc<Shared>) {
    match shared.take_asked(port) {
        None => serve_connection(stream, port, shared).await,
        Some(what) => {
            let (reader, writer) = stream.into_split();
            let stream = join(what.request().chain(reader), writer);
            serve_connection(stream, port, shared).await;
        }
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve_connection<S>(stream: S, port: u16, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(route(&shared, port, request).await) }
    });
    let connection =
        http1::Builder::new().max_buf_size(HEAD).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "A runtime's connection ended.");
    }
}

async fn route<B>(shared: &Shared, port: u16, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    let _counted = shared.snap_start.as_ref().map(|_| shared.waiting.begin());
    let path = request.uri().path().trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, ["2018-06-01", "ping"]) => plain(StatusCode::OK, "pong"),
        (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => next(shared, port).await,
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
            response(shared, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            error(shared, id, request).await
        }
        (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
            beginning_error(shared, request, State::fail_init).await
        }
        (method, path) => match &shared.snap_start {
            Some(terms) => snap_start(shared, terms, port, method.clone(), path, request).await,
            None => elsewhere(method, path),
        },
    }
}

/// What is there only with SnapStart.
async fn snap_start<B>(
    shared: &Shared,
    terms: &SnapStart,
    port: u16,
    method: Method,
    path: &[&str],
    request: Request<B>,
) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    match (&method, path) {
        (&Method::GET, ["2018-06-01", "runtime", "restore", "next"]) => stand(shared, port).await,
        (&Method::POST, ["2018-06-01", "runtime", "restore", "error"]) => {
            beginning_error(shared, request, State::fail_restore).await
        }
        (&Method::GET, ["2021-04-23", "credentials"]) => {
            let word = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
            match terms.credentials(word.unwrap_or_default()) {
                Some(document) => json(StatusCode::OK, document),
                None => {
                    let message = "The authorization token is not that of this environment";
                    failure(StatusCode::FORBIDDEN, "InvalidAuthorizationToken", message)
                }
            }
        }
        (method, path) => elsewhere(method, path),
    }
}

fn elsewhere(method: &Method, path: &[&str]) -> Reply {
    match (method, path) {
        (&Method::PUT, ["2020-08-15", "logs"]) => {
            let message = "Logs API is not supported";
            failure(StatusCode::ACCEPTED, "Logs.NotSupported", message)
        }
        (&Method::PUT, ["2022-07-01", "telemetry"]) => {
            let message = "Telemetry API is not supported";
            failure(StatusCode::ACCEPTED, "Telemetry.NotSupported", message)
        }
        (_, ["2020-01-01", "extension", ..]) => {
            let message = "Extensions API is not supported";
            failure(StatusCode::NOT_FOUND, "Extension.NotSupported", message)
        }
        _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Answers in a copy only.
async fn stand(shared: &Shared, port: u16) -> Reply {
    let stands = shared.state.lock().stand();
    match stands {
        Ok(true) => Response::new(Full::new(Bytes::new())),
        Ok(false) => {
            let _waits = shared.waiting.enter(Asked { port, what: What::Restore });
            shared.changed.notify_waiters();
            pending().await
        }
        Err(refusal) => refuse(refusal),
    }
}

async fn next(shared: &Shared, port: u16) -> Reply {
    // Who is copied while it waits waits in each copy.
    let with_snap_start = shared.snap_start.as_ref();
    let _waits = with_snap_start.map(|_| shared.waiting.enter(Asked { port, what: What::Next }));
    match shared.next().await {
        Ok(event) => deliver(event),
        Err(refusal) => refuse(refusal),
    }
}

/// An event as the runtime receives it: what is empty is left out.
fn deliver(event: Event) -> Reply {
    let mut reply = Response::new(Full::new(event.payload));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let fields = [
        ("lambda-runtime-aws-request-id", Some(event.request_id)),
        ("lambda-runtime-deadline-ms", Some(event.deadline_ms.to_string())),
        ("lambda-runtime-invoked-function-arn", Some(event.arn)),
        ("lambda-runtime-trace-id", event.trace),
        // It is JSON, in which line ends are but space; a header can hold none.
        (
            "lambda-runtime-client-context",
            event.client_context.map(|text| text.replace(['\n', '\r'], " ")),
        ),
    ];
    for (name, value) in fields {
        let value = value.filter(|value| !value.is_empty());
        // A value that no header can hold is left out, as an empty one is.
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    reply
}

async fn response<B>(shared: &Shared, id: &str, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    if let Err(refusal) = shared.state.lock().check(id) {
        return refuse(refusal);
    }
    let mode = request.headers().get(RESPONSE_MODE).map(HeaderValue::as_bytes);
    match mode {
        None => {}
        Some(b"streaming") => {
            let begun = shared.state.lock().stream(id);
            match begun {
                Ok(Some(outlet)) => return stream(shared, id, request, &outlet).await,
                Ok(None) => {}
                Err(refusal) => return refuse(refusal),
            }
        }
        Some(_) => {
            let message = "Invalid function response mode";
            return failure(StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode", message);
        }
    }
    match read(shared, request.into_body(), || too_large(shared, id)).await {
        Content::Whole(body, trailers) => match trailers.as_ref().and_then(broken_off) {
            Some(error) => accept(shared, id, Answer::Failed(error)),
            None => accept(shared, id, Answer::Returned(body)),
        },
        Content::TooLarge => refuse_size(limits::SYNC_RESPONSE),
        Content::Truncated => truncated(shared, id),
    }
}

/// Passes a response on as it comes. One that is too large, or that ends early, ends the stream.
async fn stream<B>(shared: &Shared, id: &str, request: Request<B>, outlet: &Outlet) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut intake = Intake::begin(Some(outlet), content_type.unwrap_or_default());
    let mut body = request.into_body();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            end_stream(shared, id, Answer::Truncated);
            return refuse_truncated();
        };
        match frame.into_data() {
            Ok(data) => {
                if intake.take(data).await.is_err() {
                    end_stream(shared, id, Answer::StreamTooLarge);
                    return refuse_size(limits::STREAMED_RESPONSE);
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let failed = trailers.as_ref().and_then(broken_off);
    end_stream(shared, id, failed.map_or_else(|| intake.end(), Answer::Failed));
    accepted()
}

fn end_stream(shared: &Shared, id: &str, answer: Answer) {
    shared.state.lock().end_stream(id, answer);
    shared.changed.notify_waiters();
}

async fn error<B>(shared: &Shared, id: &str, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    if let Err(refusal) = shared.state.lock().check(id) {
        return refuse(refusal);
    }
    let error_type = error_type(request.headers());
    match read(shared, request.into_body(), || too_large(shared, id)).await {
        Content::Whole(payload, _) => {
            accept(shared, id, Answer::Failed(FunctionError { error_type, payload }))
        }
        Content::TooLarge => refuse_size(limits::SYNC_RESPONSE),
        Content::Truncated => truncated(shared, id),
    }
}

/// An error before the first event.
async fn beginning_error<B>(
    shared: &Shared,
    request: Request<B>,
    fail: fn(&mut State, FunctionError) -> Result<(), Refusal>,
) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    let error_type = error_type(request.headers());
    match read(shared, request.into_body(), || {}).await {
        Content::Whole(payload, _) => {
            let done = fail(&mut shared.state.lock(), FunctionError { error_type, payload });
            shared.changed.notify_waiters();
            done.map_or_else(refuse, |()| accepted())
        }
        Content::TooLarge => refuse_size(limits::SYNC_RESPONSE),
        Content::Truncated => refuse_truncated(),
    }
}

/// Reads a body; `on_surplus` is called as soon as it is known to be too large.
async fn read<B>(shared: &Shared, mut body: B, on_surplus: impl FnOnce()) -> Content
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut few_at_a_time = None;
    let mut whole = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Content::Truncated };
        match frame.into_data() {
            Ok(data) if whole.len() as u64 + data.len() as u64 <= MOST => {
                if few_at_a_time.is_none() && whole.len() + data.len() > SMALL {
                    // It is never closed.
                    few_at_a_time = shared.reading.acquire().await.ok();
                }
                whole.extend_from_slice(&data);
            }
            Ok(_) => {
                drop(whole);
                on_surplus();
                discard(body).await;
                return Content::TooLarge;
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Content::Whole(whole.freeze(), trailers)
}

/// Lets the client finish sending, so that it reads the answer.
async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut surplus = 0;
    while let Some(Ok(frame)) = body.frame().await {
        surplus += frame.data_ref().map_or(0, |data| data.len() as u64);
        if surplus > SURPLUS {
            return;
        }
    }
}

fn error_type(headers: &HeaderMap) -> String {
    let value = headers.get(ERROR_TYPE).and_then(|value| value.to_str().ok());
    value.filter(|text| !text.is_empty()).unwrap_or(UNKNOWN).to_owned()
}

/// A streamed response ends with these trailers if the handler failed on the way. The document is
/// in base64; what is not is replaced by words of ours.
fn broken_off(trailers: &HeaderMap) -> Option<FunctionError> {
    trailers.get(ERROR_TYPE)?;
    let error_type = error_type(trailers);
    let document = trailers.get(ERROR_BODY).and_then(|body| BASE64_STANDARD.decode(body).ok());
    match document.filter(|document| str::from_utf8(document).is_ok_and(|text| !text.is_empty())) {
        Some(document) => Some(FunctionError { error_type, payload: document.into() }),
        None => {
            let message = "The function failed while it was streaming its response.";
            Some(FunctionError::of_platform(error_type, message))
        }
    }
}

fn accept(shared: &Shared, id: &str, answer: Answer) -> Reply {
    let done = shared.state.lock().answer(id, answer);
    shared.changed.notify_waiters();
    done.map_or_else(refuse, |()| accepted())
}

/// The caller of the function does not wait until the runtime has sent all that is too much.
fn too_large(shared: &Shared, id: &str) {
    if shared.state.lock().answer(id, Answer::TooLarge).is_ok() {
        shared.changed.notify_waiters();
    }
}

fn truncated(shared: &Shared, id: &str) -> Reply {
    if shared.state.lock().answer(id, Answer::Truncated).is_ok() {
        shared.changed.notify_waiters();
    }
    refuse_truncated()
}

fn accepted() -> Reply {
    json(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}\n"))
}

fn refuse(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::RequestId => {
            failure(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
        }
        Refusal::Transition => {
            let message = "State transition is not allowed";
            failure(StatusCode::FORBIDDEN, "InvalidStateTransition", message)
        }
    }
}

fn refuse_size(most: ByteSize) -> Reply {
    let most = most.as_bytes();
    let message = format!("Exceeded maximum allowed payload size ({most} bytes).");
    failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
}

fn refuse_truncated() -> Reply {
    let message = "The body ended before it was complete.";
    failure(StatusCode::BAD_REQUEST, "Runtime.TruncatedResponse", message)
}

fn failure(status: StatusCode, error_type: &str, message: &str) -> Reply {
    json(status, FunctionError::of_platform(error_type, message).payload)
}

fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *reply.status_mut() = status;
    reply
}

#[cfg(test)]
mod tests;
