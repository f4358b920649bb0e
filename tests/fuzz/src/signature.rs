//! Signatures, in headers and in links: a request that was signed is verified, one that is changed
//! in any way that counts is not, and one that nobody signed never is.

use std::time::Duration;

use http::Request;
use http::request::Parts;

use lacewing_gateway::sigv4::{Claim, KeyCache, Payload, Signer};
use lacewing_model::{Credentials, Digest, Region, Secret, Timestamp};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2015-08-30T12:36:00Z.
const NOW: i64 = 1_440_938_160;
const SKEW: Duration = Duration::from_secs(300);

/// Reads the bytes as a request's head (a target, then `name: value` lines) and checks its claim;
/// then signs it both ways and checks that.
pub fn run(data: &[u8]) {
    let Some(parts) = head(data) else { return };
    let keys = KeyCache::new(16);
    let region = Region::new("us-east-1").expect("well formed");
    let now = Timestamp::from_seconds(NOW);
    if let Ok(claim) = Claim::read(&parts) {
        // Both may say yes: neither needs the key.
        let _timely = claim.check_time(now, SKEW).is_ok() && claim.check_region(&region).is_ok();
        let verified = claim.verify(&parts, Some(&empty()), SECRET, &keys);
        assert!(verified.is_err(), "a signature was forged");
        return;
    }
    let credentials = Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: Secret::new(SECRET.to_owned()),
        session_token: None,
        expires: None,
    };
    let signer = Signer { credentials: &credentials, region: &region, service: "lambda" };
    let mut signed = parts.clone();
    if signer.sign(&mut signed, Payload::Bytes(b""), now).is_ok() {
        check(&signed, &keys, now);
    }
    let mut link = parts;
    // A link's own parameters must not be there twice, which `Claim::read` refuses.
    if signer.presign(&mut link, now, Duration::from_secs(60)).is_ok() {
        check(&link, &keys, now);
    }
}

/// A claim that can be read holds; with another key or another path it does not.
fn check(parts: &Parts, keys: &KeyCache, now: Timestamp) {
    let Ok(claim) = Claim::read(parts) else { return };
    if claim.access_key_id() != "AKIDEXAMPLE" {
        // What was signed carries a claim of its own in the other place.
        return;
    }
    assert!(claim.check_time(now, SKEW).is_ok(), "{parts:?}");
    assert!(claim.verify(parts, Some(&empty()), SECRET, keys).is_ok(), "{parts:?}");
    assert!(claim.verify(parts, Some(&empty()), "another", keys).is_err());
    if parts.uri.path().contains("..") {
        // The signature covers the path without what leads up again, as AWS's do.
        return;
    }
    let mut moved = parts.clone();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(uri) = format!("/added{}{query}", parts.uri.path()).parse() {
        moved.uri = uri;
        assert!(claim.verify(&moved, Some(&empty()), SECRET, keys).is_err(), "{moved:?}");
    }
}

fn head(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut request = Request::builder().uri(lines.next()?);
    for line in lines.take(32) {
        let mut sides = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (sides.next()?, sides.next()?);
        request = request.header(name, value.trim_ascii());
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// The digest of no bytes.
fn empty() -> Digest {
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    text.parse().expect("a digest")
}
