//! Who calls, and what they may do: the root key, sessions of roles, and the one decision.
//!
//! Every account has one role, `lambda`, that may use the account's own resources, but not ask about
//! the node: that is for the root key. A session is a sealed token that carries everything: nothing
//! is stored for it, every node can read it, and it ends by its expiry alone. Everything here is in
//! memory; nothing waits.
//!
//! What it never does: log a secret, or compare one in a time that depends on it.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use lacewing_model::principal::Identity as Who;
use lacewing_model::{
    AccountId, Clock, Credentials, Error, Function, Kind, Principal, Result, Secret,
};
use lacewing_store::Store;
use lacewing_store::seal::{Sealer, TokenSealer};

use crate::Options;

mod credentials_file;
mod key;
pub(crate) mod roles;
mod root;
mod session;

/// What a function's own session may do in its account: use it, not change it, nor read what other
/// functions keep to themselves. Roles with policies of their own come with IAM.
const SESSION: &[&str] = &["lambda:InvokeFunction", "lambda:GetAccountSettings"];

/// The secret of an access key, and whose key it is.
#[derive(Clone, Debug)]
pub struct Key {
    /// The secret half.
    pub secret: Secret<String>,
    /// Whose key it is.
    pub principal: Principal,
}

/// Why a key was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such key.
    #[error("there is no such access key")]
    Unknown,
    /// The session token is not one of ours, or belongs to another key.
    #[error("the session token is invalid")]
    BadToken,
    /// The session is over.
    #[error("the session token has expired")]
    Expired,
}

/// Who calls, and what they may do; cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    account: AccountId,
    root: Credentials,
    lenient_roles: bool,
    tokens: Arc<TokenSealer>,
    clock: Arc<dyn Clock>,
}

impl Identity {
    /// Reads the root key, or makes it at the first start, and writes the credentials file.
    pub(crate) async fn open(
        options: &Options,
        store: &Store,
        sealer: &Sealer,
        tokens: Arc<TokenSealer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let root = root::load_or_create(store, sealer, options).await?;
        let path = options.data_dir.join(credentials_file::NAME);
        write_file(&path, &root, options)?;
        let (account, lenient_roles) = (options.account.clone(), options.lenient_roles);
        Ok(Self(Arc::new(Inner { account, root, lenient_roles, tokens, clock })))
    }

    /// The root key of the default account.
    pub fn root(&self) -> Credentials {
        self.0.root.clone()
    }

    /// Finds the secret of a key, so that the caller's signature can be checked.
    ///
    /// # Errors
    /// [`LookupError`] says what is wrong with key or token.
    pub fn lookup(
        &self,
        access_key_id: &str,
        session_token: Option<&str>,
    ) -> Result<Key, LookupError> {
        let Some(token) = session_token else {
            let root = &self.0.root;
            if !is_same(access_key_id, &root.access_key_id) {
                return Err(LookupError::Unknown);
            }
            let principal = Principal { account: self.0.account.clone(), identity: Who::Root };
            return Ok(Key { secret: root.secret_access_key.clone(), principal });
        };
        let session = session::open(&self.0.tokens, token).ok_or(LookupError::BadToken)?;
        if !is_same(access_key_id, &session.access_key_id) {
            return Err(LookupError::BadToken);
        }
        if self.0.clock.now() >= session.expires {
            return Err(LookupError::Expired);
        }
        Ok(session.into_key())
    }

    /// Credentials with which a running function calls the platform, as its role.
    ///
    /// # Errors
    /// `Internal` if a token cannot be made.
    pub fn session(&self, function: &Function) -> Result<Credentials> {
        let role = roles::parse(&function.config.role).map_or(roles::DEFAULT, |role| role.name);
        session::start(&self.0.tokens, function, role, self.0.clock.now())
    }

    /// Decides whether a principal may do something to a resource, named by its ARN or `*`.
    ///
    /// # Errors
    /// `Forbidden`, in words that name all three.
    pub fn authorize(&self, principal: &Principal, action: &str, resource: &str) -> Result<()> {
        let may_act = match &principal.identity {
            Who::Root => true,
            Who::RoleSession { role, .. } => {
                (role == roles::DEFAULT || self.0.lenient_roles) && SESSION.contains(&action)
            }
        };
        let is_own = account_of(resource).is_none_or(|owner| owner == principal.account.as_str());
        if may_act && is_own {
            return Ok(());
        }
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource}",
            principal.arn()
        );
        Err(Error::new(Kind::Forbidden, message))
    }

    /// Checks that a function of the account may run as this role.
    ///
    /// # Errors
    /// `Constraint` if it is no role's ARN, `Invalid` if there is no such role.
    pub fn check_role(&self, account: &AccountId, role_arn: &str) -> Result<()> {
        let Some(role) = roles::parse(role_arn) else {
            let message = format!(
                "1 validation error detected: Value '{role_arn}' at 'role' failed to satisfy \
                 constraint: Member must satisfy regular expression pattern: {}",
                roles::PATTERN
            );
            return Err(Error::new(Kind::Constraint, message));
        };
        let exists = role.account == account.as_str() && role.name == roles::DEFAULT;
        if exists || self.0.lenient_roles {
            return Ok(());
        }
        let message = "The role defined for the function cannot be assumed by Lambda.";
        Err(Error::new(Kind::Invalid, message))
    }
}

fn write_file(path: &Path, root: &Credentials, options: &Options) -> Result<()> {
    credentials_file::ensure(path, root, &options.region).map_err(|error| {
        Error::internal(format!("The credentials file {} was not written.", path.display()), error)
    })
}

fn is_same(one: &str, other: &str) -> bool {
    verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// The account in an ARN (`arn:partition:service:region:account:resource`), if it names one.
fn account_of(resource: &str) -> Option<&str> {
    let mut parts = resource.splitn(6, ':');
    if parts.next() != Some("arn") {
        return None;
    }
    let account = parts.nth(3)?;
    (!account.is_empty()).then_some(account)
}
