//! The one error type that crosses crate borders on its way to a caller.
//!
//! It says what went wrong in terms that hold for every wire format; the edge turns `Kind` into an
//! exception name and a status in one table for each protocol. `public` is for the caller,
//! `internal` for the operator's log. A function's own failure is no `Error` but an
//! [`Outcome`](crate::Outcome), unless it kept its handler from being called at all: then there is none.

use std::fmt;
use std::time::Duration;

/// The result of anything that can fail in a way the caller must hear of.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, independent of any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing does not exist.
    NotFound,
    /// The thing exists, and what is asked for was never set for it.
    NotConfigured,
    /// A thing of that name exists already.
    AlreadyExists,
    /// The thing is in a state in which this cannot be done; later it may be.
    Conflict,
    /// The caller's idea of the thing's revision is out of date.
    PreconditionFailed,
    /// A parameter is well formed but makes no sense here.
    Invalid,
    /// A parameter violates a constraint of the interface's model (length, range, pattern).
    Constraint,
    /// The payload is not what it says it is, for example no JSON.
    InvalidContent,
    /// The invocation payload is too large.
    PayloadTooLarge,
    /// The request as a whole is too large.
    RequestTooLarge,
    /// Stored code exceeds the account's quota.
    StorageExceeded,
    /// Too many requests; the reason names the bound that was hit.
    Throttled(Throttle),
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The operation or setting is known but not offered by this version.
    Unsupported,
    /// The function could not be restored from its snapshot, through a fault of its own.
    RestoreFailed,
    /// The function was not restored from its snapshot in time.
    RestoreTimedOut,
    /// We cannot serve this now, through no fault of the caller; trying again may help.
    Unavailable,
    /// We did not finish in time.
    Timeout,
    /// An invariant of ours is broken, or a part of ours failed.
    Internal,
}

/// Which bound a throttled request ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Throttle {
    /// The account's concurrent invocations.
    AccountConcurrency,
    /// The function's reserved concurrency.
    ReservedConcurrency,
    /// The caller's request rate.
    CallerRate,
    /// The function's invocation rate.
    FunctionRate,
}

/// An error with a message for the caller and, apart from it, one for the operator.
pub struct Error(Box<Body>);

struct Body {
    kind: Kind,
    public: String,
    internal: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` whose message the caller may read.
    pub fn new(kind: Kind, public: impl Into<String>) -> Self {
        Self(Box::new(Body {
            kind,
            public: public.into(),
            internal: None,
            retry_after: None,
            source: None,
        }))
    }

    /// An [`Kind::Internal`] error: `operation` goes to the log, the caller learns no details.
    pub fn internal(
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(Kind::Internal, "Internal error.").with_internal(operation).with_source(source)
    }

    /// Adds what the operator should know and the caller should not.
    #[must_use]
    pub fn with_internal(mut self, internal: impl Into<String>) -> Self {
        self.0.internal = Some(internal.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds how long the caller should wait before trying again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message for the caller.
    pub fn public(&self) -> &str {
        &self.0.public
    }

    /// The message for the operator, if there is one.
    pub fn internal_message(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    /// How long the caller should wait before trying again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same request may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, Kind::Throttled(_) | Kind::Unavailable | Kind::Timeout)
    }

    /// The whole chain on one line, for the operator's log: never for the caller.
    pub fn chain(&self) -> String {
        let mut text = format!("{:?}: {}", self.0.kind, self.0.public);
        if let Some(internal) = &self.0.internal {
            text.push_str(": ");
            text.push_str(internal);
        }
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.public)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
