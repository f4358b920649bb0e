//! What a request says about who signed it, before anything of it is believed.
//!
//! A claim is read from the headers or the query alone, so that a request without a plausible
//! signature is refused before its body is read. `verify` compares in constant time.

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE, HeaderName};
use http::request::Parts;
use lacewing_model::{Digest, Region, Timestamp, hex};
use percent_encoding::percent_decode_str;

use crate::sigv4::sign::amz_date;
use crate::sigv4::{ALGORITHM, KeyCache, Refusal, TERMINATOR, UNSIGNED_PAYLOAD, canonical};

/// Longest validity of a presigned request: seven days.
const MAX_EXPIRES: u64 = 604_800;
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What the request says about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// Nothing: the signature covers whatever the body is.
    Nothing,
    /// The signature covers no body.
    Unsigned,
    /// The body has this digest.
    Digest(Digest),
}

/// The identity that a request claims, with what is needed to check it.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    access_key_id: String,
    /// `DATE/REGION/SERVICE/aws4_request`, four parts as was checked.
    scope: String,
    /// Names with `;` between them.
    signed_headers: String,
    signature: String,
    token: Option<String>,
    amz_date: String,
    moment: Timestamp,
    valid_for: Option<Duration>,
    declared: Declared,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("access_key_id", &self.access_key_id)
            .field("scope", &self.scope)
            .field("amz_date", &self.amz_date)
            .finish_non_exhaustive()
    }
}

impl Claim {
    /// Reads the claim of a request from its `Authorization` header or its query.
    ///
    /// # Errors
    /// `Missing` if there is none, `Incomplete` or `Invalid` if it cannot be a valid one.
    pub fn read(parts: &Parts) -> Result<Self, Refusal> {
        let query = Query::read(parts.uri.query().unwrap_or_default());
        let claim = match (parts.headers.get(AUTHORIZATION), query.algorithm.as_deref()) {
            (None, None) => return Err(Refusal::Missing),
            (Some(_), Some(_)) => {
                let message = "Only one of an 'Authorization' header and an 'X-Amz-Algorithm' \
                               parameter is allowed.";
                return Err(Refusal::Incomplete(message.to_owned()));
            }
            (Some(value), None) => {
                let value = value.to_str().map_err(|_| Refusal::Missing)?;
                Self::from_header(value, &parts.headers)?
            }
            (None, Some(_)) => Self::from_query(query, &parts.headers)?,
        };
        claim.check_signed_headers(&parts.headers)?;
        Ok(claim)
    }

    /// The public half of the key.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The session token that came along.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The service of the credential scope.
    pub fn service(&self) -> &str {
        self.scope.split('/').nth(2).unwrap_or_default()
    }

    /// What the request says about its body.
    pub fn declared(&self) -> Declared {
        self.declared
    }

    /// Checks that the scope names this region.
    ///
    /// # Errors
    /// `Invalid` for another region.
    pub fn check_region(&self, region: &Region) -> Result<(), Refusal> {
        // The global endpoint of STS signs for us-east-1 whatever the client's region is.
        let named = self.scope.split('/').nth(1).unwrap_or_default();
        let global = self.service() == "sts" && named == "us-east-1";
        if named == region.as_str() || global {
            return Ok(());
        }
        let message = format!(
            "Credential should be scoped to a valid region, not '{named}': this is '{region}'."
        );
        Err(Refusal::Invalid(message))
    }

    /// Checks that the request was signed at most `skew` before or after `now`, or for a presigned
    /// one that its time has come and not passed.
    ///
    /// # Errors
    /// `Invalid` with AWS's text.
    pub fn check_time(&self, now: Timestamp, skew: Duration) -> Result<(), Refusal> {
        let minutes = skew.as_secs() / 60;
        let signed = &self.amz_date;
        // Written out only for those who are told.
        let now_text = || amz_date(now);
        if self.moment.since(now) > skew {
            let bound = amz_date(now.plus(skew));
            return Err(Refusal::Invalid(format!(
                "Signature not yet current: {signed} is still later than {bound} ({} + \
                 {minutes} min.)",
                now_text()
            )));
        }
        match self.valid_for {
            None if now.since(self.moment) > skew => {
                let earliest = now.as_micros() - i64::try_from(skew.as_micros()).unwrap_or(0);
                let bound = amz_date(Timestamp::from_micros(earliest));
                Err(Refusal::Invalid(format!(
                    "Signature expired: {signed} is now earlier than {bound} ({} - \
                     {minutes} min.)",
                    now_text()
                )))
            }
            Some(valid_for) if now > self.moment.plus(valid_for) => {
                let end = amz_date(self.moment.plus(valid_for));
                Err(Refusal::Invalid(format!(
                    "Signature expired: {end} is now earlier than {}",
                    now_text()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Compares the signature with the one that `secret` gives for this request.
    ///
    /// `body` is the digest of the body as it was received; it may be left out while the body has
    /// not been read and the request declares its digest.
    ///
    /// # Errors
    /// `Mismatch`, or `Invalid` if the body is not what the request declares.
    pub fn verify(
        &self,
        parts: &Parts,
        body: Option<&Digest>,
        secret: &str,
        keys: &KeyCache,
    ) -> Result<(), Refusal> {
        let payload: Cow<'static, str> = match (self.declared, body) {
            (Declared::Unsigned, _) => UNSIGNED_PAYLOAD.into(),
            (Declared::Digest(declared), body) => {
                if body.is_some_and(|body| *body != declared) {
                    let message = "The provided 'x-amz-content-sha256' header does not match what \
                                   was computed.";
                    return Err(Refusal::Invalid(message.to_owned()));
                }
                declared.to_string().into()
            }
            (Declared::Nothing, Some(body)) => body.to_string().into(),
            (Declared::Nothing, None) => return Err(Refusal::Mismatch),
        };
        let request = canonical::request_hash(parts, &self.signed_headers, &payload);
        let text = canonical::string_to_sign(&self.amz_date, &self.scope, &request);
        let key = keys.get(secret, &self.scope);
        let expected = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        constant_time::verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes())
            .map_err(|_| Refusal::Mismatch)
    }

    fn from_header(value: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        let fields = value.strip_prefix(ALGORITHM).ok_or_else(|| {
            let message = format!("Unsupported AWS 'algorithm': only '{ALGORITHM}' is supported.");
            Refusal::Incomplete(message)
        })?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            match field.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => signed_headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => {}
            }
        }
        let date = text(headers, &AMZ_DATE).or_else(|| text(headers, &DATE));
        let (Some(credential), Some(signed_headers), Some(signature), Some(date)) =
            (credential, signed_headers, signature, date)
        else {
            let absent = [
                (credential.is_none(), "requires 'Credential' parameter."),
                (signature.is_none(), "requires 'Signature' parameter."),
                (signed_headers.is_none(), "requires 'SignedHeaders' parameter."),
                (date.is_none(), "requires existence of either a 'X-Amz-Date' or a 'Date' header."),
            ];
            let absent: Vec<String> = absent
                .into_iter()
                .filter(|(is_absent, _)| *is_absent)
                .map(|(_, what)| format!("Authorization header {what}"))
                .collect();
            return Err(Refusal::Incomplete(absent.join(" ")));
        };
        let token = text(headers, &TOKEN).map(str::to_owned);
        let content = text(headers, &CONTENT);
        let proof = Proof { credential, signed_headers, signature, date };
        Self::assemble(&proof, token, None, declared(content)?)
    }

    fn from_query(query: Query, headers: &HeaderMap) -> Result<Self, Refusal> {
        if query.algorithm.as_deref() != Some(ALGORITHM) {
            let message = format!("X-Amz-Algorithm only supports \"{ALGORITHM}\"");
            return Err(Refusal::Incomplete(message));
        }
        let require = |value: &Option<String>, name: &str| {
            value.clone().ok_or_else(|| {
                Refusal::Incomplete(format!("AWS query-string parameters must include '{name}'."))
            })
        };
        let expires = require(&query.expires, "X-Amz-Expires")?;
        let expires = expires.parse().ok().filter(|expires| *expires <= MAX_EXPIRES);
        let expires = expires.ok_or_else(|| {
            let message = format!("X-Amz-Expires must be a number from 0 to {MAX_EXPIRES}.");
            Refusal::Incomplete(message)
        })?;
        let proof = Proof {
            credential: &require(&query.credential, "X-Amz-Credential")?,
            signed_headers: &require(&query.signed_headers, "X-Amz-SignedHeaders")?,
            signature: &require(&query.signature, canonical::SIGNATURE_PARAMETER)?,
            date: &require(&query.date, "X-Amz-Date")?,
        };
        let content = query.content.as_deref().or_else(|| text(headers, &CONTENT));
        let declared = declared(content)?;
        Self::assemble(&proof, query.token, Some(Duration::from_secs(expires)), declared)
    }

    fn assemble(
        proof: &Proof<'_>,
        token: Option<String>,
        valid_for: Option<Duration>,
        declared: Declared,
    ) -> Result<Self, Refusal> {
        let (access_key_id, scope) = proof.credential.split_once('/').unwrap_or_default();
        let mut parts = scope.split('/');
        let (Some(date), Some(_region), Some(_service), Some(terminator), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            let message = "Credential must have exactly 5 slash-delimited elements, e.g. \
                           keyid/date/region/service/term.";
            return Err(Refusal::Incomplete(message.to_owned()));
        };
        if terminator != TERMINATOR {
            let message =
                format!("Credential should be scoped with a valid terminator: '{TERMINATOR}'.");
            return Err(Refusal::Invalid(message));
        }
        let (moment, amz_date) = signing_date(proof.date).ok_or_else(|| {
            let message = "Date must be in ISO-8601 'basic format', for example \
                           '20150830T123600Z'.";
            Refusal::Incomplete(message.to_owned())
        })?;
        if date != &amz_date[..8] {
            let message = format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{date}' != '{}', from '{amz_date}'.",
                &amz_date[..8]
            );
            return Err(Refusal::Invalid(message));
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            scope: scope.to_owned(),
            signed_headers: proof.signed_headers.to_owned(),
            signature: proof.signature.to_owned(),
            token,
            amz_date,
            moment,
            valid_for,
            declared,
        })
    }

    /// The host and all `x-amz-` headers must be covered, so that none can be added on the way.
    fn check_signed_headers(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let covered = |name: &str| self.signed_headers.split(';').any(|signed| signed == name);
        if !covered("host") && !covered(":authority") {
            let message =
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        let open = |name: &&str| name.starts_with("x-amz-") && !covered(name);
        match headers.keys().map(http::HeaderName::as_str).find(open) {
            None => Ok(()),
            Some(name) => Err(Refusal::Invalid(format!(
                "'{name}' must be a 'SignedHeader' in the AWS Authorization."
            ))),
        }
    }
}

/// The four parts that every proof has.
struct Proof<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    date: &'a str,
}

/// The query parameters that make a request a presigned one.
#[derive(Default)]
struct Query {
    algorithm: Option<String>,
    credential: Option<String>,
    signed_headers: Option<String>,
    signature: Option<String>,
    date: Option<String>,
    expires: Option<String>,
    token: Option<String>,
    content: Option<String>,
}

impl Query {
    fn read(query: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let field = match name {
                "X-Amz-Algorithm" => &mut found.algorithm,
                "X-Amz-Credential" => &mut found.credential,
                "X-Amz-SignedHeaders" => &mut found.signed_headers,
                canonical::SIGNATURE_PARAMETER => &mut found.signature,
                "X-Amz-Date" => &mut found.date,
                "X-Amz-Expires" => &mut found.expires,
                "X-Amz-Security-Token" => &mut found.token,
                "X-Amz-Content-Sha256" => &mut found.content,
                _ => continue,
            };
            *field = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
        }
        found
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn declared(content: Option<&str>) -> Result<Declared, Refusal> {
    match content {
        None => Ok(Declared::Nothing),
        Some(UNSIGNED_PAYLOAD) => Ok(Declared::Unsigned),
        Some(hex) => hex.parse().map(Declared::Digest).map_err(|_| {
            let message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, or a valid sha256 value.";
            Refusal::Incomplete(message.to_owned())
        }),
    }
}

/// When it was signed, and that moment as it is signed: `20261121T085330Z`, or for a `Date` header
/// the HTTP date.
fn signing_date(text: &str) -> Option<(Timestamp, String)> {
    let moment = |moment: jiff::Timestamp| Timestamp::from_seconds(moment.as_second());
    if let Some(basic) = basic_date(text) {
        return Some((moment(basic), text.to_owned()));
    }
    let http_date = moment(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
    Some((http_date, amz_date(http_date)))
}

/// Reads `20261121T085330Z`. By hand: a format string costs more than the signature's hashes.
fn basic_date(text: &str) -> Option<jiff::Timestamp> {
    let text: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let digits = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0_i16, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i16::from(digit - b'0'))
        })
    };
    let pair = |from| digits(from, from + 2).and_then(|number| i8::try_from(number).ok());
    if text[8] != b'T' || text[15] != b'Z' {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, pair(4)?, pair(6)?);
    let (hour, minute, second) = (pair(9)?, pair(11)?, pair(13)?);
    let moment = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    jiff::tz::Offset::UTC.to_timestamp(moment).ok()
}
