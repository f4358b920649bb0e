//! The canonical form of a request and the string to sign, used for signing and checking alike.
//!
//! It never fails: whatever a request contains has one canonical form, so that a hostile request
//! merely does not match.

use aws_lc_rs::digest;
use http::HeaderMap;
use http::request::Parts;
use lacewing_model::hex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::sigv4::ALGORITHM;

/// Everything but RFC 3986's unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// As above, for a path whose slashes stay.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// The query parameter that a presigned request's signature does not cover.
pub(super) const SIGNATURE_PARAMETER: &str = "X-Amz-Signature";

/// The SHA-256 of the canonical request in hexadecimal digits; `signed_headers` are names with `;`
/// between them.
pub(super) fn request_hash(parts: &Parts, signed_headers: &str, payload: &str) -> String {
    let mut text = String::with_capacity(1_024);
    text.push_str(parts.method.as_str());
    text.push('\n');
    push_path(&mut text, parts.uri.path());
    text.push('\n');
    push_query(&mut text, parts.uri.query().unwrap_or_default());
    text.push('\n');
    for name in signed_headers.split(';') {
        text.push_str(name);
        text.push(':');
        push_header(&mut text, parts, name);
        text.push('\n');
    }
    text.push('\n');
    text.push_str(signed_headers);
    text.push('\n');
    text.push_str(payload);
    sha256_hex(text.as_bytes())
}

/// The string to sign; `scope` is `DATE/REGION/SERVICE/aws4_request`.
pub(super) fn string_to_sign(amz_date: &str, scope: &str, request_hash: &str) -> String {
    // Joined, not formatted: every signed request comes by here.
    [ALGORITHM, amz_date, scope, request_hash].join("\n")
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Encodes all but RFC 3986's unreserved characters.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The host a request is for: the `Host` header, or in HTTP/2 the authority.
pub(super) fn host(parts: &Parts) -> Option<&str> {
    match parts.headers.get(http::header::HOST) {
        Some(host) => host.to_str().ok(),
        None => parts.uri.authority().map(http::uri::Authority::as_str),
    }
}

/// The path without dot and empty segments, encoded once more than it already is.
fn push_path(text: &mut String, path: &str) {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    for segment in &kept {
        text.push('/');
        text.extend(utf8_percent_encode(segment, PATH));
    }
    if kept.is_empty() || path.ends_with('/') {
        text.push('/');
    }
}

/// The parameters but for the signature, decoded and encoded again, sorted by name and value.
fn push_query(text: &mut String, query: &str) {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (recode(name), recode(value)))
        .filter(|(name, _)| name != SIGNATURE_PARAMETER)
        .collect();
    pairs.sort_unstable();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
}

/// One spelling for all the ways to encode the same bytes.
fn recode(text: &str) -> String {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    percent_encoding::percent_encode(&bytes, UNRESERVED).to_string()
}

/// All values of a header, trimmed, runs of spaces as one, joined by commas.
fn push_header(text: &mut String, parts: &Parts, name: &str) {
    if matches!(name, "host" | ":authority") {
        text.push_str(host(parts).unwrap_or_default().trim());
        return;
    }
    for (index, value) in values(&parts.headers, name).enumerate() {
        if index > 0 {
            text.push(',');
        }
        let mut words = value.split_ascii_whitespace();
        if let Some(first) = words.next() {
            text.push_str(first);
        }
        for word in words {
            text.push(' ');
            text.push_str(word);
        }
    }
}

/// The values of a header as text; bytes that are no UTF-8 cannot be part of a valid signature.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .map(|value| std::str::from_utf8(value.as_bytes()).unwrap_or("\u{fffd}"))
}
