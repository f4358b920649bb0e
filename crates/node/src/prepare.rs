//! What a node does with the powers of the user who starts it, and how it gives them up.
//!
//! ```text
//! data directory (private, locked) -> interpreters -> files of Instances -> launcher -> address
//!                -> nothing is left but reading and writing the data directory
//! ```
//!
//! Everything here happens on the program's first and only thread: capabilities, Landlock and seccomp
//! belong to threads, and those of the node, started later, inherit them. Nothing of the store is
//! read here, and no byte of a stranger.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lacewing_model::limits;
use lacewing_runtime::{NameRelay, Premises, Runtimes};
use lacewing_sandbox::{Keep, Launcher, LauncherOptions, ScratchOptions};
use lacewing_store::StoreError;
use lacewing_store::embedded::{self, Claim};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use tokio::net::TcpSocket;

use crate::config::{Cpu, Isolation, Settings, Tmp};
use crate::data_dir;
use crate::doctor::{Beginning, Doctor};
use crate::start::StartError;

/// Port inside every sandbox on which the platform's own API answers.
const ENDPOINT_PORT: u16 = 9002;

/// A node that holds all that needs privileges, and has none any more.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) settings: Settings,
    pub(crate) claim: Claim,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) premises: Premises,
    pub(crate) launcher: Launcher,
    pub(crate) socket: TcpSocket,
    pub(crate) doctor: Doctor,
}

impl Prepared {
    /// Prepares a node and gives up the process's privileges for good: from here on it cannot run
    /// programs, write outside the data directory or read what is no part of the system. `exe` is the
    /// program that is the launcher when it is run with `__launcher`; `own` is what the program
    /// around the node needs beside it.
    ///
    /// Call it while the program has one thread.
    ///
    /// # Errors
    /// If something cannot be prepared or given up; nothing is left running then.
    pub fn new(settings: Settings, exe: &Path, own: Keep) -> Result<Self, StartError> {
        // Files are this user's alone; what sandboxes must read is made readable by name.
        rustix::process::umask(Mode::from_raw_mode(0o077));
        raise_open_files();
        let dir = &settings.data_dir;
        let unusable = |source| StartError::DataDir { path: dir.clone(), source };
        data_dir::make_private(dir).map_err(unusable)?;
        let claim = embedded::claim(dir).map_err(|error| match error {
            StoreError::Locked { path } => StartError::Locked { path },
            other => StartError::Store(other),
        })?;
        let owner = data_dir::owner(dir).map_err(unusable)?;
        let runtimes = Arc::new(discover(&settings)?);
        let options = lacewing_runtime::Options {
            code_dir: dir.join("code"),
            run_dir: dir.join("run"),
            endpoint_port: ENDPOINT_PORT,
            region: settings.services.region.clone(),
            network: settings.network.bounds.clone(),
            blanks: settings.blanks,
            forks: settings.forks,
            has_own_root: settings.sandbox_root.is_some(),
        };
        let interpreters = Beginning::of_all(&settings, &runtimes);
        let premises = Premises::prepare(options, Arc::clone(&runtimes))
            .map_err(|source| StartError::Part { part: "runtime", source })?;
        let mut options = launcher_options(&settings, owner);
        options.sources = premises.sources();
        options.shared = Some(premises.shared().to_owned());
        options.origins = premises.origins();
        let launcher = Launcher::start(exe, &options).map_err(|error| match error {
            lacewing_sandbox::Error::Taken => StartError::Copied { path: dir.clone() },
            other => StartError::Launcher(other),
        })?;
        keep_pages_small();
        let (socket, port) = bind(settings.listen)
            .map_err(|source| StartError::Listen { address: settings.listen, source })?;
        let given_up = lacewing_sandbox::surrender(&keep(&settings, port, own))
            .map_err(StartError::Surrender)?;
        data_dir::check_access(dir).map_err(unusable)?;
        let mut report = launcher.report().clone();
        report.features.extend(given_up);
        let doctor = Doctor::new(&settings, report, &runtimes, interpreters);
        Ok(Self { settings, claim, runtimes, premises, launcher, socket, doctor })
    }
}

/// What the launcher is told; it binds nothing into sandboxes yet.
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
        sources: Vec::new(),
        shared: None,
        origins: Vec::new(),
        scratch: (settings.tmp == Tmp::Disk).then(|| ScratchOptions {
            dir: settings.data_dir.clone(),
            expected: lacewing_runtime::tmp_of(limits::EPHEMERAL_MB.0),
            most_bytes: settings.tmp_disk.as_bytes(),
        }),
        network: settings.network.options.clone(),
        empty: settings.empty,
    }
}

/// Looks for interpreters.
pub(crate) fn discover(settings: &Settings) -> Result<Runtimes, StartError> {
    Runtimes::discover(&settings.runtimes, std::env::var_os("PATH").as_deref())
        .map_err(|source| StartError::Part { part: "runtimes", source })
}

/// Takes the address, which may need a privilege; clients are not let in yet.
fn bind(address: SocketAddr) -> io::Result<(TcpSocket, u16)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

fn keep(settings: &Settings, port: u16, own: Keep) -> Keep {
    let mut keep = own;
    keep.writable.push(settings.data_dir.clone());
    keep.ports.push(port);
    // The relay of names asks them, by TCP where an answer is long, and looks who they are.
    keep.ports.extend(settings.network.resolver_ports());
    keep.readable.extend(Path::new(NameRelay::RESOLVERS).canonicalize().ok());
    keep
}

/// Asks the kernel for no transparent huge pages in this process, even where the host gives them to
/// all: the heap is a few MB, in areas of each thread's own, and took 20 MB more without being any
/// faster. The launcher is a process of its own by now, so that functions have what the host gives.
fn keep_pages_small() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "This kernel does not know transparent huge pages.");
    }
}

/// Every Instance and connection needs descriptors: takes as many as this user may have.
fn raise_open_files() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "The limit of open files stays as it is.");
    }
}
