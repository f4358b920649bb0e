//! Keeping Instances of published versions ready: how many of which, and what may be set. Who starts
//! and keeps them is the pool, which is told what the catalog shows.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html>.

use std::sync::Arc;

use lacewing_model::{
    Error, Function, FunctionConfig, FunctionKey, Kind, Qualifier, Result, Version, VersionKey,
    limits,
};
use lacewing_store::{Expect, StoreError};

use super::Functions;
use crate::record::provisioned::{self, Provision};

impl Functions {
    /// Keeps so many Instances of a version, or of that which an alias stands for, ready.
    ///
    /// # Errors
    /// `NotFound` for the function, version or alias; `Invalid` for what may have none and for more
    /// than there is left.
    pub async fn provision(
        &self,
        key: &FunctionKey,
        qualifier: &Qualifier,
        requested: u32,
    ) -> Result<Arc<Provision>> {
        // One at a time: two at once might take what is left twice.
        let _only = self.0.reserving.lock().await;
        let version = self.provisionable(key, qualifier)?;
        self.check_alone(&version, qualifier)?;
        self.check_provision_left(key, qualifier, requested)?;
        let (lineage, modified) = (version.lineage, self.0.clock.now());
        let (key, qualifier) = (key.clone(), qualifier.clone());
        let provision = Provision { key, qualifier, requested, modified, lineage };
        let stored = provisioned::key(&provision.key, &provision.qualifier.to_string());
        let bytes = provisioned::encode(&provision)?;
        let revision = self.0.store.records.put(&stored, bytes, Expect::Any).await?;
        self.0.catalog.applied(revision).await?;
        Ok(Arc::new(provision))
    }

    /// What is kept ready for a version or alias, and the version that it is kept of.
    ///
    /// # Errors
    /// `NotFound` for the function, version or alias; `NotConfigured`.
    pub fn provisioned(
        &self,
        key: &FunctionKey,
        qualifier: &Qualifier,
    ) -> Result<(Arc<Provision>, VersionKey)> {
        let version = self.get_named(key, Some(qualifier))?.version_key();
        let found = self.0.catalog.provision(key, &qualifier.to_string());
        found.map(|found| (found, version)).ok_or_else(|| {
            let message = "No Provisioned Concurrency Config found for this function";
            Error::new(Kind::NotConfigured, message)
        })
    }

    /// Keeps none ready any more; none is not kept already.
    ///
    /// # Errors
    /// `NotFound` for the function, version or alias.
    pub async fn unprovision(&self, key: &FunctionKey, qualifier: &Qualifier) -> Result<()> {
        let _only = self.0.reserving.lock().await;
        let _exists = self.get_named(key, Some(qualifier))?;
        self.forget_provision(key, qualifier).await
    }

    /// The same for what is being deleted.
    pub(super) async fn forget_provision(
        &self,
        key: &FunctionKey,
        qualifier: &Qualifier,
    ) -> Result<()> {
        let stored = provisioned::key(key, &qualifier.to_string());
        match self.0.store.records.delete(&stored, Expect::Any).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The version of which Instances may be kept ready under this name.
    fn provisionable(&self, key: &FunctionKey, qualifier: &Qualifier) -> Result<Arc<Function>> {
        let version = self.get_named(key, Some(qualifier))?;
        if let Qualifier::Alias(name) = qualifier
            && self.get_alias(key, name)?.second.is_some()
        {
            let message = "Alias with weights can not be used with Provisioned Concurrency";
            return Err(Error::new(Kind::Invalid, message));
        }
        if version.version == Version::Latest {
            let message = "Provisioned Concurrency Configs cannot be applied to unpublished function versions.";
            return Err(Error::new(Kind::Invalid, message));
        }
        if version.config.seats() > 1 {
            let variable = FunctionConfig::CONCURRENCY_PER_INSTANCE;
            let message = format!("Provisioned Concurrency cannot be used with {variable}.");
            return Err(Error::new(Kind::Invalid, message));
        }
        if version.config.snap_start {
            let message = "Provisioned Concurrency cannot be used with SnapStart enabled versions.";
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(version)
    }

    /// A version has one such setting at most: by its number, or by one of its aliases.
    fn check_alone(&self, version: &Function, qualifier: &Qualifier) -> Result<()> {
        let others = self.0.catalog.provisions(&version.key, None, usize::MAX);
        let is_other = |other: &Arc<Provision>| {
            let named = self.0.catalog.named(&version.key, Some(&other.qualifier));
            other.qualifier != *qualifier
                && named.is_some_and(|named| named.version == version.version)
        };
        if !others.iter().any(is_other) {
            return Ok(());
        }
        let message = match qualifier {
            Qualifier::Alias(_) => {
                "Alias can't be used for Provisioned Concurrency configuration on an already \
                 Provisioned version"
            }
            _ => "Version is pointed by a Provisioned Concurrency alias",
        };
        Err(Error::new(Kind::Invalid, message))
    }

    /// Fails if the function has reserved less, or if too little were left for others.
    fn check_provision_left(
        &self,
        key: &FunctionKey,
        qualifier: &Qualifier,
        requested: u32,
    ) -> Result<()> {
        let catalog = &self.0.catalog;
        let before = catalog.provision(key, &qualifier.to_string());
        let before = before.map_or(0, |before| before.requested);
        let others = catalog.provisioned_of(key).saturating_sub(before);
        if let Some(reserved) = catalog.reserved(key) {
            if requested.saturating_add(others) <= reserved {
                return Ok(());
            }
            let message = "Requested Provisioned Concurrency should not be greater than the \
                           reservedConcurrentExecution for function";
            return Err(Error::new(Kind::Invalid, message));
        }
        let left = self.unreserved(&key.account, &key.region).saturating_add(before);
        let least = limits::UNRESERVED_CONCURRENCY.min(self.0.account_concurrency);
        if requested <= before || left.checked_sub(requested).is_some_and(|left| left >= least) {
            return Ok(());
        }
        let message = format!(
            "Specified ConcurrentExecutions for function decreases account's \
             UnreservedConcurrentExecution below its minimum value of [{least}]."
        );
        Err(Error::new(Kind::Invalid, message))
    }
}
