//! Which functions there are: a persistent map in memory, kept current by watching the records.
//!
//! A lookup takes no lock and allocates nothing; a reader keeps the snapshot it took. Only
//! `Catalog::follow` changes the map, in the order of the store's revisions; a writer waits until
//! its own revision has been applied, so that whoever was answered sees what was answered.

mod reader;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lacewing_model::function::{Code, State};
use lacewing_model::{
    AccountId, Alias, Error, Function, FunctionKey, FunctionName, Kind, Qualifier, Region,
    RequestId, Result, Version, VersionKey,
};
use lacewing_store::{BlobAddress, Change, Key, Prefix, Record, Records, Revision, StoreError};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::functions::AccountUsage;
use crate::record;
use crate::record::provisioned::Provision;

pub(crate) use reader::{INVALID_RUNTIME, Reader};
use view::View;

/// Records read at once when everything is listed.
const PAGE: usize = 500;
/// Changes that a slow subscriber may be behind.
const BACKLOG: usize = 1_024;
/// How long a write waits until it shows; only a stopped or failing store makes it that long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a failed watch is begun again.
const PAUSE: Duration = Duration::from_millis(500);

/// Which functions there are; cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    records: Arc<dyn Records>,
    reader: Reader,
    view: ArcSwap<View>,
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<VersionKey>,
}

impl Catalog {
    /// Lists all functions of the store.
    pub(crate) async fn open(records: Arc<dyn Records>, reader: Reader) -> Result<Self> {
        let (view, revision) = listed(records.as_ref(), &reader).await?;
        let (applied, _) = watch::channel(revision);
        let (changes, _) = broadcast::channel(BACKLOG);
        let view = ArcSwap::from_pointee(view);
        Ok(Self(Arc::new(Inner { records, reader, view, applied, changes })))
    }

    /// The function's unpublished version, if there is such a function.
    pub fn function(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.0.view.load().latest(key).cloned()
    }

    /// The version, if it exists.
    pub fn version(&self, key: &VersionKey) -> Option<Arc<Function>> {
        self.0.view.load().version(key).cloned()
    }

    /// The version that serves a request for the qualifier, if it exists.
    pub fn resolve(
        &self,
        key: &FunctionKey,
        qualifier: Option<&Qualifier>,
        request: RequestId,
    ) -> Option<Arc<Function>> {
        self.0.view.load().resolve(key, qualifier, |alias| alias.version_for(request))
    }

    /// The version that the qualifier names: for an alias the one that it stands for first.
    pub fn named(&self, key: &FunctionKey, qualifier: Option<&Qualifier>) -> Option<Arc<Function>> {
        self.0.view.load().resolve(key, qualifier, |alias| alias.version)
    }

    /// The alias, if there is one.
    pub fn alias(&self, key: &FunctionKey, name: &str) -> Option<Arc<Alias>> {
        self.0.view.load().alias(key, name).cloned()
    }

    /// At most `limit` functions in the order of their names, beginning behind `after`.
    pub fn list(
        &self,
        account: &AccountId,
        region: &Region,
        after: Option<&FunctionName>,
        limit: usize,
    ) -> Vec<Arc<Function>> {
        self.0.view.load().functions_after(account, region, after).take(limit).cloned().collect()
    }

    /// At most `limit` versions of a function, `$LATEST` first, beginning behind `after`.
    pub fn versions(
        &self,
        key: &FunctionKey,
        after: Option<Version>,
        limit: usize,
    ) -> Vec<Arc<Function>> {
        self.0.view.load().versions_after(key, after).take(limit).cloned().collect()
    }

    /// At most `limit` versions of all functions, in the order of their names, then as
    /// [`Self::versions`], beginning behind `after`.
    pub fn all_versions(
        &self,
        account: &AccountId,
        region: &Region,
        after: Option<&(FunctionName, Version)>,
        limit: usize,
    ) -> Vec<Arc<Function>> {
        let view = self.0.view.load();
        let key = |name: &FunctionName| FunctionKey {
            account: account.clone(),
            region: region.clone(),
            name: name.clone(),
        };
        let begun = after.map(|(name, version)| (key(name), *version));
        let rest = begun.iter().flat_map(|(key, version)| view.versions_after(key, Some(*version)));
        let others = view
            .functions_after(account, region, after.map(|(name, _)| name))
            .flat_map(|function| view.versions_after(&function.key, None));
        rest.chain(others).take(limit).cloned().collect()
    }

    /// At most `limit` aliases of a function in the order of their names, beginning behind `after`.
    pub fn aliases(&self, key: &FunctionKey, after: Option<&str>, limit: usize) -> Vec<Arc<Alias>> {
        self.0.view.load().aliases_after(key, after).take(limit).cloned().collect()
    }

    /// Concurrent invocations that are reserved for a function, if any are.
    pub fn reserved(&self, key: &FunctionKey) -> Option<u32> {
        self.0.view.load().reserved(key)
    }

    /// The functions that have something reserved.
    pub fn reserving(&self) -> Vec<FunctionKey> {
        self.0.view.load().reserving().cloned().collect()
    }

    /// Concurrent invocations that functions of an account have for themselves, all together.
    pub(crate) fn guaranteed_in_all(&self, account: &AccountId, region: &Region) -> u32 {
        self.0.view.load().guaranteed_in_all(account, region)
    }

    /// What is kept ready for a version or alias of a function, if anything is.
    pub fn provision(&self, key: &FunctionKey, qualifier: &str) -> Option<Arc<Provision>> {
        self.0.view.load().provision(key, qualifier).cloned()
    }

    /// At most `limit` of what is kept ready of a function, beginning behind `after`.
    pub fn provisions(
        &self,
        key: &FunctionKey,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Provision>> {
        self.0.view.load().provisions_after(key, after).take(limit).cloned().collect()
    }

    /// How many Instances of which versions of a function are kept ready.
    pub fn provided(&self, key: &FunctionKey) -> HashMap<VersionKey, u32> {
        self.0.view.load().provided(key)
    }

    /// All of them together.
    pub(crate) fn provisioned_of(&self, key: &FunctionKey) -> u32 {
        self.0.view.load().provisioned_of(key)
    }

    /// The functions of which Instances are kept ready.
    pub fn providing(&self) -> HashSet<FunctionKey> {
        self.0.view.load().providing()
    }

    /// Waits until the version can be invoked; `None` if there is none, if it failed, or if it
    /// took longer than `patience`.
    pub async fn wait_active(&self, key: &VersionKey, patience: Duration) -> Option<Arc<Function>> {
        let mut applied = self.0.applied.subscribe();
        let wait = async {
            loop {
                applied.borrow_and_update();
                let function = self.version(key)?;
                match function.state {
                    State::Active => return Some(function),
                    State::Failed => return None,
                    State::Pending => applied.changed().await.ok()?,
                }
            }
        };
        tokio::time::timeout(patience, wait).await.ok().flatten()
    }

    /// Tells of every version that changes from now on, and of a function's `$LATEST` also when its
    /// concurrency, what is kept ready of it or one of its aliases changes. Who falls behind looks at
    /// the catalog.
    pub fn changes(&self) -> broadcast::Receiver<VersionKey> {
        self.0.changes.subscribe()
    }

    /// What an account has stored.
    pub(crate) fn account_usage(&self, account: &AccountId) -> AccountUsage {
        self.0.view.load().account_usage(account)
    }

    /// Versions whose creation or update is not finished.
    pub(crate) fn unsettled(&self) -> Vec<VersionKey> {
        self.0.view.load().unsettled().cloned().collect()
    }

    /// Records of what belonged to a function that is gone.
    pub(crate) fn orphans(&self) -> Vec<Key> {
        self.0.view.load().orphans()
    }

    /// The code of all versions, as far as this node knows.
    pub(crate) fn code_in_use(&self) -> HashSet<BlobAddress> {
        let view = self.0.view.load();
        let mut in_use = HashSet::new();
        for function in view.all() {
            let account = &function.key.account;
            let address =
                |code: Code| BlobAddress { account: account.clone(), digest: code.digest };
            in_use.extend(function.codes().map(address));
        }
        in_use
    }

    /// Waits until a write shows here.
    pub(crate) async fn applied(&self, revision: Revision) -> Result<()> {
        let mut applied = self.0.applied.subscribe();
        let wait = applied.wait_for(|seen| *seen >= revision);
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(Kind::Unavailable, "The change is stored but not yet in effect.")
                .with_internal("The catalog does not follow the store.")),
        }
    }

    /// Follows the store until `stop`.
    pub(crate) async fn follow(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let failed = tokio::select! {
                () = stop.cancelled() => return,
                failed = self.follow_once() => failed,
            };
            if !matches!(failed, StoreError::Gap) {
                tracing::warn!(error = %failed, "The catalog's watch failed.");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            if let Err(error) = self.list_again().await {
                tracing::warn!(error = %error.chain(), "The catalog could not be listed.");
            }
        }
    }

    async fn follow_once(&self) -> StoreError {
        let from = *self.0.applied.borrow();
        let mut changes = match self.0.records.watch(&Prefix::all(), from).await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        loop {
            match changes.next().await {
                Ok(change) => self.apply(&change),
                Err(error) => return error,
            }
        }
    }

    async fn list_again(&self) -> Result<()> {
        let (view, revision) = listed(self.0.records.as_ref(), &self.0.reader).await?;
        let before = self.0.view.swap(Arc::new(view));
        let now = self.0.view.load_full();
        self.0.applied.send_replace(revision);
        let gone = before.all().filter(|old| !now.has(&old.version_key()));
        for function in now.all().chain(gone) {
            self.tell(function.version_key());
        }
        Ok(())
    }

    fn apply(&self, change: &Change) {
        let mut view = View::clone(&self.0.view.load());
        match change {
            Change::Put(record) => {
                if let Err(error) = view.read(&self.0.reader, record) {
                    tracing::error!(key = %record.key, error = %error.chain(), "A record is unreadable.");
                }
            }
            Change::Deleted { .. } => view.forget(change.key()),
        }
        self.0.view.store(Arc::new(view));
        self.0.applied.send_replace(change.revision());
        if let Some(key) = record::version_key(change.key()).or_else(|| owner(change.key())) {
            self.tell(key);
        }
    }

    fn tell(&self, key: VersionKey) {
        // Nobody needs to listen.
        let _listeners = self.0.changes.send(key).unwrap_or(0);
    }
}

/// The `$LATEST` of the function to which a record belongs that is no version.
fn owner(key: &Key) -> Option<VersionKey> {
    let concurrency = || record::concurrency::function_key(key);
    let alias = || record::alias::alias_key(key).map(|(function, _)| function);
    let provision = || record::provisioned::provision_key(key).map(|(function, _)| function);
    concurrency().or_else(alias).or_else(provision).map(VersionKey::from)
}

/// Everything there is, and a revision that is not newer than it.
async fn listed(records: &dyn Records, reader: &Reader) -> Result<(View, Revision)> {
    let revision = records.revision().await?;
    let mut view = View::default();
    for_each_record(records, &Prefix::all(), |record| view.read(reader, record)).await?;
    Ok((view, revision))
}

/// Visits all records under a prefix, page by page.
pub(crate) async fn for_each_record(
    records: &dyn Records,
    prefix: &Prefix,
    mut visit: impl FnMut(&Record) -> Result<()> + Send,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = records.list(prefix, after.as_ref(), PAGE).await?;
        page.iter().try_for_each(&mut visit)?;
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.into_iter().last().map(|record| record.key);
    }
}
