//! A running node: its tasks, its end, and what it says of itself.
//!
//! Stopping goes in reverse order of starting, each step bounded: stop accepting, let what is in
//! flight finish, then end the parts below. Whatever remains after the grace period is killed with
//! the launcher, and asynchronous events that were running are delivered again at the next start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lacewing_gateway::Gateway;
use lacewing_invoke::Invoker;
use lacewing_runtime::EndpointListeners;
use lacewing_sandbox::Launcher;
use lacewing_store::Store;
use rustix::process::{Pid, PidfdFlags};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::doctor::{Doctor, Egress};
use crate::prepare::Prepared;
use crate::start::{self, Parts, StartError};
use crate::supervisor::{Fault, Part, Supervisor};

/// How long a part may take to stop once nothing is in flight any more.
const STOP: Duration = Duration::from_secs(5);

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    ready: Ready,
    drain: Duration,
    supervisor: Supervisor,
    store: Store,
    launcher: Launcher,
    invoker: Invoker,
    gateway: Part,
    endpoints: Part,
    names: Option<Part>,
    invoking: Part,
    serving: Part,
    watching: Part,
}

/// What a node says when it answers.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Whether everything that full isolation needs is in force.
    pub isolation_is_full: bool,
    /// Names of what full isolation lacks.
    pub lacks: Vec<String>,
    /// Names of what would add depth to it and is not in force.
    pub without: Vec<String>,
    /// Whether functions get out.
    pub network: Egress,
    /// How many functions there are.
    pub functions: u64,
    /// Runtime identifiers that are offered.
    pub runtimes: Vec<String>,
}

impl Node {
    /// Starts a node that was prepared. It answers when this returns.
    ///
    /// # Errors
    /// If a part cannot be started; nothing is left running then.
    pub async fn start(prepared: Prepared) -> Result<Self, StartError> {
        let parts = start::build(prepared).await?;
        let ready = ready(&parts);
        let Parts {
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
            names,
            ..
        } = parts;
        let supervisor = Supervisor::default();
        let drain = settings.drain;
        let watching = supervisor.start("launcher", |stop| watch_launcher(launcher.clone(), stop));
        let names = names.map(|relay| supervisor.start("names", |stop| relay.serve(stop)));
        let serving = supervisor.start("services", |stop| services.run(stop));
        let invoking = supervisor.start("invoker", |stop| invoker.clone().run(logs, stop));
        let endpoints = supervisor.start("endpoints", |stop| {
            serve_endpoints(endpoints, gateway.clone(), supervisor.clone(), stop)
        });
        let gateway =
            supervisor.start("gateway", |stop| gateway.serve(listener, Some(lanes), stop, drain));
        Ok(Self {
            ready,
            drain,
            supervisor,
            store,
            launcher,
            invoker,
            gateway,
            endpoints,
            names,
            invoking,
            serving,
            watching,
        })
    }

    /// What it says when it answers.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Runs until `stop` is cancelled.
    ///
    /// # Errors
    /// If a part of the node failed before that; the node must be shut down then, too.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), Fault> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            fault = self.supervisor.fault() => Err(fault),
        }
    }

    /// Stops: no new connections, what is in flight gets the grace period, the rest is ended.
    pub async fn shutdown(self) {
        let until = Instant::now() + self.drain;
        let left = || until.saturating_duration_since(Instant::now());
        tracing::info!(grace = ?self.drain, "Stopping.");
        self.gateway.stop(self.drain + STOP).await;
        let unfinished = self.invoker.drain(left()).await;
        if unfinished > 0 {
            tracing::warn!(unfinished, "The grace period is over; invocations are ended.");
        }
        self.invoking.stop(STOP).await;
        self.endpoints.stop(STOP).await;
        self.serving.stop(STOP).await;
        if let Some(names) = self.names {
            names.stop(STOP).await;
        }
        // From here on the launcher's end is wanted.
        self.watching.stop(STOP).await;
        let launcher = self.launcher;
        if tokio::task::spawn_blocking(move || launcher.stop()).await.is_err() {
            tracing::error!("The launcher could not be stopped.");
        }
        if !self.supervisor.finish(STOP).await {
            tracing::warn!("Some tasks did not end in time.");
        }
        drop(self.invoker);
        self.store.close().await;
        tracing::info!("Stopped.");
    }
}

fn ready(parts: &Parts) -> Ready {
    let Parts { settings, doctor, .. } = parts;
    let Doctor { full, lacks, without, runtimes, network, .. } = doctor;
    let account = &settings.services.account;
    Ready {
        address: parts.listener.local_addr().unwrap_or(settings.listen),
        data_dir: settings.data_dir.clone(),
        isolation_is_full: *full,
        lacks: lacks.clone(),
        without: without.clone(),
        network: network.clone(),
        functions: parts.services.functions.account_usage(account).function_count,
        runtimes: runtimes.iter().map(|found| found.runtime.to_string()).collect(),
    }
}

/// Serves the platform's API inside every sandbox that starts.
async fn serve_endpoints(
    mut listeners: EndpointListeners,
    gateway: Gateway,
    supervisor: Supervisor,
    stop: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            next = listeners.next() => next,
            () = stop.cancelled() => return,
        };
        let Some(endpoint) = next else { return };
        let gateway = gateway.clone();
        supervisor
            .run_aside("endpoint", gateway.serve_endpoint(endpoint.listener, endpoint.closed));
    }
}

/// Ends when the launcher does, or when that is expected.
async fn watch_launcher(launcher: Launcher, stop: CancellationToken) {
    match launcher_fd(&launcher) {
        Ok(fd) => tokio::select! {
            _readable = fd.readable() => {
                tracing::error!(pid = launcher.pid(), "The launcher of sandboxes has died.");
            }
            () = stop.cancelled() => {}
        },
        Err(error) => tracing::error!(%error, "Cannot watch the launcher of sandboxes."),
    }
}

#[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that asks for")]
fn launcher_fd(launcher: &Launcher) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let pid = i32::try_from(launcher.pid()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(std::io::ErrorKind::NotFound)?;
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}
