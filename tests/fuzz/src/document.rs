//! JSON documents of requests: refused or read, and never read as something else.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use lacewing_gateway::fuzzing::{client_context, create_function, update_function};
use lacewing_invoke::fuzzing::is_payload;

/// Reads the bytes as each document of a client.
pub fn run(data: &[u8]) {
    let value = serde_json::from_slice::<Value>(data).ok();
    // The other way round does not hold: a number may be too large for a value, and nesting too deep.
    assert!(value.is_none() || is_payload(data), "JSON is refused as a payload");
    assert!(data.is_empty() || !is_payload(data) || std::str::from_utf8(data).is_ok());
    if let Ok(package) = create_function(data) {
        let encoded = value.as_ref().and_then(|value| value["Code"]["ZipFile"].as_str());
        assert_eq!(encoded.and_then(|it| BASE64_STANDARD.decode(it).ok()), Some(package));
    }
    let (code, configuration) = update_function(data);
    assert!(!code && !configuration || value.is_some());
    let mut headers = HeaderMap::new();
    if let Ok(context) = HeaderValue::from_bytes(data) {
        headers.insert("x-amz-client-context", context);
        if let Ok(Some(text)) = client_context(&headers) {
            let context = serde_json::from_str::<Value>(&text).ok();
            assert!(context.is_some_and(|context| context.is_object()));
        }
    }
}
