//! Building a node, part by part, in the order in which the parts need each other.
//!
//! ```text
//! data directory -> store (lock, format) -> sealers -> launcher -> interpreters
//!                -> services -> starter -> invoker -> gateway -> listener
//! ```
//!
//! If a part fails, those before it are closed again and the error names the part.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lacewing_gateway::{AdminInfo, Gateway};
use lacewing_invoke::Invoker;
use lacewing_model::function::StateReason;
use lacewing_model::{Clock, Error, SystemClock};
use lacewing_runtime::{EndpointListeners, LogReceiver, Runtimes, Starter};
use lacewing_sandbox::{Launcher, LauncherOptions};
use lacewing_services::{RuntimeCheck, Services};
use lacewing_store::seal::{self, Sealer, TokenSealer};
use lacewing_store::{Store, StoreError, embedded};
use serde_json::json;
use tokio::net::TcpListener;

use crate::config::{Cpu, Isolation, Settings};
use crate::data_dir;
use crate::doctor::Doctor;

/// Port inside every sandbox on which the platform's own API answers.
const ENDPOINT_PORT: u16 = 9002;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be made or written.
    #[error("cannot use the data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server uses the data directory.
    #[error("another server is running on the data directory {}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[source] StoreError),
    /// The launcher cannot be started, or refuses this host.
    #[error("cannot start the launcher of sandboxes")]
    Launcher(#[source] lacewing_sandbox::Error),
    /// A part above the store failed.
    #[error("cannot start the node's {part}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why.
        source: Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The parts of a node, built and not yet running.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) launcher: Launcher,
    pub(crate) services: Services,
    pub(crate) endpoints: EndpointListeners,
    pub(crate) logs: LogReceiver,
    pub(crate) invoker: Invoker,
    pub(crate) gateway: Gateway,
    pub(crate) listener: TcpListener,
    pub(crate) doctor: Doctor,
}

/// Builds all parts.
pub(crate) async fn build(settings: &Settings, exe: &Path) -> Result<Parts, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = &settings.data_dir;
    let unusable = |source| StartError::DataDir { path: dir.clone(), source };
    data_dir::make_private(dir).map_err(unusable)?;
    let store = embedded::open(dir, Arc::clone(&clock)).map_err(|error| match error {
        StoreError::Locked { path } => StartError::Locked { path },
        other => StartError::Store(other),
    })?;
    let owner = data_dir::owner(dir).map_err(unusable)?;
    let master = seal::load_or_create_master(dir).map_err(StartError::Store)?;
    // Not on a thread of a pool: the launcher ends with the thread that started it.
    let launcher = Launcher::start(exe, &launcher_options(settings, owner));
    let launcher = match launcher {
        Ok(launcher) => launcher,
        Err(error) => {
            store.close().await;
            return Err(StartError::Launcher(error));
        }
    };
    match assemble(settings, &store, master, &launcher, clock).await {
        Ok(above) => {
            let Above { services, endpoints, logs, invoker, gateway, listener, doctor } = above;
            Ok(Parts {
                store,
                launcher,
                services,
                endpoints,
                logs,
                invoker,
                gateway,
                listener,
                doctor,
            })
        }
        Err(error) => {
            launcher.stop();
            store.close().await;
            Err(error)
        }
    }
}

/// What stands on the store and the launcher.
struct Above {
    services: Services,
    endpoints: EndpointListeners,
    logs: LogReceiver,
    invoker: Invoker,
    gateway: Gateway,
    listener: TcpListener,
    doctor: Doctor,
}

async fn assemble(
    settings: &Settings,
    store: &Store,
    master: [u8; 32],
    launcher: &Launcher,
    clock: Arc<dyn Clock>,
) -> Result<Above, StartError> {
    let part = |part: &'static str| move |source| StartError::Part { part, source };
    let runtimes = Arc::new(discover(settings)?);
    let doctor = Doctor::new(settings, launcher.report(), &runtimes);
    let services = Services::open(
        settings.services.clone(),
        store.clone(),
        Arc::new(Sealer::new(master)),
        Arc::new(TokenSealer::new(&master)),
        Arc::clone(&clock),
        runtime_check(Arc::clone(&runtimes), settings.invoke.substitute),
    )
    .await
    .map_err(part("services"))?;
    let (starter, endpoints, logs) = Starter::new(
        lacewing_runtime::Options {
            code_dir: settings.data_dir.join("code"),
            run_dir: settings.data_dir.join("run"),
            endpoint_port: ENDPOINT_PORT,
            region: settings.services.region.clone(),
        },
        launcher.clone(),
        Arc::clone(&store.blobs),
        runtimes,
        Arc::clone(&clock),
    )
    .map_err(part("runtime"))?;
    let invoker = Invoker::open(
        settings.invoke.clone(),
        services.clone(),
        starter,
        store.clone(),
        Arc::clone(&clock),
    )
    .await
    .map_err(part("invoker"))?;
    let address = settings.listen;
    let unusable = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    data_dir::write_address(&settings.data_dir, address)
        .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
    let admin = admin_info(settings, address, &services, &invoker, &doctor);
    let gateway =
        Gateway::new(settings.gateway.clone(), services.clone(), invoker.clone(), admin, clock);
    Ok(Above { services, endpoints, logs, invoker, gateway, listener, doctor })
}

/// What the launcher is told.
pub(crate) fn launcher_options(settings: &Settings, owner: String) -> LauncherOptions {
    let (uid_base, uid_count) = settings.uid_range(&owner);
    LauncherOptions {
        owner,
        isolation: match settings.isolation {
            Isolation::Required => lacewing_sandbox::Isolation::Required,
            Isolation::BestEffort => lacewing_sandbox::Isolation::BestEffort,
        },
        cpu: match settings.cpu {
            Cpu::Fair => lacewing_sandbox::Cpu::Fair,
            Cpu::Hard => lacewing_sandbox::Cpu::Hard,
        },
        uid_base,
        uid_count,
        cgroup_parent: settings.cgroup_parent.clone(),
        root: settings.sandbox_root.clone(),
    }
}

/// Looks for interpreters.
pub(crate) fn discover(settings: &Settings) -> Result<Runtimes, StartError> {
    Runtimes::discover(&settings.runtimes, std::env::var_os("PATH").as_deref())
        .map_err(|source| StartError::Part { part: "runtimes", source })
}

fn runtime_check(runtimes: Arc<Runtimes>, substitute: bool) -> RuntimeCheck {
    Arc::new(move |wanted| {
        let resolved = runtimes.resolve(wanted, substitute)?;
        let stand_in = resolved.interpreter.filter(|_| resolved.substituted);
        Ok(stand_in.map(|interpreter| StateReason {
            text: format!(
                "{wanted} is not installed on this machine; {} ({}) runs the function instead.",
                interpreter.runtime, interpreter.version
            ),
            code: "RuntimeSubstituted".to_owned(),
        }))
    })
}

fn admin_info(
    settings: &Settings,
    address: SocketAddr,
    services: &Services,
    invoker: &Invoker,
    doctor: &Doctor,
) -> AdminInfo {
    let account = settings.services.account.clone();
    let fixed = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "region": settings.services.region,
        "account": account,
        "address": address.to_string(),
        "data_dir": settings.data_dir.display().to_string(),
        "isolation": if doctor.full { "full" } else { "partial" },
        "lacks": doctor.lacks,
    });
    let (services, invoker) = (services.clone(), invoker.clone());
    let info = move || {
        let mut info = fixed.clone();
        info["functions"] = services.functions.account_usage(&account).function_count.into();
        info["instances"] = json!(invoker.stats());
        info
    };
    let runtimes = json!({ "runtimes": doctor.runtimes });
    let doctor = json!(doctor);
    AdminInfo {
        info: Arc::new(info),
        doctor: Arc::new(move || doctor.clone()),
        runtimes: Arc::new(move || runtimes.clone()),
    }
}
