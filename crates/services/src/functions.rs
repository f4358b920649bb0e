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
use lacewing_model::function::{State, StateReason, UpdateStatus};
use lacewing_model::{AccountId, ByteSize, Clock, Error, Function, FunctionKey, Kind, Result};
use lacewing_store::seal::Sealer;
use lacewing_store::{BlobAddress, Expect, Key, Revision, Store, StoreError};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::RuntimeCheck;
use crate::catalog::Catalog;
use crate::identity::Identity;
use crate::record;

pub(crate) mod claims;
mod package;
pub(crate) mod reconciler;
mod request;
mod validate;

pub use request::{AccountUsage, ConfigPatch, NewFunction, Package, UpdateCode};

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
}

impl Functions {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { store, sealer, clock, catalog, identity, runtime_check, code_storage } = parts;
        Self(Arc::new(Inner {
            store,
            sealer,
            clock,
            catalog,
            identity,
            runtime_check,
            code_storage,
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
        refuse_publishing(new.publish)?;
        let mut config = new.config;
        validate::config(&config)?;
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
            config,
            code,
            state: State::Pending,
            last_update: UpdateStatus::Successful,
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
            Ok(revision) => self.answer(function, revision).await,
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
        refuse_publishing(update.publish)?;
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
        self.change(key, update.revision_id, change).await
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
            patch.apply(&mut function.config);
            validate::config(&function.config)?;
            match &patch.role {
                Some(role) => self.0.identity.check_role(&key.account, role),
                None => Ok(()),
            }
        };
        self.change(key, revision_id, change).await
    }

    /// Deletes a function; its logs and its usage stay.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, key: &FunctionKey) -> Result<()> {
        match self.0.store.records.delete(&record::key(key), Expect::Any).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            Err(StoreError::NotFound) => Err(not_found(key)),
            Err(error) => Err(error.into()),
        }
    }

    /// The function.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, key: &FunctionKey) -> Result<Arc<Function>> {
        self.0.catalog.function(key).ok_or_else(|| not_found(key))
    }

    /// The function's zip archive, read piece by piece.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn code(&self, key: &FunctionKey) -> Result<Package> {
        let code = self.get(key)?.code;
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
            change(&mut function)?;
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
        let (function, revision) = self.stored(key).await?.ok_or_else(|| not_found(key))?;
        if known.is_some_and(|known| known != function.revision_id) {
            let message = "The Revision Id provided does not match the latest Revision Id. Call \
                           the GetFunction/GetAlias API to retrieve the latest Revision Id";
            return Err(Error::new(Kind::PreconditionFailed, message));
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

    async fn stored(&self, key: &FunctionKey) -> Result<Option<(Function, Revision)>> {
        let key = record::key(key);
        match self.0.store.records.get(&key).await? {
            Some(found) => Ok(Some((record::decode(&self.0.sealer, &found)?, found.revision))),
            None => Ok(None),
        }
    }

    async fn put(&self, function: &Function, expect: Expect) -> Result<Revision, StoreFailure> {
        let bytes = record::encode(&self.0.sealer, function).map_err(StoreFailure::Other)?;
        let key: Key = record::key(&function.key);
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

fn refuse_publishing(publish: bool) -> Result<()> {
    if publish {
        let message = "Publish is not supported by this version of Lacewing.";
        return Err(Error::new(Kind::Unsupported, message));
    }
    Ok(())
}

fn already_exists(key: &FunctionKey) -> Error {
    Error::new(Kind::AlreadyExists, format!("Function already exist: {}", key.name))
}

fn not_found(key: &FunctionKey) -> Error {
    Error::new(Kind::NotFound, format!("Function not found: {}", key.arn()))
}

fn in_progress(key: &FunctionKey) -> Error {
    let message = format!(
        "The operation cannot be performed at this time. An update is in progress for resource: {}",
        key.arn()
    );
    Error::new(Kind::Conflict, message)
}
