//! Tests of `admission`.

use super::*;

fn verdict(payload: &[u8]) -> Option<String> {
    check_json(payload).err().map(|error| {
        assert_eq!(error.kind(), Kind::InvalidContent);
        error.public().to_owned()
    })
}

#[test]
fn every_json_text_and_nothing_at_all_is_taken() {
    let texts =
        ["", "{}", " {\"a\": [1, -2.5e3, null, true, \"\\u00e9\\\\\"]} ", "1", "\"x\"", "[[]]"];
    for text in texts {
        assert_eq!(verdict(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused_in_the_services_words() {
    for text in ["hello", "{", "{'a':1}", "[1,]", "01", "\"\u{1}\"", "{}{}", "\"\\x\"", " "] {
        let message = verdict(text.as_bytes()).unwrap_or_else(|| panic!("{text} was taken"));
        let prefix = "Could not parse request body into json: Could not parse payload into json: ";
        assert!(message.starts_with(prefix), "{message}");
    }
}

#[test]
fn a_string_that_is_not_utf_8_is_refused() {
    assert!(verdict(b"{\"a\":\"\xff\"}").is_some());
    assert!(verdict(b"\"\xed\xa0\x80\"").is_some(), "half a surrogate pair");
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    assert_eq!(verdict(deep.as_bytes()), None);
}

#[test]
fn a_payload_of_exactly_the_limit_is_taken() {
    let limit = usize::try_from(limits::SYNC_REQUEST.as_bytes()).expect("fits");
    assert!(check_size(limit, limits::SYNC_REQUEST, "Invoke").is_ok());
    let error = check_size(limit + 1, limits::SYNC_REQUEST, "Invoke").expect_err("too large");
    assert_eq!(error.kind(), Kind::PayloadTooLarge);
    let message = "Request must be smaller than 6291456 bytes for the Invoke operation";
    assert_eq!(error.public(), message);
}
