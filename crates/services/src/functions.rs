//! Creating, changing and deleting functions.
//!
//! Every change is one record, guarded by its revision, and answered when it is durable and the
//! catalog shows it. A new function is `Pending`, a changed one `InProgress`; the reconciler
//! finishes both. Code is stored before the record that names it, and claimed before that, so that
//! the collector of unused code leaves it alone.
//!
//! What this never does: run a function, or word an answer for a particular protocol.

use std::fmt;
use std::sync::Arc;

use futures_util::stream;
use lacewing_model::function::{Before, State, StateReason, UpdateStatus};
use lacewing_model::{
    AccountId, ByteSize, Clock, Error, Function, FunctionKey, Kind, NetworkBounds, Qualifier,
    Result, RuntimeId, RuntimeVersion, Version, VersionKey,
};
use lacewing_store::seal::Sealer;
use lacewing_store::{BlobAddress, Expect, Revision, Store, StoreError};
use tokio::sync::{Mutex, Notify, Semaphore};
use uuid::Uuid;

use crate::RuntimeCheck;
use crate::catalog::Catalog;
use crate::identity::Identity;
use crate::record;

mod aliases;
pub(crate) mod claims;
mod concurrency;
mod package;
mod provisioned;
pub(crate) mod reconciler;
mod request;
mod validate;
mod versions;

pub use validate::config as check;

pub use request::{
    AccountUsage, AliasPatch, ConfigPatch, NewAlias, NewFunction, Package, Publish, Routing,
    UpdateCode,
};

/// Packages that are checked at the same time; each keeps one processor busy.
const CHECKS: usize = 2;
/// Tries of a change that another one overtook.
const TRIES: usize = 8;
/// Bytes of a package that are read at once.
const CHUNK: u64 = 1 << 20;

/// Creating, changing and deleting functions; cheap to clone.
#[derive(Clone, Debug)]
pub struct Functions(Arc<Inner>);

struct Inner {
    store: Store,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    catalog: Catalog,
    identity: Identity,
    runtime_check: RuntimeCheck,
    code_storage: ByteSize,
    network: NetworkBounds,
    account_concurrency: u32,
    /// Held while an account's concurrency is shared out anew.
    reserving: Mutex<()>,
    checks: Semaphore,
    wanted: Notify,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Everything that [`Functions`] works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Catalog,
    pub(crate) identity: Identity,
    pub(crate) runtime_check: RuntimeCheck,
    pub(crate) code_storage: ByteSize,
    pub(crate) network: NetworkBounds,
    pub(crate) account_concurrency: u32,
}

impl Functions {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            sealer,
            clock,
            catalog,
            identity,
            runtime_check,
            code_storage,
            network,
            account_concurrency,
        } = parts;
        Self(Arc::new(Inner {
            store,
            sealer,
            clock,
            catalog,
            identity,
            runtime_check,
            code_storage,
            network,
            account_concurrency,
            reserving: Mutex::new(()),
            checks: Semaphore::new(CHECKS),
            wanted: Notify::new(),
        }))
    }

    /// Creates a function; it is `Pending` at first.
    ///
    /// # Errors
    /// `Constraint` and `Invalid` for bad values, `AlreadyExists`, `StorageExceeded`,
    /// `RequestTooLarge` for the archive.
    pub async fn create(&self, key: &FunctionKey, new: NewFunction) -> Result<Arc<Function>> {
        let mut config = new.config;
        validate::config(&config)?;
        validate::network(&config, self.0.network.of(&key.account))?;
        config.environment = config.environment.filter(|environment| !environment.0.is_empty());
        if self.0.catalog.function(key).is_some() {
            return Err(already_exists(key));
        }
        (self.0.runtime_check)(config.runtime)?;
        self.0.identity.check_role(&key.account, &config.role)?;
        let code = self.check_package(&key.account, new.zip.clone(), 0).await?;
        self.store_package(&key.account, &code, new.zip).await?;
        let function = Function {
            key: key.clone(),
            version: Version::Latest,
            lineage: Uuid::new_v4(),
            config,
            code,
            state: State::Pending,
            last_update: UpdateStatus::Successful,
            before: None,
            state_reason: Some(StateReason {
                text: "The function is being created.".to_owned(),
                code: "Creating".to_owned(),
            }),
            revision_id: Uuid::new_v4(),
            last_modified: self.0.clock.now(),
            generation: 1,
        };
        match self.put(&function, Expect::Absent).await {
            Err(StoreFailure::Overtaken) => Err(already_exists(key)),
            Err(StoreFailure::Other(error)) => Err(error),
            Ok(revision) => {
                let created = self.answer(function, revision).await?;
                if new.publish { self.publish_as_it_is(&created).await } else { Ok(created) }
            }
        }
    }

    /// Replaces a function's code.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while another update is in progress; `PreconditionFailed` if the
    /// revision is not the newest; and as [`Functions::create`].
    pub async fn update_code(
        &self,
        key: &FunctionKey,
        update: UpdateCode,
    ) -> Result<Arc<Function>> {
        if let Some(architecture) = update.architecture {
            validate::architecture(architecture)?;
        }
        let (before, _) = self.changeable(key, update.revision_id).await?;
        let code = self.check_package(&key.account, update.zip.clone(), before.code.size).await?;
        let change = |function: &mut Function| {
            function.code = code;
            if let Some(architecture) = update.architecture {
                function.config.architecture = architecture;
            }
            Ok(())
        };
        if update.dry_run {
            let mut function = before;
            change(&mut function)?;
            return Ok(Arc::new(function));
        }
        self.store_package(&key.account, &code, update.zip.clone()).await?;
        let updated = self.change(key, update.revision_id, change).await?;
        if update.publish { self.publish_as_it_is(&updated).await } else { Ok(updated) }
    }

    /// Changes a function's settings.
    ///
    /// # Errors
    /// As [`Functions::update_code`].
    pub async fn update_config(
        &self,
        key: &FunctionKey,
        patch: ConfigPatch,
    ) -> Result<Arc<Function>> {
        if let Some(runtime) = patch.runtime {
            (self.0.runtime_check)(runtime)?;
        }
        let revision_id = patch.revision_id;
        let change = |function: &mut Function| {
            patch.apply(&mut function.config)?;
            validate::config(&function.config)?;
            validate::network(&function.config, self.0.network.of(&key.account))?;
            match &patch.role {
                Some(role) => self.0.identity.check_role(&key.account, role),
                None => Ok(()),
            }
        };
        self.change(key, revision_id, change).await
    }

    /// Deletes a function with its versions, aliases and concurrency; its logs and its usage stay.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, key: &FunctionKey) -> Result<()> {
        let records = &self.0.store.records;
        match records.delete(&record::key(&key.clone().into()), Expect::Any).await {
            Ok(revision) => {
                let gone = self.0.catalog.applied(revision).await;
                // What belonged to it does not show any more; the reconciler sweeps it up.
                self.0.wanted.notify_one();
                gone
            }
            Err(StoreError::NotFound) => Err(not_found(key)),
            Err(error) => Err(error.into()),
        }
    }

    /// The unpublished version of the function.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, key: &FunctionKey) -> Result<Arc<Function>> {
        self.0.catalog.function(key).ok_or_else(|| not_found(key))
    }

    /// The version that a qualifier names; for an alias the one that it stands for first.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get_named(
        &self,
        key: &FunctionKey,
        qualifier: Option<&Qualifier>,
    ) -> Result<Arc<Function>> {
        self.0.catalog.named(key, qualifier).ok_or_else(|| {
            let qualifier = qualifier.filter(|qualifier| **qualifier != Qualifier::Latest);
            let arn = key.qualified_arn(qualifier.cloned());
            Error::new(Kind::NotFound, format!("Function not found: {arn}"))
        })
    }

    /// A version's zip archive, read piece by piece.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn code(&self, key: &FunctionKey, qualifier: Option<&Qualifier>) -> Result<Package> {
        let code = self.get_named(key, qualifier)?.code;
        let address = BlobAddress { account: key.account.clone(), digest: code.digest };
        let blobs = Arc::clone(&self.0.store.blobs);
        if blobs.stat(&address).await?.is_none() {
            return Err(Error::internal("A function's code is missing.", key.arn().to_string()));
        }
        let bytes =
            stream::try_unfold((0, blobs, address), move |(at, blobs, address)| async move {
                if at >= code.size {
                    return Ok(None);
                }
                let end = at.saturating_add(CHUNK).min(code.size);
                let part = blobs.get(&address, at..end).await.map_err(std::io::Error::other)?;
                let next = at.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
                if next == at {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
                }
                Ok(Some((part, (next, blobs, address))))
            });
        Ok(Package { code, bytes: Box::pin(bytes) })
    }

    /// The exact version of what runs functions of a runtime here, if anything does.
    pub fn runtime_version(&self, runtime: RuntimeId) -> Option<RuntimeVersion> {
        (self.0.runtime_check)(runtime).ok().map(|serving| serving.version)
    }

    /// What an account has stored.
    pub fn account_usage(&self, account: &AccountId) -> AccountUsage {
        self.0.catalog.account_usage(account)
    }

    /// Applies a change to the newest record, again if another change was faster.
    async fn change(
        &self,
        key: &FunctionKey,
        known: Option<Uuid>,
        change: impl Fn(&mut Function) -> Result<()> + Send + Sync,
    ) -> Result<Arc<Function>> {
        for _ in 0..TRIES {
            let (mut function, revision) = self.changeable(key, known).await?;
            let before = Before { config: function.config.clone(), code: function.code };
            change(&mut function)?;
            function.before = (function.state == State::Active).then(|| Box::new(before));
            function.last_update = UpdateStatus::InProgress;
            function.revision_id = Uuid::new_v4();
            function.last_modified = self.0.clock.now();
            function.generation = function.generation.saturating_add(1);
            match self.put(&function, Expect::Revision(revision)).await {
                Ok(revision) => return self.answer(function, revision).await,
                Err(StoreFailure::Overtaken) => {}
                Err(StoreFailure::Other(error)) => return Err(error),
            }
        }
        Err(in_progress(key))
    }

    /// The newest record of a function that may be changed now.
    async fn changeable(
        &self,
        key: &FunctionKey,
        known: Option<Uuid>,
    ) -> Result<(Function, Revision)> {
        let found = self.stored(&key.clone().into()).await?;
        let (function, revision) = found.ok_or_else(|| not_found(key))?;
        if known.is_some_and(|known| known != function.revision_id) {
            return Err(outdated());
        }
        if function.state == State::Pending {
            let message = "The operation cannot be performed at this time. The function is \
                           currently in the following state: Pending";
            return Err(Error::new(Kind::Conflict, message));
        }
        if function.last_update == UpdateStatus::InProgress {
            return Err(in_progress(key));
        }
        Ok((function, revision))
    }

    async fn stored(&self, key: &VersionKey) -> Result<Option<(Function, Revision)>> {
        let key = record::key(key);
        match self.0.store.records.get(&key).await? {
            Some(found) => Ok(Some((record::decode(&self.0.sealer, &found)?, found.revision))),
            None => Ok(None),
        }
    }

    async fn put(&self, function: &Function, expect: Expect) -> Result<Revision, StoreFailure> {
        let bytes = record::encode(&self.0.sealer, function).map_err(StoreFailure::Other)?;
        let key = record::key(&function.version_key());
        match self.0.store.records.put(&key, bytes, expect).await {
            Ok(revision) => Ok(revision),
            Err(StoreError::Conflict { .. }) => Err(StoreFailure::Overtaken),
            Err(error) => Err(StoreFailure::Other(error.into())),
        }
    }

    /// Answers a change once it shows, and wakes the reconciler.
    async fn answer(&self, function: Function, revision: Revision) -> Result<Arc<Function>> {
        let shown = self.0.catalog.applied(revision).await;
        // Only now: the reconciler looks at the catalog.
        self.0.wanted.notify_one();
        shown.map(|()| Arc::new(function))
    }
}

/// Why a record was not written.
enum StoreFailure {
    Overtaken,
    Other(Error),
}

fn already_exists(key: &FunctionKey) -> Error {
    Error::new(Kind::AlreadyExists, format!("Function already exist: {}", key.name))
}

fn not_found(key: &FunctionKey) -> Error {
    Error::new(Kind::NotFound, format!("Function not found: {}", key.arn()))
}

fn outdated() -> Error {
    let message = "The Revision Id provided does not match the latest Revision Id. Call the \
                   GetFunction/GetAlias API to retrieve the latest Revision Id";
    Error::new(Kind::PreconditionFailed, message)
}

fn in_progress(key: &FunctionKey) -> Error {
    let message = format!(
        "The operation cannot be performed at this time. An update is in progress for resource: {}",
        key.arn()
    );
    Error::new(Kind::Conflict, message)
}
