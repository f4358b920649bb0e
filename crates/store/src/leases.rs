//! Leases: names that one holder has at a time, for a while.

use std::fmt;
use std::time::Duration;

use lacewing_model::Timestamp;

use crate::{BoxFuture, Key, Result};

/// A name held until `expires`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name.
    pub name: Key,
    /// Fences off earlier holders: every later lease of the name has a greater token.
    pub token: u64,
    /// When the name is free again.
    pub expires: Timestamp,
}

/// Names that one holder has at a time.
pub trait Leases: fmt::Debug + Send + Sync {
    /// Takes the name for `ttl`, or answers `None` while another lease on it lasts.
    fn acquire<'a>(&'a self, name: &'a Key, ttl: Duration) -> BoxFuture<'a, Result<Option<Lease>>>;

    /// Prolongs the lease to `ttl` from now, under the same token.
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if it has expired or was released.
    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Result<Lease>>;

    /// Frees the name; a lease that holds no more is released already.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>>;
}
