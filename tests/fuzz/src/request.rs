//! The head of a request: method, target and form lead to an operation or to none.

use http::Request;

use lacewing_gateway::fuzzing::{form, route};

/// Reads the first line as `METHOD TARGET` and all of it as a form.
pub fn run(data: &[u8]) {
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if let Ok(request) = Request::builder().method(method).uri(target).body(()) {
        let (parts, ()) = request.into_parts();
        if let Ok(Some((operation, resource))) = route(&parts) {
            assert!(!operation.is_empty());
            // A name never grows by being decoded.
            assert!(resource.len() <= target.len());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let field = form(text, "Action").ok().flatten();
        assert!(field.is_none_or(|field| field.len() <= text.len()));
    }
}
