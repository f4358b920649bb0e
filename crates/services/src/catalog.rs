//! Which functions there are: a persistent map in memory, kept current by watching the records.
//!
//! A lookup takes no lock and allocates nothing; a reader keeps the snapshot it took. Only
//! `Catalog::follow` changes the map, in the order of the store's revisions; a writer waits until
//! its own revision has been applied, so that whoever was answered sees what was answered.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lacewing_model::function::{State, UpdateStatus};
use lacewing_model::{
    AccountId, ByteSize, Error, Function, FunctionKey, FunctionName, Kind, Region, Result,
};
use lacewing_store::seal::Sealer;
use lacewing_store::{BlobAddress, Change, Prefix, Record, Records, Revision, StoreError};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::functions::AccountUsage;
use crate::record;

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
    sealer: Arc<Sealer>,
    view: ArcSwap<View>,
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<FunctionKey>,
}

/// One consistent state of the catalog.
#[derive(Clone, Debug, Default)]
struct View {
    functions: RedBlackTreeMapSync<FunctionKey, Arc<Function>>,
    unsettled: RedBlackTreeSetSync<FunctionKey>,
    usage: HashTrieMapSync<AccountId, AccountUsage>,
}

impl Catalog {
    /// Lists all functions of the store.
    pub(crate) async fn open(records: Arc<dyn Records>, sealer: Arc<Sealer>) -> Result<Self> {
        let (view, revision) = listed(records.as_ref(), &sealer).await?;
        let (applied, _) = watch::channel(revision);
        let (changes, _) = broadcast::channel(BACKLOG);
        let view = ArcSwap::from_pointee(view);
        Ok(Self(Arc::new(Inner { records, sealer, view, applied, changes })))
    }

    /// The function, if there is one.
    pub fn function(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.0.view.load().functions.get(key).cloned()
    }

    /// At most `limit` functions in the order of their names, beginning behind `after`.
    pub fn list(
        &self,
        account: &AccountId,
        region: &Region,
        after: Option<&FunctionName>,
        limit: usize,
    ) -> Vec<Arc<Function>> {
        let of = |name| FunctionKey { account: account.clone(), region: region.clone(), name };
        let start = match after {
            Some(name) => Bound::Excluded(of(name.clone())),
            None => Bound::Included(of(least_name())),
        };
        let view = self.0.view.load();
        let functions = view.functions.range((start, Bound::Unbounded));
        functions
            .map(|(_, function)| function)
            .take_while(|function| {
                function.key.account == *account && function.key.region == *region
            })
            .take(limit)
            .cloned()
            .collect()
    }

    /// Waits until the function can be invoked; `None` if there is none, if it failed, or if it
    /// took longer than `patience`.
    pub async fn wait_active(
        &self,
        key: &FunctionKey,
        patience: Duration,
    ) -> Option<Arc<Function>> {
        let mut applied = self.0.applied.subscribe();
        let wait = async {
            loop {
                applied.borrow_and_update();
                let function = self.function(key)?;
                match function.state {
                    State::Active => return Some(function),
                    State::Failed => return None,
                    State::Pending => applied.changed().await.ok()?,
                }
            }
        };
        tokio::time::timeout(patience, wait).await.ok().flatten()
    }

    /// Tells of every function that changes from now on. Who falls behind looks at the catalog.
    pub fn changes(&self) -> broadcast::Receiver<FunctionKey> {
        self.0.changes.subscribe()
    }

    /// What an account has stored.
    pub(crate) fn account_usage(&self, account: &AccountId) -> AccountUsage {
        self.0.view.load().usage.get(account).copied().unwrap_or_default()
    }

    /// Functions whose creation or update is not finished.
    pub(crate) fn unsettled(&self) -> Vec<FunctionKey> {
        self.0.view.load().unsettled.iter().cloned().collect()
    }

    /// The code of all functions, as far as this node knows.
    pub(crate) fn code_in_use(&self) -> HashSet<BlobAddress> {
        let view = self.0.view.load();
        let address = |function: &Arc<Function>| BlobAddress {
            account: function.key.account.clone(),
            digest: function.code.digest,
        };
        view.functions.values().map(address).collect()
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
        let (view, revision) = listed(self.0.records.as_ref(), &self.0.sealer).await?;
        let before = self.0.view.swap(Arc::new(view));
        let now = self.0.view.load_full();
        self.0.applied.send_replace(revision);
        let gone = before.functions.keys().filter(|key| !now.functions.contains_key(*key));
        for key in now.functions.keys().chain(gone) {
            self.tell(key);
        }
        Ok(())
    }

    fn apply(&self, change: &Change) {
        if let Some(key) = record::function_key(change.key()) {
            let mut view = View::clone(&self.0.view.load());
            match change {
                Change::Put(record) => match record::decode(&self.0.sealer, record) {
                    Ok(function) => view.insert(function),
                    Err(error) => {
                        tracing::error!(function = %key.arn(), error = %error.chain(), "A function's record is unreadable.");
                    }
                },
                Change::Deleted { .. } => view.remove(&key),
            }
            self.0.view.store(Arc::new(view));
            self.0.applied.send_replace(change.revision());
            self.tell(&key);
        } else {
            self.0.applied.send_replace(change.revision());
        }
    }

    fn tell(&self, key: &FunctionKey) {
        // Nobody needs to listen.
        let _listeners = self.0.changes.send(key.clone()).unwrap_or(0);
    }
}

impl View {
    fn insert(&mut self, function: Function) {
        let key = function.key.clone();
        self.remove(&key);
        let is_settled =
            function.state != State::Pending && function.last_update != UpdateStatus::InProgress;
        if !is_settled {
            self.unsettled.insert_mut(key.clone());
        }
        let usage = self.usage.get(&key.account).copied().unwrap_or_default();
        let code_size = usage.code_size.saturating_add(ByteSize::bytes(function.code.size));
        let function_count = usage.function_count.saturating_add(1);
        self.usage.insert_mut(key.account.clone(), AccountUsage { code_size, function_count });
        self.functions.insert_mut(key, Arc::new(function));
    }

    fn remove(&mut self, key: &FunctionKey) {
        let Some(old) = self.functions.get(key).cloned() else { return };
        let usage = self.usage.get(&key.account).copied().unwrap_or_default();
        let code_size = usage.code_size.saturating_sub(ByteSize::bytes(old.code.size));
        let function_count = usage.function_count.saturating_sub(1);
        self.usage.insert_mut(key.account.clone(), AccountUsage { code_size, function_count });
        self.functions.remove_mut(key);
        self.unsettled.remove_mut(key);
    }
}

/// Everything there is, and a revision that is not newer than it.
async fn listed(records: &dyn Records, sealer: &Sealer) -> Result<(View, Revision)> {
    let revision = records.revision().await?;
    let mut view = View::default();
    for_each_record(records, &Prefix::all(), |record| {
        if record::function_key(&record.key).is_some() {
            view.insert(record::decode(sealer, record)?);
        }
        Ok(())
    })
    .await?;
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

/// The name that sorts before all others: `-` is the least of the characters of a name.
fn least_name() -> FunctionName {
    FunctionName::new("-").expect("'-' is a valid name")
}
