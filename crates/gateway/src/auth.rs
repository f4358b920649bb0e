//! Who calls: from a signed request to a principal.
//!
//! Two steps, because a body may lie between them: [`Authenticator::admit`] looks at headers, scope,
//! key and time, and at the signature if the request declares its body's digest; `Pending::finish`
//! checks the signature against the body that was received.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use lacewing_model::{Clock, Credentials, Digest, Principal, Region};
use lacewing_services::{Identity, LookupError};

use crate::sigv4::{Claim, Declared, KeyCache, Refusal};

/// Signing keys that are kept: one for each access key, day and service in use.
const KEYS: usize = 1_024;
/// Services that a signature may be for.
const SERVICES: [&str; 3] = ["lambda", "sts", "lacewing"];

/// A caller whose signature is right.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Who it is.
    pub(crate) principal: Principal,
    /// The key it signed with, to make links that carry the caller's own permissions.
    pub(crate) credentials: Credentials,
}

/// A caller whose key is known and whose signature may still be wrong.
#[derive(Debug)]
pub(crate) struct Pending {
    claim: Claim,
    caller: Caller,
}

/// Checks signatures.
#[derive(Debug)]
pub(crate) struct Authenticator {
    identity: Identity,
    region: Region,
    skew: Duration,
    clock: Arc<dyn Clock>,
    keys: KeyCache,
}

impl Authenticator {
    /// An authenticator for the keys that `identity` knows.
    pub(crate) fn new(
        identity: Identity,
        region: Region,
        skew: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { identity, region, skew, clock, keys: KeyCache::new(KEYS) }
    }

    /// Checks all that can be checked before the body is read.
    pub(crate) fn admit(&self, parts: &Parts) -> Result<Pending, Refusal> {
        let claim = Claim::read(parts)?;
        if !SERVICES.contains(&claim.service()) {
            let services = SERVICES.join("', '");
            let message = format!(
                "Credential should be scoped to correct service: one of '{services}', not '{}'.",
                claim.service()
            );
            return Err(Refusal::Invalid(message));
        }
        claim.check_region(&self.region)?;
        let key = self.identity.lookup(claim.access_key_id(), claim.token());
        let key = key.map_err(|error| match error {
            LookupError::Unknown | LookupError::BadToken => Refusal::UnknownKey,
            LookupError::Expired => Refusal::ExpiredToken,
        })?;
        claim.check_time(self.clock.now(), self.skew)?;
        if claim.declared() != Declared::Nothing {
            claim.verify(parts, None, key.secret.expose(), &self.keys)?;
        }
        let credentials = Credentials {
            access_key_id: claim.access_key_id().to_owned(),
            secret_access_key: key.secret,
            session_token: claim.token().map(|token| lacewing_model::Secret::new(token.to_owned())),
            expires: None,
        };
        Ok(Pending { claim, caller: Caller { principal: key.principal, credentials } })
    }

    /// Checks the signature against the body.
    pub(crate) fn finish(
        &self,
        pending: Pending,
        parts: &Parts,
        body: &Digest,
    ) -> Result<Caller, Refusal> {
        let Pending { claim, caller } = pending;
        let secret = caller.credentials.secret_access_key.expose();
        claim.verify(parts, Some(body), secret, &self.keys)?;
        Ok(caller)
    }
}

impl Pending {
    /// The service that the signature is for.
    pub(crate) fn service(&self) -> &str {
        self.claim.service()
    }
}
