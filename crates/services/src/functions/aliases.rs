//! Making, changing and deleting aliases.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-aliases.html>.

use std::sync::Arc;

use lacewing_model::{Alias, Error, FunctionKey, Kind, Qualifier, Result, Version, VersionKey};
use lacewing_store::{Expect, StoreError};
use uuid::Uuid;

use super::{AliasPatch, Functions, NewAlias, TRIES, in_progress, outdated, validate};
use crate::record;

impl Functions {
    /// Makes an alias.
    ///
    /// # Errors
    /// `NotFound` for the function or a version; `AlreadyExists`; `Constraint` and `Invalid` for
    /// bad values.
    pub async fn create_alias(&self, key: &FunctionKey, new: NewAlias) -> Result<Arc<Alias>> {
        validate::alias_name(&new.name)?;
        let latest = self.get(key)?;
        let alias = Alias {
            key: key.clone(),
            name: new.name.into(),
            version: new.version,
            second: new.routing,
            description: new.description,
            revision_id: Uuid::new_v4(),
            lineage: latest.lineage,
        };
        self.check_alias(&alias)?;
        let exists = || {
            let message = format!("Alias already exists: {}", alias.arn());
            Error::new(Kind::AlreadyExists, message)
        };
        let stored = record::alias::key(key, &alias.name);
        let expect = match self.0.store.records.get(&stored).await? {
            None => Expect::Absent,
            Some(found) if record::alias::decode(&found)?.lineage == alias.lineage => {
                return Err(exists());
            }
            // It was left by a function of the same name.
            Some(found) => Expect::Revision(found.revision),
        };
        match self.0.store.records.put(&stored, record::alias::encode(&alias)?, expect).await {
            Ok(revision) => {
                self.0.catalog.applied(revision).await?;
                Ok(Arc::new(alias))
            }
            Err(StoreError::Conflict { .. }) => Err(exists()),
            Err(error) => Err(error.into()),
        }
    }

    /// The alias.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get_alias(&self, key: &FunctionKey, name: &str) -> Result<Arc<Alias>> {
        self.0.catalog.alias(key, name).ok_or_else(|| no_alias(key, name))
    }

    /// Changes an alias.
    ///
    /// # Errors
    /// `NotFound`; `PreconditionFailed` if the revision is not the newest; and as
    /// [`Functions::create_alias`].
    pub async fn update_alias(
        &self,
        key: &FunctionKey,
        name: &str,
        patch: AliasPatch,
    ) -> Result<Arc<Alias>> {
        let stored = record::alias::key(key, name);
        for _ in 0..TRIES {
            let lineage = self.get_alias(key, name)?.lineage;
            let found = self.0.store.records.get(&stored).await?;
            let found = found.ok_or_else(|| no_alias(key, name))?;
            let mut alias = record::alias::decode(&found)?;
            if alias.lineage != lineage {
                return Err(no_alias(key, name));
            }
            if patch.revision_id.is_some_and(|known| known != alias.revision_id) {
                return Err(outdated());
            }
            patch.apply(&mut alias);
            self.check_alias(&alias)?;
            let bytes = record::alias::encode(&alias)?;
            match self.0.store.records.put(&stored, bytes, Expect::Revision(found.revision)).await {
                Ok(revision) => {
                    self.0.catalog.applied(revision).await?;
                    return Ok(Arc::new(alias));
                }
                Err(StoreError::Conflict { .. } | StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(in_progress(key))
    }

    /// Deletes an alias; one that is not there is deleted already.
    ///
    /// # Errors
    /// `NotFound` for the function.
    pub async fn delete_alias(&self, key: &FunctionKey, name: &str) -> Result<()> {
        let _exists = self.get(key)?;
        self.forget_provision(key, &Qualifier::Alias(name.into())).await?;
        let stored = record::alias::key(key, name);
        match self.0.store.records.delete(&stored, Expect::Any).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first alias that stands for a version.
    pub(super) fn alias_of(&self, version: &VersionKey) -> Option<Arc<str>> {
        let aliases = self.0.catalog.aliases(&version.function, None, usize::MAX);
        let points = |alias: &Arc<Alias>| {
            let second = alias.second.map(|(number, _)| Version::Published(number));
            alias.version == version.version || second == Some(version.version)
        };
        aliases.into_iter().find(points).map(|alias| alias.name.clone())
    }

    fn check_alias(&self, alias: &Alias) -> Result<()> {
        validate::description(&alias.description)?;
        self.check_version(alias, alias.version)?;
        let Some((second, part)) = alias.second else { return Ok(()) };
        validate::weight(second, part)?;
        if alias.version == Version::Latest {
            let message = "$LATEST is not supported for an alias pointing to more than 1 version";
            return Err(Error::new(Kind::Invalid, message));
        }
        if alias.version == Version::Published(second) {
            let message = format!(
                "Invalid function version {second}. Function version {second} is already included \
                 in routing configuration."
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        self.check_version(alias, Version::Published(second))
    }

    fn check_version(&self, alias: &Alias, version: Version) -> Result<()> {
        let key = VersionKey { function: alias.key.clone(), version };
        match self.0.catalog.version(&key) {
            Some(_) => Ok(()),
            None => {
                let arn = alias.key.qualified_arn(Some(version.into()));
                Err(Error::new(Kind::NotFound, format!("Function not found: {arn}")))
            }
        }
    }
}

fn no_alias(key: &FunctionKey, name: &str) -> Error {
    let arn = key.qualified_arn(Some(Qualifier::Alias(name.into())));
    Error::new(Kind::NotFound, format!("Cannot find alias arn: {arn}"))
}

impl AliasPatch {
    /// Writes what was given over an alias.
    fn apply(&self, alias: &mut Alias) {
        if let Some(version) = self.version {
            alias.version = version;
        }
        if let Some(routing) = self.routing {
            alias.second = routing;
        }
        if let Some(description) = &self.description {
            alias.description.clone_from(description);
        }
        alias.revision_id = Uuid::new_v4();
    }
}
