//! `GET /metrics`: for a monitoring system on this host, without a key.
//!
//! What it says names every account's functions, so it is answered only to who connects from the
//! host's own loopback and says nothing of having been sent on: neither functions in sandboxes nor
//! clients of a network nor those of a proxy on this host get it. To them the path is unknown.

use http::header::{CONTENT_TYPE, FORWARDED, HeaderName, HeaderValue, VIA};
use http::request::Parts;
use http::{Method, Response};
use lacewing_invoke::Invoker;

use crate::body::{self, Body, Peer};
use crate::gateway::Answer;

/// What proxies add to a request that they send on.
const SENT_ON: [HeaderName; 4] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];
const TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Whether the request is for the metrics, and by one who may have them.
pub(crate) fn is_metrics(parts: &Parts, peer: Peer) -> bool {
    parts.uri.path() == "/metrics"
        && matches!(parts.method, Method::GET | Method::HEAD)
        && peer.is_local()
        && !SENT_ON.iter().any(|name| parts.headers.contains_key(name))
}

/// The answer.
pub(crate) fn respond(invoker: &Invoker) -> Answer {
    let mut response: Response<Body> = Response::new(body::full(invoker.metrics()?));
    response.headers_mut().insert(CONTENT_TYPE, TYPE);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: &str, path: &str, header: Option<&str>, from: &str) -> bool {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(name) = header {
            request = request.header(name, "203.0.113.1");
        }
        let peer = Peer::at(from.parse().expect("an address"));
        is_metrics(&request.body(()).expect("a request").into_parts().0, peer)
    }

    #[test]
    fn only_the_hosts_own_programs_get_them() {
        for local in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(asked("GET", "/metrics", None, local), "{local}");
        }
        for stranger in ["10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1"] {
            assert!(!asked("GET", "/metrics", None, stranger), "{stranger}");
        }
        for header in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
            assert!(!asked("GET", "/metrics", Some(header), "127.0.0.1"), "{header}");
        }
        assert!(!asked("POST", "/metrics", None, "127.0.0.1"));
        assert!(!asked("GET", "/metrics/x", None, "127.0.0.1"));
        let (parts, ()) = Request::get("/metrics").body(()).expect("a request").into_parts();
        assert!(!is_metrics(&parts, Peer::Sandbox(1)));
    }
}
