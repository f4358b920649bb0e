//! What Lacewing offers, free of any wire format: functions, identity, logs and usage.
//!
//! Everything durable lives behind `lacewing-store`; everything that is read on the way of a request
//! is a snapshot in memory (the [`Catalog`], the root key). A write answers after it is durable and
//! after the local catalog shows it.
//!
//! What it never does: speak HTTP, name an AWS exception, or invoke a function.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lacewing_model::function::StateReason;
use lacewing_model::{
    AccountId, ByteSize, Clock, NetworkBounds, Region, Result, RuntimeId, RuntimeVersion, limits,
};
use lacewing_store::Store;
use lacewing_store::seal::{Sealer, TokenSealer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod catalog;
pub mod functions;
pub mod identity;
pub mod logs;
mod record;
mod retention;
mod since;
pub mod usage;

pub use catalog::Catalog;
pub use functions::{
    AccountUsage, AliasPatch, ConfigPatch, Functions, NewAlias, NewFunction, Package, Publish,
    Routing, UpdateCode,
};
pub use identity::{Identity, Key, LookupError};
pub use logs::{Line, Lines, LogBounds, LogCursor, LogEvent, LogPage, LogQuery, Logs};
pub use record::provisioned::Provision;
pub use usage::{TotalsPage, Usage, UsagePage, UsageQuery, UsageTotals, Written};

use retention::Retention;

/// A day, in which times of keeping are counted.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause before a task that panicked is begun again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Says what runs functions of a runtime here, or lists in an error what there is.
pub type RuntimeCheck = Arc<dyn Fn(RuntimeId) -> Result<Serving> + Send + Sync>;

/// What runs functions of a runtime here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its exact version.
    pub version: RuntimeVersion,
    /// What to say of a function's state when it is another version than was asked for.
    pub note: Option<StateReason>,
}

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The region this node answers for.
    pub region: Region,
    /// The account of the root key.
    pub account: AccountId,
    /// Takes any role ARN for the account's role `lambda`.
    pub lenient_roles: bool,
    /// Where the credentials file is written.
    pub data_dir: PathBuf,
    /// How long log events are kept.
    pub log_retention: Duration,
    /// How much of the logs is kept.
    pub log_bounds: LogBounds,
    /// How long usage records are kept.
    pub usage_retention: Duration,
    /// Most bytes of stored code an account may have.
    pub code_storage: ByteSize,
    /// What functions get of the network at most.
    pub network: NetworkBounds,
    /// Concurrent invocations of an account.
    pub account_concurrency: u32,
}

impl Options {
    /// The defaults for a data directory.
    pub fn new(region: Region, account: AccountId, data_dir: PathBuf) -> Self {
        Self {
            region,
            account,
            lenient_roles: false,
            data_dir,
            log_retention: 30 * DAY,
            log_bounds: LogBounds::default(),
            usage_retention: 400 * DAY,
            code_storage: limits::CODE_STORAGE,
            network: NetworkBounds::default(),
            account_concurrency: limits::ACCOUNT_CONCURRENCY,
        }
    }
}

/// All services of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    /// Which functions there are, in memory.
    pub catalog: Catalog,
    /// Creating, changing and deleting functions.
    pub functions: Functions,
    /// Who calls, and what they may do.
    pub identity: Identity,
    /// What functions printed.
    pub logs: Logs,
    /// What invocations cost.
    pub usage: Usage,
    retention: Retention,
}

impl Services {
    /// Opens all services on a store: makes the root key at the first start, builds the catalog.
    ///
    /// # Errors
    /// When the store or the credentials file cannot be used.
    pub async fn open(
        options: Options,
        store: Store,
        sealer: Arc<Sealer>,
        tokens: Arc<TokenSealer>,
        clock: Arc<dyn Clock>,
        runtime_check: RuntimeCheck,
    ) -> Result<Self> {
        let identity =
            Identity::open(&options, &store, &sealer, tokens, Arc::clone(&clock)).await?;
        let (sealed, check) = (Arc::clone(&sealer), Arc::clone(&runtime_check));
        let reader = catalog::Reader { sealer: sealed, runtime_check: check };
        let catalog = Catalog::open(Arc::clone(&store.records), reader).await?;
        let retention = Retention::new(Arc::clone(&store.log), Arc::clone(&clock), &options);
        let logs = Logs::new(Arc::clone(&store.log), options.log_bounds);
        let usage = Usage::new(Arc::clone(&store.log));
        let functions = Functions::new(functions::Parts {
            store,
            sealer,
            clock,
            catalog: catalog.clone(),
            identity: identity.clone(),
            runtime_check,
            code_storage: options.code_storage,
            network: options.network.clone(),
            account_concurrency: options.account_concurrency,
        });
        Ok(Self { catalog, functions, identity, logs, usage, retention })
    }

    /// Forgets the logs and usage records that are older than they are kept; [`Self::run`] does so
    /// now and then.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn forget_old(&self) -> Result<()> {
        self.retention.forget_old().await
    }

    /// Keeps the catalog current, finishes what requests began and forgets what is old, until `stop`.
    /// Without it no write is ever answered.
    pub async fn run(self, stop: CancellationToken) {
        let Self { catalog, functions, retention, .. } = self;
        let tasks = TaskTracker::new();
        supervise(&tasks, "catalog", &stop, move |stop| {
            let catalog = catalog.clone();
            async move { catalog.follow(&stop).await }
        });
        supervise(&tasks, "reconciler", &stop, move |stop| {
            let functions = functions.clone();
            async move { functions.reconcile(&stop).await }
        });
        supervise(&tasks, "retention", &stop, move |stop| {
            let retention = retention.clone();
            async move { retention.run(&stop).await }
        });
        tasks.close();
        tasks.wait().await;
    }
}

/// Runs a task until `stop`, again after a panic.
fn supervise<F: Future<Output = ()> + Send + 'static>(
    tasks: &TaskTracker,
    name: &'static str,
    stop: &CancellationToken,
    task: impl Fn(CancellationToken) -> F + Send + 'static,
) {
    let (tracker, stop) = (tasks.clone(), stop.clone());
    tasks.spawn(async move {
        while !stop.is_cancelled() {
            if let Err(error) = tracker.spawn(task(stop.clone())).await {
                tracing::error!(task = name, error = %error, "A task died and is begun again.");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(AFTER_PANIC) => {}
                }
            }
        }
    });
}
