//! `GET /health`: whether the server answers at all. It needs no key and says nothing else.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response};

use crate::body::{self, Body};

/// Whether the request is for the health check.
pub(crate) fn is_health(parts: &Parts) -> bool {
    parts.uri.path() == "/health" && matches!(parts.method, Method::GET | Method::HEAD)
}

/// The answer.
pub(crate) fn respond() -> Response<Body> {
    let mut response = Response::new(body::full(r#"{"status":"ok"}"#));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
