//! The signed HTTP client over which every command but `serve` and `env` works.
//!
//! Plain HTTP only: the server is local, or behind a proxy or tunnel of the operator's. Answers are
//! read whole, or event by event, and bounded; a request never waits without a limit.

mod answer;
mod events;
mod upload;

use std::time::Duration;

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderName, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::ProgressBar;
use lacewing_gateway::sigv4::{Payload, Signer};
use lacewing_model::{Clock, SystemClock};
use serde_json::Value;
use tokio::time::Instant;

use crate::args::Remote;
use crate::connection::{Connection, process_environment};
use crate::error::{Error, Result};

pub(crate) use answer::Answer;
pub(crate) use events::Events;
use upload::Upload;

/// Service name of the Lambda API in a signature's scope.
pub(crate) const LAMBDA: &str = "lambda";
/// Service name of the platform's own API in a signature's scope.
pub(crate) const ADMIN: &str = "lacewing";

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long to wait for an answer: the longest invocation, and a margin for its cold start.
const ANSWER: Duration = Duration::from_secs(960);
/// Most bytes of an answer.
const ANSWER_BYTES: usize = 64 << 20;

/// A client of one server, with one key.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Connection,
    http: legacy::Client<HttpConnector, Upload>,
}

/// One request, before it is signed.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) service: &'static str,
    pub(crate) method: Method,
    /// Path and query, already encoded.
    pub(crate) target: &'a str,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
    /// Shows how much of the body was sent.
    pub(crate) progress: Option<ProgressBar>,
}

impl<'a> Call<'a> {
    /// A request without a body.
    pub(crate) fn get(service: &'static str, target: &'a str) -> Self {
        Self::new(service, Method::GET, target, Bytes::new())
    }

    /// A request with a body.
    pub(crate) fn new(
        service: &'static str,
        method: Method,
        target: &'a str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self { service, method, target, headers: Vec::new(), body: body.into(), progress: None }
    }
}

impl Client {
    /// A client of the server that flags, environment or data directory name.
    pub(crate) fn find(remote: &Remote) -> Result<Self> {
        Self::new(Connection::find(remote, &process_environment)?)
    }

    /// A client of the server at the other end of `connection`.
    pub(crate) fn new(connection: Connection) -> Result<Self> {
        check_endpoint(&connection.endpoint)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { connection, http })
    }

    /// URL of the server.
    pub(crate) fn endpoint(&self) -> &str {
        self.connection.endpoint.trim_end_matches('/')
    }

    /// Sends a request and reads the whole answer, whatever its status.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let request = self.request(call)?;
        let answer = tokio::time::timeout(ANSWER, self.exchange(request)).await;
        answer.map_err(|_| self.too_late())?
    }

    /// Sends a request whose answer comes event by event; an error of the API becomes an error here.
    pub(crate) async fn events(&self, call: Call<'_>) -> Result<Events> {
        let deadline = Instant::now() + ANSWER;
        let sent = tokio::time::timeout_at(deadline, self.http.request(self.request(call)?)).await;
        let answer =
            sent.map_err(|_| self.too_late())?.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(Events::new(answer, deadline));
        }
        let answer = tokio::time::timeout_at(deadline, collect(answer)).await;
        self.accept(answer.map_err(|_| self.too_late())??)?;
        Err(Error::server("the server's answer makes no sense"))
    }

    /// Sends a request and reads its JSON answer; an error of the API becomes an error here.
    pub(crate) async fn json(&self, call: Call<'_>) -> Result<Value> {
        self.accept(self.send(call).await?)?.json()
    }

    /// Passes a good answer on and turns an error of the API into ours.
    pub(crate) fn accept(&self, answer: Answer) -> Result<Answer> {
        match answer.refusal() {
            None => Ok(answer),
            Some(refusal) => Err(refusal.into_error(&self.connection.origin)),
        }
    }

    /// Reads from the platform's own API.
    pub(crate) async fn admin(&self, what: &str) -> Result<Value> {
        self.json(Call::get(ADMIN, &format!("/_lacewing/v1/{what}"))).await
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Upload>> {
        let uri: Uri = format!("{}{}", self.endpoint(), call.target).parse().map_err(
            |error: http::uri::InvalidUri| {
                Error::usage(format!("'{}' cannot be part of a URL", call.target)).caused_by(&error)
            },
        )?;
        let builder = Request::builder().method(call.method).uri(uri);
        let builder = call.headers.iter().fold(builder, |b, (name, value)| b.header(name, value));
        self.sign(builder, call.service, call.body, call.progress)
    }

    fn too_late(&self) -> Error {
        Error::server(format!("no answer from {} in time", self.endpoint()))
    }

    fn sign(
        &self,
        builder: Builder,
        service: &str,
        body: Bytes,
        progress: Option<ProgressBar>,
    ) -> Result<Request<Upload>> {
        let unsendable = |error: http::Error| {
            Error::usage("a value cannot be sent in a request").caused_by(&error)
        };
        let (mut parts, ()) = builder.body(()).map_err(unsendable)?.into_parts();
        let signer = Signer {
            credentials: &self.connection.credentials,
            region: &self.connection.region,
            service,
        };
        signer.sign(&mut parts, Payload::Bytes(&body), SystemClock.now()).map_err(|error| {
            Error::user(format!("cannot sign with the key of {}", self.connection.origin.key))
                .caused_by(&error)
        })?;
        Ok(Request::from_parts(parts, Upload::new(body, progress)))
    }

    async fn exchange(&self, request: Request<Upload>) -> Result<Answer> {
        let sent = self.http.request(request).await;
        collect(sent.map_err(|error| self.unreachable(&error))?).await
    }

    fn unreachable(&self, error: &legacy::Error) -> Error {
        let endpoint = self.endpoint();
        if error.is_connect() {
            let origin = &self.connection.origin.endpoint;
            Error::server(format!("cannot reach a server at {endpoint} (from {origin})"))
                .caused_by(error)
                .hint("start one with `lacewing serve`, or name another with --endpoint")
        } else {
            Error::server(format!("the exchange with {endpoint} failed")).caused_by(error)
        }
    }
}

/// Reads an answer to its end.
#[expect(clippy::disallowed_methods, reason = "the body is wrapped in Limited")]
async fn collect(answer: Response<Incoming>) -> Result<Answer> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| {
        Error::server("the server's answer broke off").caused_by(error.as_ref())
    })?;
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
}

fn check_endpoint(endpoint: &str) -> Result<()> {
    let wrong = |why: &str| Err(Error::usage(format!("endpoint '{endpoint}': {why}")));
    let Ok(uri) = endpoint.parse::<Uri>() else { return wrong("not a URL") };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return wrong("https is not supported").map_err(|error| {
                error.hint("use http://, to this machine or through a tunnel such as `ssh -L`")
            });
        }
        _ => return wrong("it must begin with http://"),
    }
    if uri.host().is_none() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return wrong("it must be http://HOST:PORT and no more");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_plain_http_and_a_host() {
        assert!(check_endpoint("http://127.0.0.1:9000").is_ok());
        assert!(check_endpoint("http://[::1]:9000/").is_ok());
        for wrong in ["127.0.0.1:9000", "ftp://a", "http://a/b", "http://a?b", "", "http://"] {
            assert!(check_endpoint(wrong).is_err(), "{wrong} was accepted");
        }
        let error = check_endpoint("https://a").unwrap_err();
        assert!(error.message.contains("https is not supported"));
        assert_eq!(error.category.exit_code(), 2);
    }
}
