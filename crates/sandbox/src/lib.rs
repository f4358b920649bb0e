//! Linux isolation: a [`Spec`] in, a confined process out.
//!
//! A multi-threaded server must not fork, so it starts one small single-threaded program, the
//! *launcher* ([`launcher_main`]), and asks it over a socket to build sandboxes:
//!
//! ```text
//!  server (threads)         launcher (one thread)           sandbox
//!  Launcher::spawn  --Spec, fds-->  cgroup leaves, clone  -->  init: root, network, uid, filters
//!  Sandbox::try_event  <-------- status socket of this sandbox --'      |- worker: execs argv
//! ```
//!
//! Everything a sandbox holds lives in namespaces of its own and in cgroup leaves that the launcher
//! removes; when the launcher ends, by whatever cause, every sandbox ends with it.
//!
//! Once the launcher runs, the server needs no power of its own any more: [`surrender`].
//!
//! The crate is synchronous, descriptor-based and knows nothing of functions, HTTP or storage. It
//! never mounts anything in the host's mount namespace and never pretends: what this host cannot
//! give is in [`Report`].

#[cfg(not(target_os = "linux"))]
compile_error!("lacewing-sandbox needs Linux");

mod cgroup;
mod check;
mod client;
mod confine;
mod error;
mod freezer;
#[doc(hidden)]
pub mod fuzzing;
mod gauges;
mod init;
mod launcher;
mod network;
mod probe;
mod report;
mod root;
mod sandbox;
mod scope;
mod scratch;
mod seccomp;
#[cfg(target_arch = "x86_64")]
mod snapshot;
#[cfg(not(target_arch = "x86_64"))]
#[path = "snapshot/elsewhere.rs"]
mod snapshot;
mod sources;
mod spec;
mod step;
mod surrender;
mod sys;
mod timing;
mod wire;

pub use client::{Launcher, NameServer};
pub use error::Error;
pub use freezer::Freezer;
pub use launcher::launcher_main;
pub use network::{
    Action, InvalidRule, NAMESERVER, Network, NetworkOptions, Policy, Range, Rule, Traffic,
};
pub use report::{Feature, Report};
pub use sandbox::{Event, Holding, MemoryUse, Sandbox};
pub use spec::{
    Cpu, CpuQuota, Furnishing, Identity, Isolation, LauncherOptions, Limits, Mount, OriginProgram,
    Role, ScratchOptions, Spec, Stance, TmpFs,
};
pub use surrender::{Keep, surrender, surrenderable};
pub use timing::Part;
