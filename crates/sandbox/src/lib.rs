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
//! The crate is synchronous, descriptor-based and knows nothing of functions, HTTP or storage. It
//! never mounts anything in the host's mount namespace and never pretends: what this host cannot
//! give is in [`Report`].

#[cfg(not(target_os = "linux"))]
compile_error!("lacewing-sandbox needs Linux");

mod cgroup;
mod client;
mod confine;
mod error;
mod gauges;
mod init;
mod launcher;
mod probe;
mod report;
mod root;
mod sandbox;
mod seccomp;
mod spec;
mod step;
mod sys;
mod wire;

pub use client::Launcher;
pub use error::Error;
pub use launcher::launcher_main;
pub use report::{Feature, Report};
pub use sandbox::{Event, MemoryUse, Sandbox};
pub use spec::{Cpu, CpuQuota, Identity, Isolation, LauncherOptions, Limits, Mount, Spec, TmpFs};
