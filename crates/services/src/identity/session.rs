//! Sessions of roles as sealed tokens.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lacewing_model::principal::Identity as Who;
use lacewing_model::{
    AccountId, Credentials, Error, Function, Principal, Result, Secret, Timestamp,
};
use lacewing_store::seal::TokenSealer;
use serde::{Deserialize, Serialize};

use super::{Key, key};

/// How long a session lasts: the most that a role's session may last.
const LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// The format of what is inside a token.
const FORMAT: u32 = 1;
/// Longest token that is looked at.
const LONGEST: usize = 4_096;

/// What a token holds.
#[derive(Serialize, Deserialize)]
pub(super) struct Session {
    format: u32,
    account: AccountId,
    role: String,
    session: String,
    pub(super) access_key_id: String,
    secret: Secret<String>,
    pub(super) expires: Timestamp,
}

impl Session {
    /// The key that this session signs with.
    pub(super) fn into_key(self) -> Key {
        let identity = Who::RoleSession { role: self.role, session: self.session };
        let principal = Principal { account: self.account, identity };
        Key { secret: self.secret, principal }
    }
}

/// Starts a session of `role` for a function.
pub(super) fn start(
    tokens: &TokenSealer,
    function: &Function,
    role: &str,
    now: Timestamp,
) -> Result<Credentials> {
    let (access_key_id, secret) = key::pair(key::SESSION)?;
    let session = Session {
        format: FORMAT,
        account: function.key.account.clone(),
        role: role.to_owned(),
        session: function.key.name.as_str().to_owned(),
        access_key_id,
        secret,
        expires: now.plus(LIFETIME),
    };
    let plain = serde_json::to_vec(&session)
        .map_err(|error| Error::internal("A session could not be written.", error))?;
    let token = STANDARD.encode(tokens.seal_token(&plain));
    Ok(Credentials {
        access_key_id: session.access_key_id,
        secret_access_key: session.secret,
        session_token: Some(Secret::new(token)),
        expires: Some(session.expires),
    })
}

/// Opens a token; `None` for everything that is not one of ours.
pub(super) fn open(tokens: &TokenSealer, token: &str) -> Option<Session> {
    if token.len() > LONGEST {
        return None;
    }
    let plain = tokens.open_token(&STANDARD.decode(token).ok()?).ok()?;
    let session: Session = serde_json::from_slice(&plain).ok()?;
    (session.format == FORMAT).then_some(session)
}
