//! Giving functions concurrency of their own: what all versions of one may run at once, whatever
//! others do. Who may start now is decided by the pool, which is told what the catalog shows.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html>.

use lacewing_model::{AccountId, Error, FunctionKey, Kind, Region, Result, limits};
use lacewing_store::{Expect, StoreError};

use super::Functions;
use crate::record::concurrency::{self, Concurrency};

impl Functions {
    /// Reserves concurrent invocations for a function, which gets no more than these; 0 turns it
    /// off.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if too little would be left for all others.
    pub async fn reserve(&self, key: &FunctionKey, reserved: u32) -> Result<()> {
        // One at a time: two at once might take what is left twice.
        let _only = self.0.reserving.lock().await;
        let lineage = self.get(key)?.lineage;
        self.check_left(key, reserved)?;
        let bytes = concurrency::encode(Concurrency { lineage, reserved })?;
        let stored = concurrency::key(key);
        let revision = self.0.store.records.put(&stored, bytes, Expect::Any).await?;
        self.0.catalog.applied(revision).await
    }

    /// Takes back what was reserved for a function; none is taken back already.
    ///
    /// # Errors
    /// `NotFound` for the function.
    pub async fn unreserve(&self, key: &FunctionKey) -> Result<()> {
        let _only = self.0.reserving.lock().await;
        let _exists = self.get(key)?;
        match self.0.store.records.delete(&concurrency::key(key), Expect::Any).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is reserved for a function, if anything is.
    ///
    /// # Errors
    /// `NotFound` for the function.
    pub fn reserved(&self, key: &FunctionKey) -> Result<Option<u32>> {
        let _exists = self.get(key)?;
        Ok(self.0.catalog.reserved(key))
    }

    /// Concurrent invocations of an account that no function has for itself, reserved or provisioned.
    pub fn unreserved(&self, account: &AccountId, region: &Region) -> u32 {
        let taken = self.0.catalog.guaranteed_in_all(account, region);
        self.0.account_concurrency.saturating_sub(taken)
    }

    /// Fails if the account's other functions would be left with too little. Taking less than
    /// before is always possible, also when the account's limit was lowered meanwhile.
    fn check_left(&self, key: &FunctionKey, reserved: u32) -> Result<()> {
        let provisioned = self.0.catalog.provisioned_of(key);
        if reserved < provisioned {
            let message = format!(
                "ReservedConcurrentExecutions {reserved} should not be lower than function's \
                 total provisioned concurrency [{provisioned}]."
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let before = self.0.catalog.reserved(key).unwrap_or(provisioned);
        let left = self.unreserved(&key.account, &key.region).saturating_add(before);
        // An account that has no more than this by itself cannot reserve any, as on AWS.
        let least = limits::UNRESERVED_CONCURRENCY.min(self.0.account_concurrency);
        if reserved <= before || left.checked_sub(reserved).is_some_and(|left| left >= least) {
            return Ok(());
        }
        let message = format!(
            "Specified ReservedConcurrentExecutions for function decreases account's \
             UnreservedConcurrentExecution below its minimum value of [{least}]."
        );
        Err(Error::new(Kind::Invalid, message))
    }
}
