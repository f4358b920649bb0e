//! A set of running services on a store of either kind.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use lacewing_model::function::{Architecture, Environment, StateReason};
use lacewing_model::time::ManualClock;
use lacewing_model::{
    AccountId, Clock, Function, FunctionConfig, FunctionKey, FunctionName, Region, RuntimeId,
    RuntimeVersion, Timestamp,
};
use lacewing_services::{NewFunction, Options, RuntimeCheck, Services, Serving, UpdateCode};
use lacewing_store::seal::{Sealer, TokenSealer};
use lacewing_store::{Blobs, Store, embedded, memory};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A side of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Maps in memory.
    Memory,
    /// SQLite and files.
    Embedded,
}

/// Every test of behaviour runs on both.
pub(crate) const SIDES: [Side; 2] = [Side::Memory, Side::Embedded];

pub(crate) const ROLE: &str = "arn:aws:iam::000000000000:role/lambda";
/// More than any step of a test takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Running services, and what they run on.
pub(crate) struct Bench {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
    pub(crate) services: Services,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Bench {
    pub(crate) async fn new(side: Side) -> Self {
        Self::with(side, |_| {}, any_runtime()).await
    }

    /// On a store in memory whose blobs are wrapped.
    pub(crate) async fn on_blobs(wrap: impl FnOnce(Arc<dyn Blobs>) -> Arc<dyn Blobs>) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        let mut store = memory::open(Arc::clone(&clock) as Arc<dyn Clock>);
        store.blobs = wrap(store.blobs);
        Self::start(dir, clock, store, |_| {}, any_runtime()).await
    }

    pub(crate) async fn with(
        side: Side,
        change: impl FnOnce(&mut Options),
        check: RuntimeCheck,
    ) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        let store = match side {
            Side::Memory => memory::open(Arc::clone(&clock) as Arc<dyn Clock>),
            Side::Embedded => opened(&dir, &clock),
        };
        Self::start(dir, clock, store, change, check).await
    }

    async fn start(
        dir: Arc<TempDir>,
        clock: Arc<ManualClock>,
        store: Store,
        change: impl FnOnce(&mut Options),
        check: RuntimeCheck,
    ) -> Self {
        let mut options = Options::new(region(), account(), dir.path().to_owned());
        change(&mut options);
        let (sealer, tokens) = (Sealer::new([7; 32]), TokenSealer::new(&[7; 32]));
        let (sealer, tokens) = (Arc::new(sealer), Arc::new(tokens));
        let as_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let services = Services::open(options, store.clone(), sealer, tokens, as_clock, check)
            .await
            .expect("opened");
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(services.clone().run(stop.clone()));
        tasks.close();
        Self { dir, clock, store, services, stop, tasks }
    }

    /// Ends everything and opens the embedded store again.
    pub(crate) async fn reopen(self, check: RuntimeCheck) -> Self {
        self.reopen_with(|_| {}, check).await
    }

    /// As [`Self::reopen`], with other options.
    pub(crate) async fn reopen_with(
        self,
        change: impl FnOnce(&mut Options),
        check: RuntimeCheck,
    ) -> Self {
        let Self { dir, clock, store, services, stop, tasks } = self;
        stop.cancel();
        tasks.wait().await;
        drop(services);
        store.close().await;
        let store = opened(&dir, &clock);
        Self::start(dir, clock, store, change, check).await
    }

    /// Services on a copy of the data directory as it is now, as a crash would leave it.
    pub(crate) async fn crashed(&self, check: RuntimeCheck) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        copy(self.dir.path(), dir.path());
        let clock = Arc::clone(&self.clock);
        let store = opened(&dir, &clock);
        Self::start(dir, clock, store, |_| {}, check).await
    }

    pub(crate) async fn create(&self, name: &str) -> Arc<Function> {
        let created = self.services.functions.create(&key(name), new(name)).await;
        created.expect("created")
    }

    pub(crate) async fn create_active(&self, name: &str) -> Arc<Function> {
        self.create(name).await;
        self.active(name).await
    }

    pub(crate) async fn active(&self, name: &str) -> Arc<Function> {
        let active = self.services.catalog.wait_active(&key(name).into(), PATIENCE).await;
        active.expect("active in time")
    }

    /// The function's archive, as it is given out.
    pub(crate) async fn bytes_of(&self, name: &str) -> Vec<u8> {
        let package = self.services.functions.code(&key(name), None).await.expect("there");
        let parts: Vec<Bytes> = package.bytes.try_collect().await.expect("readable");
        parts.concat()
    }

    /// Waits until the last update of a function is done.
    pub(crate) async fn settled(&self, name: &str) -> Arc<Function> {
        let mut changes = self.services.catalog.changes();
        let wait = async {
            loop {
                let function = self.services.functions.get(&key(name)).expect("there");
                if function.last_update != lacewing_model::function::UpdateStatus::InProgress {
                    return function;
                }
                changes.recv().await.expect("few changes");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("settled in time")
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&target).expect("made");
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

fn opened(dir: &TempDir, clock: &Arc<ManualClock>) -> Store {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    embedded::open(dir.path(), clock).expect("opened")
}

pub(crate) fn any_runtime() -> RuntimeCheck {
    Arc::new(|runtime| Ok(serving(runtime, None)))
}

/// What a check of a test's own says of a runtime that it has.
pub(crate) fn serving(runtime: RuntimeId, note: Option<StateReason>) -> Serving {
    Serving { version: RuntimeVersion::new(runtime, "3.13.0"), note }
}

pub(crate) fn account() -> AccountId {
    AccountId::new("000000000000").expect("valid")
}

pub(crate) fn region() -> Region {
    Region::new("us-east-1").expect("valid")
}

pub(crate) fn key(name: &str) -> FunctionKey {
    let name = FunctionName::new(name).expect("valid");
    FunctionKey { account: account(), region: region(), name }
}

pub(crate) fn config() -> FunctionConfig {
    let config = FunctionConfig::new(RuntimeId::python(3, 13), "app.handler", ROLE);
    FunctionConfig { architecture: Architecture::HOST, ..config }
}

pub(crate) fn environment(name: &str, value: &str) -> Environment {
    Environment(BTreeMap::from([(name.to_owned(), value.to_owned())]))
}

/// An archive with one file whose content is `text`.
pub(crate) fn zip(text: &str) -> Bytes {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("app.py"), text).expect("written");
    let mut bytes = Cursor::new(Vec::new());
    let files = [PathBuf::from("app.py")];
    lacewing_archive::pack(dir.path(), &files, &mut bytes, &mut |_| {}).expect("packed");
    bytes.into_inner().into()
}

pub(crate) fn new(text: &str) -> NewFunction {
    NewFunction { config: config(), zip: zip(text), publish: false }
}

pub(crate) fn code(text: &str) -> UpdateCode {
    UpdateCode {
        zip: zip(text),
        architecture: None,
        revision_id: None,
        dry_run: false,
        publish: false,
    }
}
