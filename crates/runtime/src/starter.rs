//! Makes Instances: everything that they share, and what one of them is made from.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use lacewing_model::{
    ByteSize, Clock, Credentials, Error, Family, Function, FunctionConfig, Network, NetworkBounds,
    Region, Result, RuntimeId, Secret, Timestamp, limits,
};
use lacewing_sandbox::{Launcher, OriginProgram, Role, Spec, Stance};
use lacewing_store::Blobs;

use crate::blanks::{BlankCounts, Blanks, Kind};
use crate::channel::Readiness;
use crate::endpoint::{self, EndpointListener, EndpointListeners};
use crate::environment::{self, Source};
use crate::failure::Failure;
use crate::instance::Instance;
use crate::layout::{Layout, Parts};
use crate::log::{self, LogReceiver, LogSender, LogWriter};
use crate::origins::{self, Origins, Programs};
use crate::package::{Package, Packages};
use crate::platform_log::{self, Event, InitStart, Initialization, Phase, Status};
use crate::process::{First, Means, Process, StartError, TELEMETRY_FD};
use crate::runtime_api::SnapStart;
use crate::runtimes::{Interpreter, Runtimes};
use crate::snapshots::{Lack, Snapshot, Snapshots};

mod blanks;

/// Time for the init phase of a snapshot, if its function's own timeout is not longer.
const SNAPSHOT_INIT: Duration = Duration::from_secs(130);
/// Most snapshots that wait to be made ahead.
const MOST_EXPECTED: usize = 64;
/// How often it is looked for snapshots that nobody uses.
const SNAPSHOT_LOOK: Duration = Duration::from_secs(30);

/// Where the runtime keeps its files, and what its sandboxes are told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds the unpacked packages by digest; emptied at start.
    pub code_dir: PathBuf,
    /// Holds the synthetic `/etc` and the bootstraps; made anew at start.
    pub run_dir: PathBuf,
    /// The port inside every sandbox on which the platform's own API answers.
    pub endpoint_port: u16,
    /// The region whose runtimes `INIT_START` names.
    pub region: Region,
    /// What functions get of the network at most.
    pub network: NetworkBounds,
    /// How many blank Instances are kept.
    pub blanks: usize,
    /// Whether they are forked from a warm interpreter where they can be.
    pub forks: bool,
    /// Whether another tree takes the place of the host's programs.
    pub has_own_root: bool,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The version of the function.
    pub function: Arc<Function>,
    /// Credentials of the function's role.
    pub credentials: Credentials,
    /// Whether another version of the same language may serve.
    pub substitute: bool,
    /// Whether it is to be kept ready: nobody waits for its init phase, which may be long.
    pub provisioned: bool,
}

/// The files that Instances stand on, made before there is a launcher and a store. Making them runs
/// each interpreter; nothing later runs a program outside a sandbox.
#[derive(Debug)]
pub struct Premises {
    options: Options,
    runtimes: Arc<Runtimes>,
    layout: Layout,
    /// What can be an origin, in the launcher's order.
    origins: Vec<OriginProgram>,
    programs: Programs,
}

/// Makes Instances; cheap to clone.
#[derive(Clone, Debug)]
pub struct Starter(Arc<Shared>);

/// What all Instances share.
struct Shared {
    region: Region,
    network: NetworkBounds,
    endpoint_port: u16,
    launcher: Launcher,
    packages: Packages,
    runtimes: Arc<Runtimes>,
    clock: Arc<dyn Clock>,
    layout: Layout,
    endpoints: mpsc::Sender<EndpointListener>,
    logs: LogSender,
    blanks: Blanks,
    /// Which program of the launcher's an interpreter is forked from, or why it cannot be.
    programs: Programs,
    origins: Origins,
    snapshots: Snapshots,
    /// What is to be made ahead.
    expected: Mutex<VecDeque<StartRequest>>,
    snapshot_expected: Notify,
    /// The tasks that serve the Runtime API; each ends with its sandbox.
    tasks: TaskTracker,
}

/// What one Instance is made from, as often as it has to be.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    shared: Arc<Shared>,
    request: StartRequest,
    /// None for `provided.*`.
    interpreter: Option<Interpreter>,
    /// Kept so that the code stays where it is.
    package: Arc<Package>,
    log_stream: String,
    /// From what it is restored.
    snapshot: Option<Snapshot>,
    /// Whether it is to become one.
    is_snapshot: bool,
}

// === Premises ===

impl Premises {
    /// Makes the directories and the files that all Instances share.
    ///
    /// # Errors
    /// If a directory cannot be prepared.
    pub fn prepare(options: Options, runtimes: Arc<Runtimes>) -> Result<Self> {
        std::fs::create_dir_all(&options.code_dir)
            .map_err(|error| Error::internal("prepare the code directory", error))?;
        let layout = Layout::prepare(&options.run_dir, &runtimes, options.endpoint_port)
            .map_err(|error| Error::internal("prepare the run directory", error))?;
        let (origins, programs) = origins::programs(&options, &runtimes, &layout);
        Ok(Self { options, runtimes, layout, origins, programs })
    }

    /// What all sandboxes have in common; the launcher keeps what is in it now.
    pub fn shared(&self) -> &Path {
        self.layout.shared()
    }

    /// What can be an origin.
    pub fn origins(&self) -> Vec<OriginProgram> {
        self.origins.clone()
    }

    /// The directories from which something is mounted into sandboxes; all of them exist.
    pub fn sources(&self) -> Vec<PathBuf> {
        let mut sources = self.layout.sources(&self.runtimes);
        sources.push(self.options.code_dir.clone());
        sources
    }
}

// === Starter ===

impl Starter {
    /// Takes over the premises, and empties the directory of code.
    ///
    /// # Errors
    /// If that fails.
    pub fn new(
        premises: Premises,
        launcher: Launcher,
        blobs: Arc<dyn Blobs>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, EndpointListeners, LogReceiver)> {
        let Premises { options, runtimes, layout, programs, .. } = premises;
        let Options { code_dir, endpoint_port, region, network, blanks, .. } = options;
        let packages = Packages::open(code_dir, blobs)
            .map_err(|error| Error::internal("prepare the code directory", error))?;
        let (endpoints, listeners) = endpoint::channel();
        let (logs, receiver) = log::channel();
        let tasks = TaskTracker::new();
        let shared = Shared {
            region,
            network,
            endpoint_port,
            launcher,
            packages,
            runtimes,
            clock,
            layout,
            endpoints,
            logs,
            blanks: Blanks::new(blanks),
            programs,
            origins: Origins::default(),
            snapshots: Snapshots::default(),
            expected: Mutex::default(),
            snapshot_expected: Notify::new(),
            tasks,
        };
        Ok((Self(Arc::new(shared)), listeners, receiver))
    }

    /// Starts an Instance and waits for the end of its init phase.
    ///
    /// # Errors
    /// Only for a fault of the platform, or a runtime that is not there; a failed init is kept and
    /// answered by the first invoke.
    pub async fn start(&self, request: StartRequest) -> Result<Instance> {
        let (mut blueprint, mut log) = self.blueprint(request.clone()).await?;
        if request.function.is_snap_started() {
            match self.snapshot_soon(request).await {
                Ok(snapshot) => blueprint.snapshot = Some(snapshot),
                Err(lack) => log.platform(&Event::NoSnapshot { why: lack.why() }),
            }
        }
        Instance::start(blueprint, log).await
    }

    /// Notes that a version will want a snapshot, so that it is made ahead.
    pub fn expect_snapshot(&self, request: StartRequest) {
        let mut expected = self.0.expected.lock();
        // What is left out is made when it is wanted.
        if expected.len() < MOST_EXPECTED {
            expected.push_back(request);
            self.0.snapshot_expected.notify_one();
        }
    }

    /// Makes snapshots that are expected, one after the other, for ever; whoever wants another sooner
    /// makes it.
    async fn make_snapshots(&self) {
        loop {
            self.0.snapshot_expected.notified().await;
            while let Some(request) = self.next_expected() {
                // Whoever starts an Instance learns why there is none.
                self.snapshot(request).await.ok();
            }
        }
    }

    fn next_expected(&self) -> Option<StartRequest> {
        self.0.expected.lock().pop_front()
    }

    /// Notes that a function may have changed: no snapshot of its former state is needed.
    pub fn renew_snapshot(&self, function: &Function) {
        self.0.snapshots.renew(function);
    }

    /// Why a version has no snapshot, as far as that is known.
    #[must_use]
    pub fn lacks_snapshot(&self, function: &Function) -> Option<String> {
        self.0.snapshots.lack(function)
    }

    /// The snapshot of a version, if it is there as soon as an init phase must be over: whoever takes
    /// longer holds up no start, and has it made ahead.
    async fn snapshot_soon(&self, request: StartRequest) -> std::result::Result<Snapshot, Lack> {
        let making = self.snapshot(request.clone());
        match tokio::time::timeout(limits::INIT_TIMEOUT, making).await {
            Ok(made) => made,
            Err(_) => {
                self.expect_snapshot(request);
                Err(Lack::Failed("it is still being initialised".to_owned()))
            }
        }
    }

    async fn snapshot(&self, request: StartRequest) -> std::result::Result<Snapshot, Lack> {
        let function = Arc::clone(&request.function);
        let make = Box::pin(async {
            let made = self.blueprint(request).await;
            let (mut blueprint, log) = made.map_err(|error| Lack::Failed(error.chain()))?;
            blueprint.is_snapshot = true;
            blueprint.take_snapshot(log).await
        });
        self.0.snapshots.get(&function, make).await
    }

    async fn blueprint(&self, request: StartRequest) -> Result<(Blueprint, LogWriter)> {
        let shared = Arc::clone(&self.0);
        let Function { key, config, code, .. } = &*request.function;
        let resolved = shared.runtimes.resolve(config.runtime, request.substitute)?;
        let package = shared.packages.get(&key.account, *code).await?;
        let now = shared.clock.now();
        let log_stream = platform_log::stream_name(now, &request.function, Uuid::new_v4());
        let clock = Arc::clone(&shared.clock);
        let log = LogWriter::new(shared.logs.clone(), clock, key.clone(), log_stream.clone())
            .in_format(config.logging.format);
        let interpreter = resolved.interpreter;
        let (snapshot, is_snapshot) = (None, false);
        let blueprint =
            Blueprint { shared, request, interpreter, package, log_stream, snapshot, is_snapshot };
        Ok((blueprint, log))
    }

    /// Notes that a function may be started soon, so that there will be a blank Instance for it.
    pub fn expect(&self, function: &Function, substitute: bool) {
        let shared = &self.0;
        // One that cannot be run is told so when it is started.
        let Ok(resolved) = shared.runtimes.resolve(function.config.runtime, substitute) else {
            return;
        };
        // One for several invocations is not made of a blank one.
        if let Some(interpreter) = resolved.interpreter.filter(|_| function.config.seats() == 1) {
            shared.blanks.expect(&shared.kind(interpreter, function));
        }
    }

    /// How many blank Instances there are and were.
    #[must_use]
    pub fn blanks(&self) -> BlankCounts {
        self.0.blanks.counts(self.0.origins.count())
    }

    /// Makes blank Instances and snapshots until `stop`, then ends them.
    pub async fn keep_blanks(&self, stop: &CancellationToken) {
        let shared = &self.0;
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.blanks.refill(|kind| shared.prepare(kind), |kind| shared.blank(kind)) => {}
            () = shared.expire_snapshots() => {}
            () = self.make_snapshots() => {}
        }
        shared.blanks.clear();
        shared.origins.clear();
        shared.snapshots.clear();
    }

    /// Waits until no Runtime API is served any more: after the last Instance is gone.
    pub async fn stopped(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

// === Shared ===

impl Shared {
    /// What the function wants of the network, and no more than it may have.
    fn network(&self, function: &Function) -> Network {
        let Function { key, config, .. } = function;
        // It was checked when it was set; one that cannot be read gets nothing.
        config.network().unwrap_or(Network::None).min(self.network.of(&key.account))
    }

    fn kind(&self, interpreter: Interpreter, function: &Function) -> Kind {
        let FunctionConfig { ephemeral_mb, memory_mb, .. } = function.config;
        let account = function.key.account.clone();
        Kind::new(account, interpreter, self.network(function), ephemeral_mb, memory_mb)
    }

    fn means(&self, is_framed: bool) -> Means<'_> {
        let Self { launcher, endpoints, tasks, .. } = self;
        Means { launcher, endpoints, tasks, is_framed, seats: 1, snapshot: None, snap_start: None }
    }

    async fn expire_snapshots(&self) {
        loop {
            tokio::time::sleep(SNAPSHOT_LOOK).await;
            self.snapshots.expire();
            self.origins.expire(Instant::now().into_std());
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("layout", &self.layout).finish_non_exhaustive()
    }
}

// === Blueprint ===

impl Blueprint {
    pub(crate) fn function(&self) -> &Function {
        &self.request.function
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Time of one invocation.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.function().config.timeout_seconds.into())
    }

    /// Time of the init phase.
    pub(crate) fn init_limit(&self) -> Duration {
        match self.initialization() {
            Initialization::OnDemand | Initialization::SnapStart => limits::INIT_TIMEOUT,
            Initialization::Provisioned => limits::PROVISIONED_INIT_TIMEOUT,
        }
    }

    /// Memory of one Instance.
    pub(crate) fn memory(&self) -> ByteSize {
        ByteSize::mebibytes(self.function().config.memory_mb)
    }

    pub(crate) fn init_start(&self) -> InitStart<'_> {
        InitStart {
            region: &self.shared.region,
            function: self.function(),
            serving: self.serving(),
            initialization: self.initialization(),
            version: self.interpreter.as_ref().map_or("", |one| one.version.as_str()),
        }
    }

    /// Why it is initialised.
    pub(crate) fn initialization(&self) -> Initialization {
        if self.is_of_snapshot() {
            Initialization::SnapStart
        } else if self.request.provisioned {
            Initialization::Provisioned
        } else {
            Initialization::OnDemand
        }
    }

    /// Whether it is restored from a snapshot.
    pub(crate) fn is_restored(&self) -> bool {
        self.snapshot.is_some()
    }

    /// From here on it is started as ever.
    pub(crate) fn give_up_snapshot(&mut self, why: &str) {
        let function = self.function().version_key().arn();
        tracing::warn!(%function, why, "A snapshot could not be used.");
        self.shared.snapshots.note_failure(self.function(), why);
        self.snapshot = None;
    }

    fn is_of_snapshot(&self) -> bool {
        self.is_snapshot || self.is_restored()
    }

    /// Initialises a sandbox and has it held.
    async fn take_snapshot(&self, mut log: LogWriter) -> std::result::Result<Process, Lack> {
        let began = Instant::now();
        let deadline = began + SNAPSHOT_INIT.max(self.timeout());
        log.platform(&Event::InitStart(self.init_start()));
        let terms = self.is_custom().then(|| SnapStart::new(self.request.credentials.clone()));
        let environment = self.environment(terms.as_ref().map(SnapStart::authorization));
        let means = Means { snap_start: terms.as_ref(), ..self.means() };
        let taken = match Process::start(self.spec(environment), means, deadline).await {
            Ok(mut process) => {
                let (phase, status) = (Phase::Init, Status::Success);
                match process.initialise(deadline, &mut log).await {
                    First::Came(Readiness::Ready) => {
                        let (initialization, took) = (self.initialization(), began.elapsed());
                        log.platform(&Event::InitReport { initialization, took, phase, status });
                        let held = process.hold(self.stance(), deadline).await;
                        held.map(|()| process)
                    }
                    // An Instance that is started as ever says what.
                    _ => Err(Lack::Failed("its initialisation failed".to_owned())),
                }
            }
            Err(error) => {
                tracing::warn!(?error, "A snapshot could not be made.");
                Err(Lack::Failed("its sandbox could not be made".to_owned()))
            }
        };
        if let Err(lack) = &taken {
            let (function, why) = (self.function().version_key().arn(), lack.why());
            tracing::warn!(%function, why, "A version with SnapStart has no snapshot.");
            log.platform(&Event::NoSnapshot { why });
        }
        log.finish();
        taken
    }

    /// How it waits to be held: Python takes its threads for ended after a fork, which somebody else's runtime
    /// does not hear of.
    fn stance(&self) -> Stance {
        match self.serving().family {
            Family::Python => Stance::Alone,
            Family::Node => Stance::Framed,
            Family::Provided => Stance::Free,
        }
    }

    /// Whether somebody else's runtime serves.
    fn is_custom(&self) -> bool {
        self.interpreter.is_none()
    }

    /// Forks the snapshot into a sandbox of its own.
    async fn restore(
        &self,
        snapshot: &Snapshot,
        deadline: Instant,
    ) -> std::result::Result<Process, StartError> {
        let environment = self.environment(None);
        let terms = snapshot.of_copy(&self.request.credentials);
        let (snap_start, sandbox) = (terms.as_ref(), Some(snapshot.sandbox()));
        let means = Means { snapshot: sandbox, snap_start, ..self.means() };
        let mut process = Process::start(self.spec(environment.clone()), means, deadline).await?;
        process.restored(&environment, Arc::clone(snapshot)).await;
        Ok(process)
    }

    /// A custom runtime must bring a program of a certain name.
    pub(crate) fn check_entrypoint(&self) -> Result<(), Failure> {
        if self.interpreter.is_some() {
            return Ok(());
        }
        self.package.check_entrypoint().map_err(|why| Failure::Entrypoint(why.to_owned()))
    }

    /// How many invocations its runtime serves at a time.
    pub(crate) fn seats(&self) -> usize {
        self.function().config.seats()
    }

    /// Whether it is one of our bootstraps that is told of one invocation after the other, in frames.
    fn is_framed(&self) -> bool {
        self.interpreter.is_some() && self.seats() == 1
    }

    /// Where tasks of its own go.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Makes a fresh sandbox, of a blank one if there is one that suits, and waits until its program
    /// starts.
    pub(crate) async fn start_process(&mut self, deadline: Instant) -> Result<Process, StartError> {
        if let Some(snapshot) = self.snapshot.clone() {
            match self.restore(&snapshot, deadline).await {
                Err(StartError::Platform(error)) => self.give_up_snapshot(&error.chain()),
                restored => return restored,
            }
        }
        let environment = self.environment(None);
        if let Some(process) = self.furnish_blank(&environment, deadline).await {
            return Ok(process);
        }
        Process::start(self.spec(environment), self.means(), deadline).await
    }

    fn means(&self) -> Means<'_> {
        Means { seats: self.seats(), ..self.shared.means(self.is_framed()) }
    }

    /// The environment; with this word instead of credentials, if there is one, by which it gets them.
    fn environment(&self, authorization: Option<&Secret<String>>) -> Vec<(String, String)> {
        environment::compose(&Source {
            function: self.function(),
            credentials: &self.request.credentials,
            authorization,
            initialization: self.initialization(),
            serving: self.serving(),
            log_stream: &self.log_stream,
            endpoint_port: self.shared.endpoint_port,
            telemetry_fd: TELEMETRY_FD,
        })
    }

    fn spec(&self, environment: Vec<(String, String)>) -> Spec {
        let FunctionConfig { memory_mb, ephemeral_mb, .. } = self.function().config;
        self.shared.layout.spec(Parts {
            name: Uuid::new_v4().simple().to_string(),
            memory_mb,
            ephemeral_mb,
            interpreter: self.interpreter.as_ref(),
            code: Some(self.package.directory()),
            environment,
            network: self.shared.network(self.function()),
            role: if self.is_snapshot { Role::Snapshot } else { Role::Program },
            is_framed: self.is_framed(),
        })
    }

    /// The runtime that serves, which may be a substitute.
    fn serving(&self) -> RuntimeId {
        let wanted = || self.function().config.runtime;
        self.interpreter.as_ref().map_or_else(wanted, |one| one.runtime)
    }
}
