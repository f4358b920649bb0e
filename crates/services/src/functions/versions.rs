//! Publishing versions, deleting them, and sweeping up what a deleted function left.
//!
//! A version is a copy of `$LATEST` that nobody changes any more: its own record, under a number
//! that its function never uses again.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-versions.html>.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lacewing_model::function::{State, StateReason, UpdateStatus};
use lacewing_model::{Error, Function, FunctionKey, Kind, Qualifier, Result, Version, VersionKey};
use lacewing_store::{Expect, Key, Record, StoreError};
use uuid::Uuid;

use super::{Functions, Publish, StoreFailure, TRIES, in_progress, validate};
use crate::record::{self, numbers};

impl Functions {
    /// Publishes `$LATEST` as a version. If nothing has changed since the last one was published,
    /// that one is the answer.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a change is in progress; `PreconditionFailed` if the revision
    /// is not the newest; `Invalid` if the code is not what the caller takes it for.
    pub async fn publish(&self, key: &FunctionKey, publish: Publish) -> Result<Arc<Function>> {
        if let Some(description) = &publish.description {
            validate::description(description)?;
        }
        let (latest, _) = self.changeable(key, publish.revision_id).await?;
        check_code(&latest, &publish)?;
        self.publish_copy(latest, publish.description).await
    }

    /// Publishes what a request has just made, before it is settled.
    pub(super) async fn publish_as_it_is(&self, latest: &Function) -> Result<Arc<Function>> {
        self.publish_copy(latest.clone(), None).await
    }

    /// Deletes a published version.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if an alias stands for it.
    pub async fn delete_version(&self, key: &FunctionKey, number: u64) -> Result<()> {
        let version = VersionKey { function: key.clone(), version: Version::Published(number) };
        let not_found =
            || Error::new(Kind::NotFound, format!("Function not found: {}", version.arn()));
        self.0.catalog.version(&version).ok_or_else(not_found)?;
        if let Some(alias) = self.alias_of(&version) {
            let message = format!(
                "The version {} cannot be deleted while the alias {alias} points to it.",
                version.arn()
            );
            return Err(Error::new(Kind::Conflict, message));
        }
        self.forget_provision(key, &Qualifier::Version(number)).await?;
        match self.0.store.records.delete(&record::key(&version), Expect::Any).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            Err(StoreError::NotFound) => Err(not_found()),
            Err(error) => Err(error.into()),
        }
    }

    async fn publish_copy(
        &self,
        latest: Function,
        description: Option<String>,
    ) -> Result<Arc<Function>> {
        if let Some(last) = self.last_version(&latest.key)
            && is_same(&last, &latest)
        {
            return Ok(last);
        }
        let number = self.take_number(&latest).await?;
        let is_settled = !latest.is_unsettled();
        let mut version = latest;
        version.version = Version::Published(number);
        version.revision_id = Uuid::new_v4();
        version.config.description = description.unwrap_or(version.config.description);
        version.last_update = UpdateStatus::Successful;
        version.before = None;
        if !is_settled {
            version.state = State::Pending;
            version.state_reason = Some(StateReason {
                text: "The function is being created.".to_owned(),
                code: "Creating".to_owned(),
            });
        }
        // Nobody else has the number: what is there was left by a function of the same name.
        match self.put(&version, Expect::Any).await {
            Ok(revision) => self.answer(version, revision).await,
            Err(StoreFailure::Overtaken) => Err(in_progress(&version.key)),
            Err(StoreFailure::Other(error)) => Err(error),
        }
    }

    fn last_version(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        let versions = self.0.catalog.versions(key, Some(Version::Latest), usize::MAX);
        versions.into_iter().last()
    }

    /// Takes the next number of a function's versions, for good.
    async fn take_number(&self, function: &Function) -> Result<u64> {
        let key = numbers::key(&function.key);
        let records = &self.0.store.records;
        for _ in 0..TRIES {
            let (last, expect) = match records.get(&key).await? {
                Some(found) => {
                    (numbers::last(&found, function.lineage)?, Expect::Revision(found.revision))
                }
                None => (0, Expect::Absent),
            };
            let number = last.saturating_add(1);
            let taken = numbers::encode(function.lineage, number)?;
            match records.put(&key, taken, expect).await {
                Ok(_) => return Ok(number),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(in_progress(&function.key))
    }

    /// Deletes what belonged to functions that are gone; whether nothing was left over.
    pub(super) async fn sweep(&self) -> bool {
        let mut is_clean = true;
        for key in self.0.catalog.orphans() {
            if let Err(error) = self.sweep_one(&key).await {
                is_clean = false;
                tracing::warn!(%key, error = %error.chain(), "A deleted function's rest is still there.");
            }
        }
        is_clean
    }

    async fn sweep_one(&self, key: &Key) -> Result<()> {
        let records = &self.0.store.records;
        let Some(found) = records.get(key).await? else { return Ok(()) };
        let Some((function, lineage)) = self.maker(&found)? else { return Ok(()) };
        // The catalog may be behind; the last word before deleting has the store.
        let alive = self.stored(&function.into()).await?;
        if alive.is_some_and(|(latest, _)| latest.lineage == lineage) {
            return Ok(());
        }
        match records.delete(key, Expect::Revision(found.revision)).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            Err(StoreError::Conflict { .. } | StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The function that a record belongs to, with its lineage.
    fn maker(&self, found: &Record) -> Result<Option<(FunctionKey, Uuid)>> {
        if record::version_key(&found.key).is_some() {
            let version = record::decode(&self.0.sealer, found)?;
            return Ok(Some((version.key, version.lineage)));
        }
        if record::alias::alias_key(&found.key).is_some() {
            let alias = record::alias::decode(found)?;
            return Ok(Some((alias.key, alias.lineage)));
        }
        if record::concurrency::function_key(&found.key).is_some() {
            let (function, concurrency) = record::concurrency::decode(found)?;
            return Ok(Some((function, concurrency.lineage)));
        }
        if record::provisioned::provision_key(&found.key).is_some() {
            let provision = record::provisioned::decode(found)?;
            return Ok(Some((provision.key.clone(), provision.lineage)));
        }
        Ok(None)
    }
}

/// Whether publishing would only make the last version once more.
fn is_same(last: &Function, latest: &Function) -> bool {
    let mut config = latest.config.clone();
    config.tags.clone_from(&last.config.tags);
    last.generation == latest.generation || (last.code == latest.code && last.config == config)
}

fn check_code(latest: &Function, publish: &Publish) -> Result<()> {
    let current = STANDARD.encode(latest.code.digest.as_bytes());
    match &publish.code_sha256 {
        Some(wanted) if *wanted != current => {
            let message = format!(
                "CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST \
                 ({current}). Please try again with the CodeSHA256 in $LATEST."
            );
            Err(Error::new(Kind::Invalid, message))
        }
        _ => Ok(()),
    }
}
