//! Makes Instances: everything that they share, and what one of them is made from.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use lacewing_model::{
    ByteSize, Clock, Credentials, Error, Function, Region, Result, RuntimeId, Timestamp,
};
use lacewing_sandbox::{Launcher, Spec};
use lacewing_store::Blobs;

use crate::endpoint::{self, EndpointListener, EndpointListeners};
use crate::environment::{self, Source};
use crate::failure::Failure;
use crate::instance::Instance;
use crate::layout::{Layout, Parts};
use crate::log::{self, LogReceiver, LogSender, LogWriter};
use crate::package::{Package, Packages};
use crate::platform_log;
use crate::process::{Means, Process, StartError, TELEMETRY_FD};
use crate::runtimes::{Interpreter, Runtimes};

/// The one place where a custom runtime is looked for, until there are layers.
const ENTRYPOINT: &str = "bootstrap";

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
}

/// What to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The function.
    pub function: Arc<Function>,
    /// The version, `$LATEST` or a number.
    pub version: String,
    /// Credentials of the function's role.
    pub credentials: Credentials,
    /// Whether another version of the same language may serve.
    pub substitute: bool,
}

/// Makes Instances; cheap to clone.
#[derive(Clone, Debug)]
pub struct Starter(Arc<Shared>);

/// What all Instances share.
struct Shared {
    region: Region,
    endpoint_port: u16,
    launcher: Launcher,
    packages: Packages,
    runtimes: Arc<Runtimes>,
    clock: Arc<dyn Clock>,
    layout: Layout,
    endpoints: mpsc::Sender<EndpointListener>,
    logs: LogSender,
    /// The tasks that serve the Runtime API; each ends with its sandbox.
    tasks: TaskTracker,
}

/// What one Instance is made from, as often as it has to be.
#[derive(Debug)]
pub(crate) struct Blueprint {
    shared: Arc<Shared>,
    request: StartRequest,
    /// None for `provided.*`.
    interpreter: Option<Interpreter>,
    /// Kept so that the code stays where it is.
    package: Arc<Package>,
    log_stream: String,
}

// === Starter ===

impl Starter {
    /// Prepares everything that all Instances share; reads and writes files.
    ///
    /// # Errors
    /// If a directory cannot be prepared.
    pub fn new(
        options: Options,
        launcher: Launcher,
        blobs: Arc<dyn Blobs>,
        runtimes: Arc<Runtimes>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, EndpointListeners, LogReceiver)> {
        let Options { code_dir, run_dir, endpoint_port, region } = options;
        let packages = Packages::open(code_dir, blobs)
            .map_err(|error| Error::internal("prepare the code directory", error))?;
        let layout = Layout::prepare(&run_dir, &runtimes, endpoint_port)
            .map_err(|error| Error::internal("prepare the run directory", error))?;
        let (endpoints, listeners) = endpoint::channel();
        let (logs, receiver) = log::channel();
        let tasks = TaskTracker::new();
        let shared = Shared {
            region,
            endpoint_port,
            launcher,
            packages,
            runtimes,
            clock,
            layout,
            endpoints,
            logs,
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
        let shared = Arc::clone(&self.0);
        let Function { key, config, code, .. } = &*request.function;
        let resolved = shared.runtimes.resolve(config.runtime, request.substitute)?;
        let package = shared.packages.get(&key.account, *code).await?;
        let now = shared.clock.now();
        let log_stream = platform_log::stream_name(now, &request.version, Uuid::new_v4());
        let clock = Arc::clone(&shared.clock);
        let log = LogWriter::new(shared.logs.clone(), clock, key.clone(), log_stream.clone());
        let interpreter = resolved.interpreter;
        let blueprint = Blueprint { shared, request, interpreter, package, log_stream };
        Instance::start(blueprint, log).await
    }

    /// Waits until no Runtime API is served any more: after the last Instance is gone.
    pub async fn stopped(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

// === Shared ===

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

    pub(crate) fn version(&self) -> &str {
        &self.request.version
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Time of one invocation.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.function().config.timeout_seconds.into())
    }

    /// Memory of one Instance.
    pub(crate) fn memory(&self) -> ByteSize {
        ByteSize::mebibytes(self.function().config.memory_mb)
    }

    pub(crate) fn init_start_line(&self) -> String {
        let version = self.interpreter.as_ref().map_or("", |one| one.version.as_str());
        let wanted = self.function().config.runtime;
        platform_log::init_start(&self.shared.region, wanted, self.serving(), version)
    }

    /// A custom runtime must bring a program of a certain name.
    pub(crate) fn check_entrypoint(&self) -> Result<(), Failure> {
        if self.interpreter.is_some() {
            return Ok(());
        }
        match std::fs::metadata(self.package.directory().join(ENTRYPOINT)) {
            Ok(metadata) if metadata.is_file() => {
                let is_executable = metadata.permissions().mode() & 0o111 != 0;
                let denied = "fork/exec /var/task/bootstrap: permission denied";
                is_executable.then_some(()).ok_or_else(|| Failure::Entrypoint(denied.to_owned()))
            }
            Ok(_) | Err(_) => {
                let missing = "Couldn't find valid bootstrap(s): \
                               [/var/task/bootstrap /opt/bootstrap]";
                Err(Failure::Entrypoint(missing.to_owned()))
            }
        }
    }

    /// Makes a fresh sandbox and waits until its program starts.
    pub(crate) async fn start_process(&self, deadline: Instant) -> Result<Process, StartError> {
        let means = Means {
            launcher: &self.shared.launcher,
            endpoints: &self.shared.endpoints,
            tasks: &self.shared.tasks,
            is_stock: self.interpreter.is_some(),
        };
        Process::start(self.spec(), means, deadline).await
    }

    fn spec(&self) -> Spec {
        let environment = environment::compose(&Source {
            function: self.function(),
            version: self.version(),
            credentials: &self.request.credentials,
            serving: self.serving(),
            log_stream: &self.log_stream,
            endpoint_port: self.shared.endpoint_port,
            telemetry_fd: TELEMETRY_FD,
        });
        self.shared.layout.spec(Parts {
            name: Uuid::new_v4().simple().to_string(),
            config: &self.function().config,
            interpreter: self.interpreter.as_ref(),
            code: self.package.directory(),
            environment,
        })
    }

    /// The runtime that serves, which may be a substitute.
    fn serving(&self) -> RuntimeId {
        let wanted = || self.function().config.runtime;
        self.interpreter.as_ref().map_or_else(wanted, |one| one.runtime)
    }
}
