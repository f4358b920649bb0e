//! The gateway: what one request goes through, whichever listener it came by.
//!
//! It owns the order of the checks and nothing else: `auth` knows signatures, `body` knows bounds,
//! and each of `lambda`, `sts` and `admin` knows one protocol.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use lacewing_invoke::Invoker;
use lacewing_model::{AccountId, ByteSize, Clock, Error, Kind, Region, RequestId, Result, limits};
use lacewing_services::Services;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminInfo};
use crate::auth::{Authenticator, Caller};
use crate::body::{self, Body, Peer, ReceiveError, Received, Receiver};
use crate::error::{Failure, Protocol, TooLarge, respond};
use crate::{Lanes, health, lambda, listener, metrics, sts};

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The region this node answers for.
    pub region: Region,
    /// The account of the root key.
    pub account: AccountId,
    /// How far a signature's time may be from ours.
    pub clock_skew: Duration,
    /// Most connections of one listener.
    pub max_connections: usize,
    /// How long a connection may take to send a request's headers, idle time included.
    pub header_patience: Duration,
    /// How long a request's body may take to arrive.
    pub body_patience: Duration,
    /// Memory for large request bodies of calls, all of them together.
    pub body_memory: ByteSize,
    /// The same for archives.
    pub archive_memory: ByteSize,
    /// Concurrent invocations of an account, as `GetAccountSettings` reports them.
    pub account_concurrency: u32,
}

impl Options {
    /// The defaults.
    pub fn new(region: Region, account: AccountId) -> Self {
        Self {
            region,
            account,
            clock_skew: Duration::from_secs(5 * 60),
            max_connections: 4_096,
            header_patience: Duration::from_secs(60),
            body_patience: Duration::from_secs(5 * 60),
            body_memory: ByteSize::mebibytes(512),
            // Three of the largest.
            archive_memory: ByteSize::mebibytes(208),
            account_concurrency: limits::ACCOUNT_CONCURRENCY,
        }
    }
}

/// Most connections out of one sandbox.
const SANDBOX_CONNECTIONS: usize = 64;
/// Memory for large request bodies out of sandboxes: what a function sends must not keep others from
/// sending.
const SANDBOX_MEMORY: ByteSize = ByteSize::mebibytes(96);
/// The part of it that one sandbox has.
const SANDBOX_SHARE: ByteSize = ByteSize::mebibytes(16);

/// When a client that found no memory may come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A network of the host.
    Host,
    /// The network of the sandbox whose endpoint has this number.
    Sandbox(u64),
}

/// Answers requests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Inner>);

/// What the handlers may use.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) services: Services,
    /// Absent on a node that runs no functions.
    invoker: Option<Invoker>,
    pub(crate) admin: AdminInfo,
    pub(crate) clock: Arc<dyn Clock>,
    authenticator: Authenticator,
    receiver: Receiver,
    sandbox_receiver: Receiver,
    /// Endpoints of sandboxes so far.
    endpoints: AtomicU64,
    routes: lambda::Routes,
}

/// A request whose caller is known and whose body is here.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request_id: RequestId,
    pub(crate) parts: Parts,
    pub(crate) caller: Caller,
    pub(crate) body: Received,
}

/// Where a request goes once its caller is known.
#[derive(Debug)]
enum Route {
    Lambda(lambda::Route),
    Sts,
    Admin(admin::Route),
    Nowhere,
}

/// The answer of a handler.
pub(crate) type Answer = Result<Response<Body>, Failure>;

impl Gateway {
    /// A gateway to these services.
    pub fn new(
        options: Options,
        services: Services,
        invoker: Invoker,
        admin: AdminInfo,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::assemble(options, services, Some(invoker), admin, clock)
    }

    fn assemble(
        options: Options,
        services: Services,
        invoker: Option<Invoker>,
        admin: AdminInfo,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let authenticator = Authenticator::new(
            services.identity.clone(),
            options.region.clone(),
            options.clock_skew,
            Arc::clone(&clock),
        );
        let patience = options.body_patience;
        let receiver = Receiver::new(options.body_memory, options.archive_memory, patience);
        let sandbox_receiver = Receiver::shared(SANDBOX_MEMORY, SANDBOX_SHARE, patience);
        let routes = lambda::Routes::new();
        Self(Arc::new(Inner {
            options,
            services,
            invoker,
            admin,
            clock,
            authenticator,
            receiver,
            sandbox_receiver,
            endpoints: AtomicU64::new(0),
            routes,
        }))
    }

    /// Serves connections until `stop`, then gives those in flight `grace` to finish; on `lanes`, or
    /// where it runs itself.
    pub async fn serve(
        self,
        listener: TcpListener,
        lanes: Option<Arc<Lanes>>,
        stop: CancellationToken,
        grace: Duration,
    ) {
        listener::serve(self, Origin::Host, listener, lanes, stop, grace).await;
    }

    /// Serves the same API on a listener inside a sandbox until it is `closed`.
    pub async fn serve_endpoint(self, listener: std::net::TcpListener, closed: CancellationToken) {
        let adopted = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let origin = Origin::Sandbox(self.0.endpoints.fetch_add(1, Ordering::Relaxed));
        match adopted {
            Ok(listener) => {
                listener::serve(self, origin, listener, None, closed, Duration::ZERO).await;
            }
            Err(error) => tracing::error!(%error, "Cannot serve a sandbox's endpoint."),
        }
    }

    pub(crate) fn header_patience(&self) -> Duration {
        self.0.options.header_patience
    }

    pub(crate) fn max_connections(&self, origin: Origin) -> usize {
        match origin {
            Origin::Host => self.0.options.max_connections,
            Origin::Sandbox(_) => SANDBOX_CONNECTIONS,
        }
    }

    /// Answers one request; whatever goes wrong becomes an answer.
    pub(crate) async fn handle(
        self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let request_id = RequestId::random();
        let (parts, body) = request.into_parts();
        if health::is_health(&parts) {
            return Ok(health::respond());
        }
        tracing::trace!(%request_id, method = %parts.method, path = parts.uri.path(), "Request.");
        let mut protocol = Protocol::Json;
        let answer = if metrics::is_metrics(&parts, peer) {
            self.0.invoker().map_err(Failure::from).and_then(metrics::respond)
        } else {
            self.0.answer(peer, request_id, parts, body, &mut protocol).await
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(failure) => respond(&failure, protocol, request_id),
        };
        let id = HeaderValue::from_str(&request_id.to_string());
        response.headers_mut().insert("x-amzn-requestid", id.expect("a UUID is ASCII"));
        Ok(response)
    }
}

impl Inner {
    /// The door to functions.
    ///
    /// # Errors
    /// `Unavailable` on a node that runs none.
    pub(crate) fn invoker(&self) -> Result<&Invoker> {
        let none = || Error::new(Kind::Unavailable, "This node does not run functions.");
        self.invoker.as_ref().ok_or_else(none)
    }

    async fn answer(
        &self,
        peer: Peer,
        request_id: RequestId,
        parts: Parts,
        body: Incoming,
        protocol: &mut Protocol,
    ) -> Answer {
        *protocol = sts::protocol(&parts);
        let pending = match self.authenticator.admit(&parts) {
            Ok(pending) => pending,
            Err(refusal) => {
                body::discard(body, &parts.headers).await;
                return Err(refusal.into());
            }
        };
        let route = match pending.service() {
            "lambda" => self.routes.find(&parts)?.map_or(Route::Nowhere, Route::Lambda),
            "sts" => Route::Sts,
            _ => admin::route(&parts)?.map_or(Route::Nowhere, Route::Admin),
        };
        let (operation, limit) = match &route {
            Route::Lambda(route) => (route.operation.name, route.limit()),
            _ => ("requested", limits::CONTROL_REQUEST),
        };
        let receiver = match peer {
            Peer::Address(_) => &self.receiver,
            Peer::Sandbox(_) => &self.sandbox_receiver,
        };
        let received = receiver.receive(peer, body, &parts.headers, limit).await;
        let body = received.map_err(|error| match error {
            ReceiveError::TooLarge => Failure::TooLarge(TooLarge { operation, limit }),
            ReceiveError::TooSlow => Failure::NotReceived,
            error @ ReceiveError::NoMemory => {
                let busy = Error::new(Kind::Unavailable, error.to_string());
                Failure::Service(busy.with_retry_after(RETRY_AFTER))
            }
            ReceiveError::Broken(error) => {
                tracing::debug!(%request_id, %error, "The client went away.");
                Failure::NotReceived
            }
        })?;
        let caller = self.authenticator.finish(pending, &parts, &body.digest)?;
        let call = Call { request_id, parts, caller, body };
        match route {
            Route::Lambda(route) => lambda::handle(self, call, route).await,
            Route::Sts => sts::handle(&call),
            Route::Admin(route) => admin::handle(self, call, route).await,
            Route::Nowhere => Err(Failure::UnknownOperation),
        }
    }
}

#[cfg(test)]
mod tests;
