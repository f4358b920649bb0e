//! Who calls, and the keys by which a caller proves it.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Secret, Timestamp};

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account on whose behalf the request is made.
    pub account: AccountId,
    /// Who it is within the account.
    pub identity: Identity,
}

/// Who a principal is within its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The account itself, by its root key.
    Root,
    /// A session of a role, as a running function has one.
    RoleSession {
        /// Name of the role, without its path.
        role: String,
        /// Name of the session: for a function's own session the function's name.
        session: String,
    },
}

impl Principal {
    /// The ARN that `sts:GetCallerIdentity` answers.
    pub fn arn(&self) -> String {
        let account = &self.account;
        match &self.identity {
            Identity::Root => format!("arn:aws:iam::{account}:root"),
            Identity::RoleSession { role, session } => {
                format!("arn:aws:sts::{account}:assumed-role/{role}/{session}")
            }
        }
    }
}

/// An access key, with a session token and an expiry when it is short-lived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credentials {
    /// Public half, for example `AKIA...` or, for a session, `ASIA...`.
    pub access_key_id: String,
    /// Secret half.
    pub secret_access_key: Secret<String>,
    /// Present for session credentials.
    pub session_token: Option<Secret<String>>,
    /// When session credentials end.
    pub expires: Option<Timestamp>,
}
