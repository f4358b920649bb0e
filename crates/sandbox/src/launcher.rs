//! The launcher program: one thread that builds and ends sandboxes for the server that started it.
//!
//! It waits for requests on its control socket and for the end of each sandbox's init on a pidfd.
//! It alone holds privilege. When the control socket ends, so do all sandboxes, then their cgroups,
//! then it: nothing stays behind however the server died.
//!
//! It runs no code of a sandbox and reads nothing that comes from inside one.

mod building;
mod host;
mod owner;
mod uids;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};

use crate::network::Pool;
use crate::scratch::Scratch;
use crate::seccomp::Program;
use crate::sources::Sources;
use crate::wire::{Greeting, MESSAGE_LIMIT, Request, Status, receive, send};
use crate::{Cpu, CpuQuota, LauncherOptions, Spec, cgroup};

use uids::Uids;

/// The token of the control socket; sandboxes have their own ids, which the server counts from 0.
const CONTROL: u64 = u64::MAX;
/// The token of what tells that the host's addresses have changed.
const HOST: u64 = u64::MAX - 1;

/// Runs the launcher program until the server that started it is gone.
///
/// Call it before any thread, runtime or logger exists; the control socket is standard input.
pub fn launcher_main() -> ExitCode {
    // Started by hand: there is nobody to tell why.
    let Ok((control, options)) = host::control() else { return ExitCode::FAILURE };
    let greeting = match host::open(options) {
        Ok((state, report, names)) => Ok((state, Greeting::Serving(report), names)),
        Err(reason) => Err(Greeting::Refused(reason)),
    };
    match greeting {
        Ok((mut state, greeting, names)) => {
            let names: Vec<OwnedFd> = names.map_or_else(Vec::new, |it| vec![it.udp, it.tcp]);
            let fds: Vec<_> = names.iter().map(AsFd::as_fd).collect();
            let greeted = send(control.as_fd(), &greeting, &fds, SendFlags::empty());
            drop(names);
            let served = greeted.and_then(|()| state.serve(&control));
            state.end();
            if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(greeting) => {
            // If the server is gone too there is nobody to tell.
            send(control.as_fd(), &greeting, &[], SendFlags::empty()).ok();
            ExitCode::FAILURE
        }
    }
}

/// How long a cgroup that was busy is left alone.
const BUSY: Duration = Duration::from_millis(5);

/// Everything the launcher knows.
#[derive(Debug)]
struct State {
    options: LauncherOptions,
    root: bool,
    landlock: bool,
    tree: cgroup::Tree,
    filter: Program,
    sources: Sources,
    uids: Uids,
    /// Makes `/tmp` directories on disk, where that is wanted and can be done.
    scratch: Option<Scratch>,
    events: OwnedFd,
    running: HashMap<u64, Running>,
    /// Network namespaces for new sandboxes; none where only the sandbox's own can make them.
    pool: Option<Pool>,
    /// Ended sandboxes whose cgroups were still busy.
    leaving: Vec<(String, u32)>,
}

/// A living sandbox.
#[derive(Debug)]
struct Running {
    name: String,
    pid: Pid,
    pidfd: OwnedFd,
    /// Its other end tells init that this process lives.
    go: OwnedFd,
    /// Whether it can still be furnished.
    is_blank: bool,
    /// Its other end keeps the private `/tmp`.
    _scratch: Option<OwnedFd>,
    slot: u32,
}

impl State {
    fn serve(&mut self, control: &OwnedFd) -> io::Result<()> {
        epoll::add(
            &self.events,
            control,
            epoll::EventData::new_u64(CONTROL),
            epoll::EventFlags::IN,
        )?;
        if let Some(watched) = self.pool.as_ref().and_then(Pool::watched) {
            let data = epoll::EventData::new_u64(HOST);
            epoll::add(&self.events, watched, data, epoll::EventFlags::IN)?;
        }
        let mut buffer = vec![0; MESSAGE_LIMIT];
        loop {
            // A request never waits for more than one namespace that is being made ahead.
            let idle = self.pool.as_ref().is_some_and(Pool::is_short).then_some(Duration::ZERO);
            let tokens = self.wait(idle)?;
            if tokens.is_empty()
                && let Some(pool) = &mut self.pool
            {
                pool.refill();
            }
            for token in tokens {
                if token == HOST {
                    if let Some(pool) = &mut self.pool {
                        pool.host_changed();
                    }
                    continue;
                }
                if token != CONTROL {
                    self.ended(token);
                    continue;
                }
                match receive(control.as_fd(), &mut buffer, RecvFlags::DONTWAIT) {
                    Ok(Some((request, fds))) => self.handle(request, fds),
                    Ok(None) => {
                        // Ended it would wake us at once, each time that we wait for a sandbox.
                        return epoll::delete(&self.events, control).map_err(Into::into);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Waits for events; while cgroups are busy it looks after them in between.
    fn wait(&mut self, most: Option<Duration>) -> io::Result<Vec<u64>> {
        let most = if self.leaving.is_empty() { most } else { most.or(Some(BUSY)) };
        let most = most.and_then(|it| Timespec::try_from(it).ok());
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let tokens = match epoll::wait(&self.events, &mut events, most.as_ref()) {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            Err(rustix::io::Errno::INTR) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let leaving = std::mem::take(&mut self.leaving);
        for (name, slot) in leaving {
            self.remove(name, slot);
        }
        Ok(tokens)
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Spawn { id, spec, fds: numbers } => self.spawn(id, &spec, fds, &numbers),
            Request::Furnish { id, furnishing } => self.furnish(id, &furnishing),
            Request::Kill { id } => self.kill(id),
            Request::Terminate { id } => {
                if let Some(running) = self.running.get(&id) {
                    // It may be ending by itself just now.
                    pidfd_send_signal(&running.pidfd, Signal::TERM).ok();
                }
            }
            Request::Quota { id, quota } => {
                if let Some(running) = self.running.get(&id) {
                    // The server sees by the gauges what a program uses; its end is seen as ever.
                    self.tree.set_quota(&running.name, self.quota(quota)).ok();
                }
            }
            Request::Options(_) => {}
        }
    }

    fn spawn(&mut self, id: u64, spec: &Spec, mut fds: Vec<OwnedFd>, numbers: &[RawFd]) {
        if fds.len() != numbers.len() + 1 {
            // Without its socket there is nobody to tell; with it the end of the socket tells.
            return;
        }
        let status = fds.remove(0);
        if let Err(message) = spec.check(numbers) {
            send(status.as_fd(), &Status::Failed { message }, &[], SendFlags::DONTWAIT).ok();
            return;
        }
        let fds = fds.into_iter().zip(numbers.iter().copied()).collect();
        if let Err(message) = self.build(id, spec, &status, fds) {
            // The server may have let go of it already.
            send(status.as_fd(), &Status::Failed { message }, &[], SendFlags::DONTWAIT).ok();
        }
    }

    fn kill(&self, id: u64) {
        if let Some(running) = self.running.get(&id) {
            self.tree.thaw(&running.name);
            // Init's end is the end of all; it may have come already.
            pidfd_send_signal(&running.pidfd, Signal::KILL).ok();
            self.tree.thaw(&running.name);
        }
    }

    /// Collects an ended sandbox: all its processes are gone when its init can be reaped.
    fn ended(&mut self, id: u64) {
        let Some(running) = self.running.get(&id) else { return };
        if let Ok(None) = waitpid(Some(running.pid), WaitOptions::NOHANG) {
            return;
        }
        if let Some(running) = self.running.remove(&id) {
            self.remove(running.name, running.slot);
        }
    }

    fn remove(&mut self, name: String, slot: u32) {
        if self.tree.remove(&name) {
            self.uids.release(slot);
        } else {
            self.leaving.push((name, slot));
        }
    }

    /// Ends every sandbox and removes all that was made for them.
    fn end(&mut self) {
        let ids: Vec<u64> = self.running.keys().copied().collect();
        for id in ids {
            self.kill(id);
        }
        for _ in 0..1000 {
            if self.running.is_empty() {
                break;
            }
            let Ok(tokens) = self.wait(Some(Duration::from_millis(5))) else { break };
            for token in tokens {
                self.ended(token);
            }
        }
        if let Some(scratch) = self.scratch.take() {
            scratch.end();
        }
        if let Some(pool) = &mut self.pool {
            pool.close();
        }
        self.tree.sweep();
        self.tree.dismantle();
    }

    fn quota(&self, wanted: Option<CpuQuota>) -> Option<CpuQuota> {
        wanted.filter(|_| self.options.cpu == Cpu::Hard)
    }
}
