//! What a client is told when a request fails: one table for each protocol, from our kinds to
//! exception names and statuses.
//!
//! The message that goes out is the public one; what went wrong inside goes to the log under the
//! request id that the client sees.

use std::fmt::Write;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use lacewing_model::error::Throttle;
use lacewing_model::{ByteSize, Error, Kind, RequestId};
use serde_json::{Map, Value};

use crate::body::{self, Body};
use crate::sigv4::Refusal;

/// Why a request is answered with an error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Who calls was not proven.
    Refused(Refusal),
    /// There is no such operation.
    UnknownOperation,
    /// The operation exists and is not built yet.
    NotImplemented(&'static str),
    /// The body is larger than the operation allows.
    TooLarge(TooLarge),
    /// The body did not arrive.
    NotReceived,
    /// Everything else.
    Service(Error),
}

/// An oversize body, by the words that its operation has for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooLarge {
    /// Name of the operation.
    pub(crate) operation: &'static str,
    /// The most it takes.
    pub(crate) limit: ByteSize,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Service(error)
    }
}

/// How errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON, as Lambda and our own API have it.
    Json,
    /// XML, as STS has it.
    Query,
}

/// Who is to blame, as Lambda says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    User,
    Server,
    /// The frame around Lambda, which does not say.
    Unsaid,
}

/// One row of the table: exception name, status, name of the message member, who is to blame.
type Row = (&'static str, StatusCode, &'static str, Blame);

/// The table for kinds. Names, statuses and message members are those of Lambda's public model, or
/// of "Common errors" where the model has none.
const fn row(kind: Kind) -> Row {
    use Blame::{Server, Unsaid, User};
    use StatusCode as S;
    match kind {
        Kind::NotFound => ("ResourceNotFoundException", S::NOT_FOUND, "Message", User),
        Kind::NotConfigured => {
            ("ProvisionedConcurrencyConfigNotFoundException", S::NOT_FOUND, "message", User)
        }
        Kind::AlreadyExists | Kind::Conflict => {
            ("ResourceConflictException", S::CONFLICT, "message", User)
        }
        Kind::PreconditionFailed => {
            ("PreconditionFailedException", S::PRECONDITION_FAILED, "message", User)
        }
        Kind::Invalid | Kind::Unsupported => {
            ("InvalidParameterValueException", S::BAD_REQUEST, "message", User)
        }
        Kind::Constraint => ("ValidationException", S::BAD_REQUEST, "message", Unsaid),
        Kind::InvalidContent => ("InvalidRequestContentException", S::BAD_REQUEST, "message", User),
        Kind::PayloadTooLarge => {
            ("RequestTooLargeException", S::PAYLOAD_TOO_LARGE, "message", User)
        }
        Kind::RequestTooLarge => {
            ("RequestEntityTooLargeException", S::PAYLOAD_TOO_LARGE, "Message", Unsaid)
        }
        Kind::StorageExceeded => ("CodeStorageExceededException", S::BAD_REQUEST, "message", User),
        Kind::Throttled(_) => ("TooManyRequestsException", S::TOO_MANY_REQUESTS, "message", User),
        Kind::Unauthenticated => ("UnrecognizedClientException", S::FORBIDDEN, "message", Unsaid),
        Kind::Forbidden => ("AccessDeniedException", S::FORBIDDEN, "Message", Unsaid),
        Kind::RestoreFailed => ("SnapStartException", S::BAD_REQUEST, "Message", User),
        Kind::RestoreTimedOut => ("SnapStartTimeoutException", S::REQUEST_TIMEOUT, "Message", User),
        Kind::Unavailable | Kind::Timeout => {
            ("ServiceUnavailableException", S::SERVICE_UNAVAILABLE, "Message", Server)
        }
        Kind::Internal => ("ServiceException", S::INTERNAL_SERVER_ERROR, "Message", Server),
    }
}

/// The table for proofs of identity: the name in JSON protocols, in query protocols, and the status.
const fn refusal_row(refusal: &Refusal) -> (&'static str, &'static str, StatusCode) {
    use StatusCode as S;
    match refusal {
        Refusal::Missing => {
            ("MissingAuthenticationTokenException", "MissingAuthenticationToken", S::FORBIDDEN)
        }
        Refusal::Incomplete(_) => {
            ("IncompleteSignatureException", "IncompleteSignature", S::BAD_REQUEST)
        }
        Refusal::Invalid(_) | Refusal::Mismatch => {
            ("InvalidSignatureException", "SignatureDoesNotMatch", S::FORBIDDEN)
        }
        Refusal::UnknownKey => {
            ("UnrecognizedClientException", "InvalidClientTokenId", S::FORBIDDEN)
        }
        Refusal::ExpiredToken => ("ExpiredTokenException", "ExpiredToken", S::FORBIDDEN),
    }
}

const fn reason(throttle: Throttle) -> &'static str {
    match throttle {
        Throttle::AccountConcurrency => "ConcurrentInvocationLimitExceeded",
        Throttle::ReservedConcurrency => "ReservedFunctionConcurrentInvocationLimitExceeded",
        Throttle::CallerRate => "CallerRateLimitExceeded",
        Throttle::FunctionRate => "FunctionInvocationRateLimitExceeded",
    }
}

/// Writes the answer to a request that failed, and the log if it is our fault.
pub(crate) fn respond(
    failure: &Failure,
    protocol: Protocol,
    request_id: RequestId,
) -> Response<Body> {
    let fault = Fault::of(failure, protocol);
    if fault.status.is_server_error() && !matches!(failure, Failure::NotImplemented(_)) {
        let error = match failure {
            Failure::Service(error) => error.chain(),
            other => format!("{other:?}"),
        };
        tracing::error!(%request_id, error, "Request failed.");
    } else {
        tracing::debug!(%request_id, name = fault.name, status = %fault.status, "Request refused.");
    }
    match protocol {
        Protocol::Json => fault.json(),
        Protocol::Query => fault.xml(request_id),
    }
}

/// An error as it goes out.
struct Fault {
    name: &'static str,
    status: StatusCode,
    field: &'static str,
    blame: Blame,
    message: String,
    reason: Option<&'static str>,
    retry_after: Option<u64>,
}

impl Fault {
    fn of(failure: &Failure, protocol: Protocol) -> Self {
        match failure {
            Failure::Refused(refusal) => {
                let (json, query, status) = refusal_row(refusal);
                let name = if protocol == Protocol::Json { json } else { query };
                Self::new((name, status, "message", Blame::Unsaid), refusal.to_string())
            }
            Failure::UnknownOperation => {
                let (name, status) = match protocol {
                    Protocol::Json => ("UnknownOperationException", StatusCode::NOT_FOUND),
                    Protocol::Query => ("InvalidAction", StatusCode::BAD_REQUEST),
                };
                Self::new(
                    (name, status, "message", Blame::Unsaid),
                    "There is no such operation.".to_owned(),
                )
            }
            Failure::NotImplemented(operation) => {
                let status = StatusCode::NOT_IMPLEMENTED;
                let row = ("NotImplementedException", status, "message", Blame::Server);
                Self::new(row, format!("The operation {operation} is not implemented."))
            }
            Failure::TooLarge(too_large) => Self::new(row(too_large.kind()), too_large.message()),
            Failure::NotReceived => {
                let status = StatusCode::REQUEST_TIMEOUT;
                let row = ("RequestTimeoutException", status, "message", Blame::Unsaid);
                Self::new(row, "The request's body did not arrive in time.".to_owned())
            }
            Failure::Service(error) => Self::of_error(error),
        }
    }

    fn of_error(error: &Error) -> Self {
        let message = match error.kind() {
            Kind::Internal => "An error occurred and the request cannot be processed.",
            _ => error.public(),
        };
        let mut fault = Self::new(row(error.kind()), message.to_owned());
        fault.retry_after = error.retry_after().map(|after| after.as_secs().max(1));
        if let Kind::Throttled(throttle) = error.kind() {
            fault.reason = Some(reason(throttle));
            // A client that is told nothing would come back at once.
            fault.retry_after.get_or_insert(1);
        }
        fault
    }

    fn new((name, status, field, blame): Row, message: String) -> Self {
        Self { name, status, field, blame, message, reason: None, retry_after: None }
    }

    fn json(self) -> Response<Body> {
        let mut document = Map::new();
        match self.blame {
            Blame::User => document.insert("Type".into(), "User".into()),
            Blame::Server => document.insert("Type".into(), "Server".into()),
            Blame::Unsaid => None,
        };
        document.insert(self.field.into(), self.message.into());
        if let Some(reason) = self.reason {
            document.insert("Reason".into(), reason.into());
        }
        let mut response = Response::new(body::full(Value::Object(document).to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.name));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }

    fn xml(self, request_id: RequestId) -> Response<Body> {
        let sender = if self.status.is_server_error() { "Receiver" } else { "Sender" };
        let mut document = String::from(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>",
        );
        let (name, message) = (self.name, xml_text(&self.message));
        write!(
            document,
            "<Type>{sender}</Type><Code>{name}</Code><Message>{message}</Message></Error>\
             <RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        .expect("writing to a String cannot fail");
        let mut response = Response::new(body::full(document));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        response
    }
}

impl TooLarge {
    fn kind(self) -> Kind {
        match self.operation {
            "Invoke" | "InvokeWithResponseStream" => Kind::PayloadTooLarge,
            _ => Kind::RequestTooLarge,
        }
    }

    fn message(self) -> String {
        // AWS calls the operation by its IAM action.
        let operation = match self.operation {
            "Invoke" | "InvokeWithResponseStream" => "InvokeFunction",
            other => other,
        };
        let bytes = self.limit.as_bytes();
        format!("Request must be smaller than {bytes} bytes for the {operation} operation")
    }
}

/// Escapes what must not stand in XML text.
pub(crate) fn xml_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            control if control < ' ' => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
