//! Published vectors, requests recorded from botocore, round trips and mutations.

use std::time::Duration;

use aws_lc_rs::digest;
use http::Request;
use http::header::AUTHORIZATION;
use http::request::Parts;
use lacewing_model::{Credentials, Digest, Region, Secret, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SKEW: Duration = Duration::from_secs(300);

fn sha256(bytes: &[u8]) -> Digest {
    let hash = digest::digest(&digest::SHA256, bytes);
    Digest::new(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a valid request").into_parts().0
}

fn credentials(token: Option<&str>) -> Credentials {
    Credentials {
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: Secret::new(SECRET.into()),
        session_token: token.map(|token| Secret::new(token.to_owned())),
        expires: None,
    }
}

fn region() -> Region {
    Region::new("us-east-1").expect("valid")
}

fn check(parts: &Parts, body: &[u8]) -> Result<(), Refusal> {
    Claim::read(parts)?.verify(parts, Some(&sha256(body)), SECRET, &KeyCache::new(8))
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    signature: String,
}

/// The values of AWS's published Signature Version 4 test suite: access key `AKIDEXAMPLE`, service
/// `service`, 30 August 2015.
#[test]
fn signatures_of_the_published_test_suite_are_accepted() {
    let text = include_str!("../../tests/vectors/aws_suite.json");
    let vectors: Vec<Vector> = serde_json::from_str(text).expect("the vectors are JSON");
    assert_eq!(vectors.len(), 9);
    for Vector { name, method, target, headers: extra, body, signature } in &vectors {
        let mut names = vec!["host", "x-amz-date"];
        names.extend(extra.iter().map(|(name, _)| name.as_str()));
        names.sort_unstable();
        names.dedup();
        let authorization = format!(
            "{ALGORITHM} Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={}, Signature={signature}",
            names.join(";")
        );
        let mut headers = vec![
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", authorization.as_str()),
        ];
        headers.extend(extra.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        assert_eq!(check(&parts(method, target, &headers), body.as_bytes()), Ok(()), "{name}");
    }
}

#[derive(Deserialize)]
struct Recording {
    now: String,
    secret_access_key: String,
    requests: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    name: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    token: Option<String>,
}

#[test]
fn requests_that_botocore_signed_are_accepted() {
    let text = include_str!("../../tests/vectors/botocore.json");
    let recording: Recording = serde_json::from_str(text).expect("the recording is JSON");
    assert_eq!(recording.now, "20261121T085330Z");
    let now = Timestamp::from_seconds(1_795_251_210);
    assert_eq!(sign::amz_date(now), recording.now);
    for request in &recording.requests {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let parts = parts(&request.method, &request.target, &headers);
        let name = &request.name;
        let claim = Claim::read(&parts).unwrap_or_else(|error| panic!("{name}: {error}"));
        let verdict = claim.verify(
            &parts,
            Some(&sha256(request.body.as_bytes())),
            &recording.secret_access_key,
            &KeyCache::new(8),
        );
        assert_eq!(verdict, Ok(()), "{name}");
        assert_eq!(claim.token(), request.token.as_deref(), "{name}");
        assert_eq!(claim.check_region(&region()), Ok(()), "{name}");
        assert_eq!(claim.check_time(now, SKEW), Ok(()), "{name}");
    }
}

fn signed(method: &str, target: &str, body: &[u8], token: Option<&str>, now: Timestamp) -> Parts {
    let mut parts = parts(method, target, &[("host", "127.0.0.1:9000"), ("x-amz-extra", "one")]);
    let credentials = credentials(token);
    let region = region();
    let signer = Signer { credentials: &credentials, region: &region, service: "lambda" };
    signer.sign(&mut parts, Payload::Bytes(body), now).expect("signs");
    parts
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_251_210)
}

#[test]
fn a_body_that_was_changed_on_the_way_is_refused() {
    let parts = signed("POST", "/2015-03-31/functions", b"{}", None, now());
    assert_eq!(check(&parts, b"{}"), Ok(()));
    assert!(matches!(check(&parts, b"{ }"), Err(Refusal::Invalid(_))));
}

#[test]
fn a_declared_digest_lets_the_signature_be_checked_before_the_body_is_read() {
    let mut parts = signed("POST", "/2015-03-31/functions", b"{}", None, now());
    let verdict = |parts: &Parts| {
        Claim::read(parts).expect("a claim").verify(parts, None, SECRET, &KeyCache::new(8))
    };
    assert_eq!(verdict(&parts), Ok(()));
    parts.headers.insert("x-amz-extra", http::HeaderValue::from_static("two"));
    assert_eq!(verdict(&parts), Err(Refusal::Mismatch));
}

#[test]
fn an_unsigned_body_may_be_anything() {
    let mut parts = parts("POST", "/x", &[("host", "localhost")]);
    let (credentials, region) = (credentials(None), region());
    let signer = Signer { credentials: &credentials, region: &region, service: "lambda" };
    signer.sign(&mut parts, Payload::Unsigned, now()).expect("signs");
    assert_eq!(check(&parts, b"whatever"), Ok(()));
}

#[test]
fn a_link_ends_when_its_time_is_over() {
    let mut parts = parts("GET", "http://localhost:9000/code?version=1", &[]);
    let (credentials, region) = (credentials(Some("to/ken+=")), region());
    let signer = Signer { credentials: &credentials, region: &region, service: "lacewing" };
    signer.presign(&mut parts, now(), Duration::from_secs(600)).expect("signs");
    parts.headers.clear();
    let claim = Claim::read(&parts).expect("a claim");
    assert_eq!(claim.token(), Some("to/ken+="));
    assert_eq!(check(&parts, b""), Ok(()));
    let at = |seconds| claim.check_time(now().plus(Duration::from_secs(seconds)), SKEW);
    assert_eq!(at(600), Ok(()));
    let Err(Refusal::Invalid(message)) = at(601) else { panic!("an old link was accepted") };
    assert!(message.starts_with("Signature expired: 20261121T090330Z is now earlier"), "{message}");
}

#[test]
fn a_request_is_good_for_five_minutes_on_either_side() {
    let parts = signed("GET", "/", b"", None, now());
    let claim = Claim::read(&parts).expect("a claim");
    assert_eq!(claim.check_time(now().plus(SKEW), SKEW), Ok(()));
    let Err(Refusal::Invalid(late)) =
        claim.check_time(now().plus(SKEW + Duration::from_secs(1)), SKEW)
    else {
        panic!("an old signature was accepted");
    };
    assert_eq!(
        late,
        "Signature expired: 20261121T085330Z is now earlier than 20261121T085331Z \
         (20261121T085831Z - 5 min.)"
    );
    let before = Timestamp::from_seconds(now().as_seconds() - 301);
    let Err(Refusal::Invalid(early)) = claim.check_time(before, SKEW) else {
        panic!("a signature of the future was accepted");
    };
    assert!(early.starts_with("Signature not yet current: 20261121T085330Z"), "{early}");
}

#[test]
fn what_is_missing_is_named() {
    let read = |headers: &[(&str, &str)]| Claim::read(&parts("GET", "/", headers)).err();
    assert_eq!(read(&[]), Some(Refusal::Missing));
    let Some(Refusal::Incomplete(message)) = read(&[("authorization", ALGORITHM)]) else {
        panic!("an empty claim was read");
    };
    insta::assert_snapshot!(message);
    let foreign = read(&[("authorization", "Bearer abc")]);
    assert!(matches!(foreign, Some(Refusal::Incomplete(_))), "{foreign:?}");
}

#[test]
fn a_header_of_ours_that_is_not_signed_is_refused() {
    let mut parts = signed("GET", "/", b"", None, now());
    parts.headers.insert("x-amz-log-type", http::HeaderValue::from_static("Tail"));
    assert!(matches!(Claim::read(&parts), Err(Refusal::Invalid(_))));
}

#[test]
fn a_scope_of_another_day_or_form_is_refused() {
    let forge = |from: &str, to: &str| {
        let mut parts = signed("GET", "/", b"", None, now());
        let old = parts.headers[AUTHORIZATION].to_str().expect("ASCII").replace(from, to);
        parts.headers.insert(AUTHORIZATION, old.parse().expect("a header value"));
        Claim::read(&parts).err()
    };
    assert!(matches!(forge("/20261121/", "/20261122/"), Some(Refusal::Invalid(_))));
    assert!(matches!(forge("aws4_request", "aws5_request"), Some(Refusal::Invalid(_))));
    assert!(matches!(forge("/lambda/", "/"), Some(Refusal::Incomplete(_))));
    assert!(matches!(forge("SignedHeaders=host;", "SignedHeaders="), Some(Refusal::Invalid(_))));
}

#[test]
fn only_sts_may_be_signed_for_the_global_region() {
    let other = Region::new("eu-west-1").expect("valid");
    let claim = Claim::read(&signed("GET", "/", b"", None, now())).expect("a claim");
    assert!(claim.check_region(&other).is_err());
    assert_eq!(claim.check_region(&region()), Ok(()));
}

/// A change of a request that must not survive the check.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    Method,
    Path,
    Query,
    Header,
    Host,
    Secret,
    Signature,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        Just(Mutation::Method),
        Just(Mutation::Path),
        Just(Mutation::Query),
        Just(Mutation::Header),
        Just(Mutation::Host),
        Just(Mutation::Secret),
        Just(Mutation::Signature),
    ]
}

fn mutate(parts: &mut Parts, mutation: Mutation) {
    let target = parts.uri.to_string();
    match mutation {
        Mutation::Method => parts.method = http::Method::PATCH,
        Mutation::Path => parts.uri = format!("/x{target}").parse().expect("a URI"),
        Mutation::Query => parts.uri = format!("{target}&added=1").parse().expect("a URI"),
        Mutation::Header => {
            parts.headers.insert("x-amz-extra", http::HeaderValue::from_static("changed"));
        }
        Mutation::Host => {
            parts.headers.insert("host", http::HeaderValue::from_static("elsewhere"));
        }
        Mutation::Secret => {}
        Mutation::Signature => {
            let mut value = parts.headers[AUTHORIZATION].to_str().expect("ASCII").to_owned();
            let last = value.pop().expect("not empty");
            value.push(if last == '0' { '1' } else { '0' });
            parts.headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
        }
    }
}

proptest! {
    #[test]
    fn what_was_signed_is_accepted_and_any_change_is_refused(
        method in "(GET|POST|PUT|DELETE)",
        path in "(/[a-zA-Z0-9%$:._~ -]{0,12}){1,5}",
        query in "([a-z]{1,5}=[a-zA-Z0-9+/ ,%-]{0,9}&){0,4}z=1",
        body in proptest::collection::vec(any::<u8>(), 0..200),
        token in proptest::option::of("[A-Za-z0-9+/=]{1,40}"),
        mutation in mutation(),
    ) {
        // What a client sends is encoded; a lone percent sign is left in on purpose.
        let target = format!("{path}?{query}").replace(' ', "%20");
        let mut parts = signed(&method, &target, &body, token.as_deref(), now());
        prop_assert_eq!(check(&parts, &body), Ok(()));
        mutate(&mut parts, mutation);
        let secret = if matches!(mutation, Mutation::Secret) { "another" } else { SECRET };
        let verdict = Claim::read(&parts).and_then(|claim| {
            claim.verify(&parts, Some(&sha256(&body)), secret, &KeyCache::new(8))
        });
        prop_assert!(verdict.is_err(), "{:?} was not noticed", mutation);
    }

    #[test]
    fn hostile_claims_are_refused_without_a_panic(
        value in "(AWS4-HMAC-SHA256 )?[ -~]{0,200}",
        date in "[ -~]{0,30}",
        query in "[!-~&&[^#\"<>`{}\\\\^|]]{0,120}",
    ) {
        let target = format!("/?{query}");
        let Ok(request) = Request::builder()
            .uri(&target)
            .header("host", "x")
            .header("authorization", &value)
            .header("x-amz-date", &date)
            .body(())
        else {
            return Ok(());
        };
        let parts = request.into_parts().0;
        if let Ok(claim) = Claim::read(&parts) {
            prop_assert!(claim.verify(&parts, None, SECRET, &KeyCache::new(1)).is_err());
        }
    }
}
