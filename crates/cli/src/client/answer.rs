//! An answer of the server, and how an error of the API reads for people.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use lacewing_model::limits;
use serde_json::Value;

use crate::connection::Origin;
use crate::error::{Error, Result};

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An error that the API answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) name: String,
    pub(crate) message: String,
}

impl Answer {
    /// A header as text, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; an empty one counts as `null`.
    pub(crate) fn json(&self) -> Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::server("the server's answer is no JSON").caused_by(&error))
    }

    /// The error that this answer is, if it is one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.status.is_success() {
            return None;
        }
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let member = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let name = self.header("x-amzn-errortype").map(str::to_owned).or_else(|| member("__type"));
        let name = name.as_deref().and_then(|name| name.split(':').next()).unwrap_or_default();
        let message = member("message").or_else(|| member("Message"));
        Some(Refusal {
            status: self.status,
            name: name.to_owned(),
            message: message.unwrap_or_else(|| format!("the server answered {}", self.status)),
        })
    }
}

impl Refusal {
    /// The same as an error of ours, with hints.
    pub(crate) fn into_error(self, origin: &Origin) -> Error {
        let text = match self.name.as_str() {
            "" => self.message.clone(),
            name => format!("{} ({name})", self.message),
        };
        let error =
            if self.status.is_server_error() { Error::server(text) } else { Error::user(text) };
        match self.name.as_str() {
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "InvalidClientTokenId" => error.hint(format!(
                "the key came from {}; --data-dir names the directory of the server, whose \
                     credentials file has the right one",
                origin.key
            )),
            "ResourceNotFoundException" => error.hint("`lacewing functions` lists what there is"),
            "RequestTooLargeException" => error.hint(format!(
                "a payload may have {}, that of an event {}",
                limits::SYNC_REQUEST,
                limits::ASYNC_REQUEST
            )),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn answer(status: u16, error_type: Option<&'static str>, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(name) = error_type {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(name));
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }

    fn origin() -> Origin {
        Origin { endpoint: "--endpoint".into(), key: "/d/credentials".into() }
    }

    #[test]
    fn an_error_of_the_api_keeps_its_name_and_message() {
        let refused = answer(
            404,
            Some("ResourceNotFoundException:http://internal.amazon.com/"),
            r#"{"Type":"User","Message":"Function not found: x"}"#,
        );
        let error = refused.refusal().unwrap().into_error(&origin());
        assert_eq!(error.message, "Function not found: x (ResourceNotFoundException)");
        assert_eq!(error.category.exit_code(), 1);
        assert_eq!(error.hints.len(), 1);
    }

    #[test]
    fn a_fault_of_the_server_is_sorted_as_such() {
        let fault = answer(500, Some("ServiceException"), "{\"Message\":\"Internal error.\"}");
        assert_eq!(fault.refusal().unwrap().into_error(&origin()).category.exit_code(), 3);
        let html = answer(502, None, "<html>");
        assert!(html.refusal().unwrap().message.contains("502"));
    }

    #[test]
    fn a_payload_that_is_too_large_is_told_the_bounds() {
        let refused = answer(413, Some("RequestTooLargeException"), "{}");
        let error = refused.refusal().unwrap().into_error(&origin());
        assert_eq!(error.hints, ["a payload may have 6 MB, that of an event 1 MB"]);
    }

    #[test]
    fn a_wrong_key_is_traced_to_its_origin() {
        let refused = answer(403, Some("UnrecognizedClientException"), "{}");
        let error = refused.refusal().unwrap().into_error(&origin());
        assert!(error.hints[0].contains("/d/credentials"));
    }

    #[test]
    fn success_is_no_refusal() {
        assert_eq!(answer(202, None, "").refusal(), None);
        assert_eq!(answer(202, None, "").json().unwrap(), Value::Null);
    }
}
