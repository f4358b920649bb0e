//! Signing a request as a client: in the `Authorization` header, or in the query for a link.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use lacewing_model::{Credentials, Region, Timestamp, hex};

use crate::sigv4::{ALGORITHM, TERMINATOR, UNSIGNED_PAYLOAD, canonical, key};

/// The body of a request as far as its signature cares.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// The signature covers these bytes.
    Bytes(&'a [u8]),
    /// The signature does not cover the body.
    Unsigned,
}

/// Why a request could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is neither a `Host` header nor an authority in the URI.
    #[error("The request names no host.")]
    NoHost,
    /// A credential cannot be written into a header or URI.
    #[error("A part of the credentials cannot be sent in a request.")]
    Credentials(#[source] http::Error),
}

/// Who signs, and for which region and service.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The key to sign with; its session token is sent along.
    pub credentials: &'a Credentials,
    /// The region of the scope.
    pub region: &'a Region,
    /// The service of the scope, for example `lambda`.
    pub service: &'a str,
}

impl Signer<'_> {
    /// Adds `host`, `x-amz-date`, `x-amz-content-sha256`, `x-amz-security-token` and
    /// `authorization` to the request's headers.
    ///
    /// # Errors
    /// If the request has no host, or the credentials hold characters that no header may have.
    pub fn sign(
        &self,
        parts: &mut Parts,
        payload: Payload<'_>,
        now: Timestamp,
    ) -> Result<(), SignError> {
        let payload = match payload {
            Payload::Bytes(bytes) => canonical::sha256_hex(bytes),
            Payload::Unsigned => UNSIGNED_PAYLOAD.to_owned(),
        };
        let amz_date = amz_date(now);
        insert_host(parts)?;
        insert(parts, HeaderName::from_static("x-amz-date"), &amz_date)?;
        insert(parts, HeaderName::from_static("x-amz-content-sha256"), &payload)?;
        if let Some(token) = &self.credentials.session_token {
            insert(parts, HeaderName::from_static("x-amz-security-token"), token.expose())?;
        }
        let signed = signed_headers(parts);
        let signature = self.signature(parts, &signed, &payload, &amz_date);
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.credentials.access_key_id,
            self.scope(&amz_date),
            signed,
        );
        insert(parts, AUTHORIZATION, &authorization)
    }

    /// Turns the request's URI into a link that is valid for `valid_for` and needs no headers but
    /// `Host`; its body, if any, is not covered.
    ///
    /// # Errors
    /// If the request has no host, or the credentials cannot be part of a URI.
    pub fn presign(
        &self,
        parts: &mut Parts,
        now: Timestamp,
        valid_for: Duration,
    ) -> Result<(), SignError> {
        let amz_date = amz_date(now);
        insert_host(parts)?;
        let credential = format!("{}/{}", self.credentials.access_key_id, self.scope(&amz_date));
        let mut query = parts.uri.query().map(|query| format!("{query}&")).unwrap_or_default();
        query.push_str(&format!(
            "X-Amz-Algorithm={ALGORITHM}&X-Amz-Content-Sha256={UNSIGNED_PAYLOAD}\
             &X-Amz-Credential={}&X-Amz-Date={amz_date}&X-Amz-Expires={}",
            canonical::encode(&credential),
            valid_for.as_secs(),
        ));
        if let Some(token) = &self.credentials.session_token {
            query.push_str("&X-Amz-Security-Token=");
            query.push_str(&canonical::encode(token.expose()));
        }
        query.push_str("&X-Amz-SignedHeaders=host");
        set_query(&mut parts.uri, &query)?;
        let signature = self.signature(parts, "host", UNSIGNED_PAYLOAD, &amz_date);
        set_query(&mut parts.uri, &format!("{query}&X-Amz-Signature={signature}"))
    }

    fn scope(&self, amz_date: &str) -> String {
        format!("{}/{}/{}/{TERMINATOR}", &amz_date[..8], self.region, self.service)
    }

    fn signature(
        &self,
        parts: &Parts,
        signed_headers: &str,
        payload: &str,
        amz_date: &str,
    ) -> String {
        let scope = self.scope(amz_date);
        let request = canonical::request_hash(parts, signed_headers, payload);
        let text = canonical::string_to_sign(amz_date, &scope, &request);
        let key = key::derive(self.credentials.secret_access_key.expose(), &scope);
        hex(hmac::sign(&key, text.as_bytes()).as_ref())
    }
}

/// `20261121T085330Z`.
pub(super) fn amz_date(moment: Timestamp) -> String {
    moment.to_jiff().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Names of the headers that are signed, sorted, with `;` between them: all that a proxy on the way
/// does not change.
fn signed_headers(parts: &Parts) -> String {
    let signs = |name: &HeaderName| {
        name == HOST || name == CONTENT_TYPE || name.as_str().starts_with("x-amz-")
    };
    let mut names: Vec<&str> =
        parts.headers.keys().filter(|name| signs(name)).map(HeaderName::as_str).collect();
    names.sort_unstable();
    names.join(";")
}

fn insert_host(parts: &mut Parts) -> Result<(), SignError> {
    let host = canonical::host(parts).ok_or(SignError::NoHost)?.to_owned();
    insert(parts, HOST, &host)
}

fn insert(parts: &mut Parts, name: HeaderName, value: &str) -> Result<(), SignError> {
    let value =
        HeaderValue::from_str(value).map_err(|error| SignError::Credentials(error.into()))?;
    parts.headers.insert(name, value);
    Ok(())
}

fn set_query(uri: &mut Uri, query: &str) -> Result<(), SignError> {
    let mut parts = uri.clone().into_parts();
    let target = format!("{}?{query}", uri.path());
    let target =
        PathAndQuery::try_from(target).map_err(|error| SignError::Credentials(error.into()))?;
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|error| SignError::Credentials(error.into()))?;
    Ok(())
}
