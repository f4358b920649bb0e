//! Building a node on what was prepared, part by part, in the order in which they need each other.
//!
//! ```text
//! prepared -> sealers -> store -> services -> starter -> invoker -> listener -> gateway
//! ```
//!
//! If a part fails, those before it are closed again and the error names the part.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lacewing_gateway::{AdminInfo, Gateway, Lanes};
use lacewing_invoke::Invoker;
use lacewing_model::function::StateReason;
use lacewing_model::{Clock, Error, RuntimeVersion, SystemClock};
use lacewing_runtime::{EndpointListeners, LogReceiver, NameRelay, Premises, Runtimes, Starter};
use lacewing_sandbox::Launcher;
use lacewing_services::{RuntimeCheck, Services, Serving};
use lacewing_store::embedded::Claim;
use lacewing_store::seal::{self, Sealer, TokenSealer};
use lacewing_store::{Store, StoreError};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Settings;
use crate::data_dir;
use crate::doctor::{Doctor, Egress};
use crate::prepare::Prepared;

/// Connections that may wait to be accepted; the kernel's `net.core.somaxconn` bounds it, too.
const BACKLOG: u32 = 1024;
/// Functions that are looked at to know what the first start will need.
const EXPECTED: usize = 1024;

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
    /// Another server runs whose data directory has the same owner id.
    #[error("another server is running on a data directory of which {} is a copy", path.display())]
    Copied {
        /// The directory.
        path: PathBuf,
    },
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[source] StoreError),
    /// The master key is not there, or not the one of this store.
    #[error("cannot open what is sealed in the store")]
    MasterKey(#[source] StoreError),
    /// The launcher cannot be started, or refuses this host.
    #[error("cannot start the launcher of sandboxes")]
    Launcher(#[source] lacewing_sandbox::Error),
    /// The server's privileges cannot be given up.
    #[error("cannot start with fewer privileges")]
    Surrender(#[source] lacewing_sandbox::Error),
    /// Functions do not get out, and the configuration wants them to.
    #[error("network.mode is egress, and functions cannot get out: {why}. {remedy}")]
    Network {
        /// What is missing.
        why: String,
        /// What the operator can do about it.
        remedy: String,
    },
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
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) launcher: Launcher,
    pub(crate) services: Services,
    pub(crate) endpoints: EndpointListeners,
    pub(crate) logs: LogReceiver,
    pub(crate) invoker: Invoker,
    pub(crate) gateway: Gateway,
    pub(crate) listener: TcpListener,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) doctor: Doctor,
    /// None where functions do not get out.
    pub(crate) names: Option<NameRelay>,
}

/// Builds all parts on what was prepared.
pub(crate) async fn build(prepared: Prepared) -> Result<Parts, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Prepared { settings, claim, runtimes, premises, launcher, socket, doctor } = prepared;
    let ground = Ground { runtimes, premises, socket, doctor };
    let master = master_key(&settings.data_dir, &claim).map_err(StartError::MasterKey)?;
    let store = claim.open(Arc::clone(&clock)).map_err(StartError::Store)?;
    match assemble(&settings, &store, master, &launcher, ground, clock).await {
        Ok(above) => {
            let Above {
                services,
                endpoints,
                logs,
                invoker,
                gateway,
                listener,
                lanes,
                doctor,
                names,
            } = above;
            Ok(Parts {
                settings,
                store,
                launcher,
                services,
                endpoints,
                logs,
                invoker,
                gateway,
                listener,
                lanes,
                doctor,
                names,
            })
        }
        Err(error) => {
            launcher.stop();
            store.close().await;
            Err(error)
        }
    }
}

/// The key of the store's secrets: made together with the store, and never for one that is there.
fn master_key(dir: &Path, claim: &Claim) -> Result<[u8; 32], StoreError> {
    if claim.is_new()? { seal::load_or_create_master(dir) } else { seal::load_master(dir) }
}

/// What was prepared for the parts above the store and the launcher.
struct Ground {
    runtimes: Arc<Runtimes>,
    premises: Premises,
    socket: TcpSocket,
    doctor: Doctor,
}

/// What stands on the store and the launcher.
struct Above {
    services: Services,
    endpoints: EndpointListeners,
    logs: LogReceiver,
    invoker: Invoker,
    gateway: Gateway,
    listener: TcpListener,
    lanes: Arc<Lanes>,
    doctor: Doctor,
    names: Option<NameRelay>,
}

async fn assemble(
    settings: &Settings,
    store: &Store,
    master: [u8; 32],
    launcher: &Launcher,
    ground: Ground,
    clock: Arc<dyn Clock>,
) -> Result<Above, StartError> {
    let part = |part: &'static str| move |source| StartError::Part { part, source };
    let Ground { runtimes, premises, socket, doctor } = ground;
    let names = name_relay(settings, launcher)?;
    let services = Services::open(
        settings.services.clone(),
        store.clone(),
        Arc::new(Sealer::new(master)),
        Arc::new(TokenSealer::new(&master)),
        Arc::clone(&clock),
        runtime_check(runtimes, settings.invoke.substitute),
    )
    .await
    .map_err(services_failed)?;
    let blobs = Arc::clone(&store.blobs);
    let (starter, endpoints, logs) =
        Starter::new(premises, launcher.clone(), blobs, Arc::clone(&clock))
            .map_err(part("runtime"))?;
    let (account, region) = (&settings.services.account, &settings.services.region);
    for function in services.catalog.list(account, region, None, EXPECTED) {
        starter.expect(&function, settings.invoke.substitute);
    }
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
    let listener = socket.listen(BACKLOG).map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    data_dir::write_address(&settings.data_dir, address)
        .map_err(|source| StartError::DataDir { path: settings.data_dir.clone(), source })?;
    let admin = admin_info(settings, address, &services, &invoker, &doctor);
    let gateway =
        Gateway::new(settings.gateway.clone(), services.clone(), invoker.clone(), admin, clock);
    let lanes = Lanes::start().map_err(|error| Error::internal("start threads", error));
    let lanes = Arc::new(lanes.map_err(part("lanes"))?);
    Ok(Above { services, endpoints, logs, invoker, gateway, listener, lanes, doctor, names })
}

fn services_failed(error: Error) -> StartError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<StoreError>());
    match cause.cloned() {
        Some(cause @ StoreError::MasterKey { .. }) => StartError::MasterKey(cause),
        _ => StartError::Part { part: "services", source: error },
    }
}

/// What answers functions that ask for names; refuses a host that lacks a way out that was asked for.
fn name_relay(settings: &Settings, launcher: &Launcher) -> Result<Option<NameRelay>, StartError> {
    let failed =
        |error| StartError::Part { part: "names", source: Error::internal("serve names", error) };
    let Some(sockets) = launcher.name_server().map_err(failed)? else {
        let Egress { detail: why, remedy, .. } = Egress::of(launcher.report());
        let is_required = settings.network.is_required;
        return if is_required { Err(StartError::Network { why, remedy }) } else { Ok(None) };
    };
    let (resolvers, policy) =
        (settings.network.resolvers.clone(), settings.network.options.policy.clone());
    NameRelay::new(sockets, resolvers, policy).map(Some).map_err(failed)
}

fn runtime_check(runtimes: Arc<Runtimes>, substitute: bool) -> RuntimeCheck {
    Arc::new(move |wanted| {
        let resolved = runtimes.resolve(wanted, substitute)?;
        let serving = resolved.interpreter.as_ref();
        let version = match serving {
            Some(interpreter) => RuntimeVersion::new(interpreter.runtime, &interpreter.version),
            None => RuntimeVersion::new(wanted, ""),
        };
        let stand_in = serving.filter(|_| resolved.substituted);
        let note = stand_in.map(|interpreter| StateReason {
            text: format!(
                "{wanted} is not installed on this machine; {} ({}) runs the function instead.",
                interpreter.runtime, interpreter.version
            ),
            code: "RuntimeSubstituted".to_owned(),
        });
        Ok(Serving { version, note })
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
        "without": doctor.without,
        "network": doctor.network.word(),
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
