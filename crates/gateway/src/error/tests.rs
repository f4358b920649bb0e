//! Every kind of error as it goes out, and the table against the public model.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::lambda::exceptions;

/// One of each kind; the compiler asks for new ones in `row`.
const KINDS: [Kind; 20] = [
    Kind::NotFound,
    Kind::AlreadyExists,
    Kind::Conflict,
    Kind::PreconditionFailed,
    Kind::Invalid,
    Kind::Constraint,
    Kind::InvalidContent,
    Kind::PayloadTooLarge,
    Kind::RequestTooLarge,
    Kind::StorageExceeded,
    Kind::Throttled(Throttle::AccountConcurrency),
    Kind::Throttled(Throttle::ReservedConcurrency),
    Kind::Unauthenticated,
    Kind::Forbidden,
    Kind::Unsupported,
    Kind::RestoreFailed,
    Kind::RestoreTimedOut,
    Kind::Unavailable,
    Kind::Timeout,
    Kind::Internal,
];

fn id() -> RequestId {
    "4fd1f0a8-0f8e-4b63-9d3c-0c2b6a1f7c11".parse().expect("a UUID")
}

fn text(response: Response<Body>) -> String {
    let http_body_util::Either::Left(body) = response.into_body() else {
        panic!("an error is never streamed");
    };
    let mut body = std::pin::pin!(body);
    let mut polled = std::task::Context::from_waker(std::task::Waker::noop());
    match hyper::body::Body::poll_frame(body.as_mut(), &mut polled) {
        std::task::Poll::Ready(Some(Ok(frame))) => {
            let bytes = frame.into_data().expect("data");
            String::from_utf8(bytes.into()).expect("UTF-8")
        }
        other => panic!("an error has a body: {other:?}"),
    }
}

#[test]
fn errors_look_as_lambdas_do() {
    let mut documents = Vec::new();
    for kind in KINDS {
        let error = Error::new(kind, "Something is wrong.")
            .with_internal("the secret path /srv/x")
            .with_retry_after(Duration::from_secs(2));
        let response = respond(&error.into(), Protocol::Json, id());
        let status = response.status().as_u16();
        let name = response.headers()["x-amzn-errortype"].to_str().expect("ASCII").to_owned();
        let retry = response
            .headers()
            .get(RETRY_AFTER)
            .map(|value| value.to_str().expect("ASCII").to_owned());
        let body: Value = serde_json::from_str(&text(response)).expect("JSON");
        documents.push(json!({
            "kind": format!("{kind:?}"), "status": status, "name": name, "retry": retry, "body": body,
        }));
    }
    insta::assert_json_snapshot!(documents);
}

#[test]
fn what_went_wrong_inside_never_goes_out() {
    let error = Error::internal("cannot read /srv/x", std::io::Error::other("disk 7"));
    let body = text(respond(&error.into(), Protocol::Json, id()));
    assert!(!body.contains("/srv/x") && !body.contains("disk 7"), "{body}");
}

#[test]
fn the_table_agrees_with_the_public_model() {
    let mut known = 0;
    for kind in KINDS {
        let (name, status, field, _) = row(kind);
        let Some(exception) = exceptions().iter().find(|exception| exception.name == name) else {
            continue;
        };
        known += 1;
        assert_eq!(exception.status, Some(status.as_u16()), "{name}");
        assert_eq!(exception.message, field, "{name}");
    }
    assert!(known >= 11, "only {known} rows are in the model");
}

#[test]
fn sts_gets_its_errors_in_xml() {
    let failure = Failure::Refused(Refusal::Invalid("a < b & c".into()));
    insta::assert_snapshot!(text(respond(&failure, Protocol::Query, id())));
}

#[test]
fn an_oversize_request_is_worded_by_its_operation() {
    let say = |operation, limit| {
        let too_large = TooLarge { operation, limit };
        (row(too_large.kind()).0, too_large.message())
    };
    assert_eq!(
        say("CreateFunction", lacewing_model::limits::ZIP_REQUEST),
        (
            "RequestEntityTooLargeException",
            "Request must be smaller than 70167211 bytes for the CreateFunction operation".into()
        )
    );
    assert_eq!(say("Invoke", ByteSize::mebibytes(6)).0, "RequestTooLargeException");
}
