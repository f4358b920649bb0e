//! The launcher program: one thread that builds and ends sandboxes for the server that started it.
//!
//! It waits for requests on its control socket and for the end of each sandbox's init on a pidfd.
//! It alone holds privilege. When the control socket ends, so do all sandboxes, then their cgroups,
//! then it: nothing stays behind however the server died.
//!
//! It runs no code of a sandbox and reads nothing that comes from inside one.

mod building;
mod empty;
mod host;
mod lost;
mod origins;
mod owner;
mod snapshots;
mod uids;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags, Shutdown, shutdown};
use rustix::process::{Signal, WaitOptions, pidfd_send_signal, waitpid};

use crate::cgroup::LeafName;
use crate::network::Pool;
use crate::root::Template;
use crate::scratch::Scratch;
use crate::seccomp::Program;
use crate::snapshot::Given;
use crate::sources::Sources;
use crate::spec::Role;
use crate::wire::{Greeting, MESSAGE_LIMIT, Request, Status, receive, send};
use crate::{Cpu, CpuQuota, LauncherOptions, Spec, cgroup};

use building::Wanted;
use empty::{Empty, Stock};
use snapshots::Held;
use uids::Uids;

/// Marks the token of what was made ahead for a snapshot, beside the id of that.
const AHEAD: u64 = 1 << 62;
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
        Err(greeting) => Err(greeting),
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

/// How long nobody must have asked before more is made ahead than is needed soon.
const QUIET: Duration = Duration::from_millis(2);
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
    /// What each sandbox begins with; none where it cannot be made.
    template: Option<Template>,
    sources: Sources,
    uids: Uids,
    /// Makes `/tmp` directories on disk, where that is wanted and can be done.
    scratch: Option<Scratch>,
    events: OwnedFd,
    running: HashMap<u64, Running>,
    /// Network namespaces for new sandboxes; none where only the sandbox's own can make them.
    pool: Option<Pool>,
    /// Sandboxes that wait for what is to run in them.
    stock: Stock,
    /// Snapshots that lack a sandbox for their next restore, or did.
    short: Vec<u64>,
    /// Ended sandboxes whose cgroups were still busy.
    leaving: Vec<(LeafName, u32)>,
}

/// A sandbox that is somebody's.
#[derive(Debug)]
struct Running {
    name: String,
    /// Whether it can still be furnished.
    is_blank: bool,
    made: Empty,
    /// What its program has, if that is to be held.
    given: Option<Given>,
    held: Option<Held>,
    /// This end of an origin's socket, for its keeper.
    frames: Option<OwnedFd>,
    /// Of the origin that was forked into it: what it runs lies on these mounts.
    _mounts: Option<Rc<OwnedFd>>,
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
            // A request never waits for more than one thing that is being made ahead.
            let tokens = self.wait(self.leisure())?;
            if tokens.is_empty() {
                self.provide();
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

    /// How long nothing must happen before something is made ahead.
    fn leisure(&self) -> Option<Duration> {
        let namespaces = self.pool.as_ref().is_some_and(Pool::is_short);
        // The last uids are for those that somebody asks for.
        let sandboxes = self.stock.wanted().is_some() && !self.uids.are_used_up();
        let low = (namespaces && self.pool.as_ref().is_some_and(Pool::is_low))
            || (sandboxes && self.stock.is_low());
        let wanted = namespaces || sandboxes || !self.short.is_empty();
        wanted.then_some(if low { Duration::ZERO } else { QUIET })
    }

    /// Makes one of the things that are wanted ahead, or ends one that is not wanted any more.
    fn provide(&mut self) {
        if let Some(surplus) = self.stock.surplus() {
            self.discard(surplus);
        } else if let Some(pool) = self.pool.as_mut().filter(|pool| pool.is_short()) {
            pool.refill();
        } else if self.uids.are_used_up() {
            self.short.clear();
        } else if self.short.is_empty() {
            self.make_ahead();
        } else {
            self.make_next();
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
        if let Request::Spawn { id, .. } | Request::Restore { id, .. } | Request::Origin { id, .. } =
            &request
            && (*id >= AHEAD || self.running.contains_key(id))
        {
            // Whoever asks is not our server; the end of the socket tells.
            return;
        }
        match request {
            Request::Spawn { id, spec, fds: numbers } => self.spawn(id, spec, fds, &numbers),
            Request::Restore { id, snapshot, spec, fds: numbers } => {
                self.restore(id, snapshot, spec, fds, &numbers);
            }
            Request::Origin { id, program, number } => self.make_origin(id, program, number, fds),
            Request::Hold { id, stance, ports } => self.hold(id, stance, &ports, fds),
            Request::Furnish { id, furnishing } => self.furnish(id, &furnishing),
            Request::Kill { id } => self.kill(id),
            Request::Terminate { id } => {
                if let Some(running) = self.running.get(&id) {
                    // It may be ending by itself just now.
                    pidfd_send_signal(&running.made.pidfd, Signal::TERM).ok();
                }
            }
            Request::Quota { id, quota } => {
                if let Some(running) = self.running.get(&id) {
                    // The server sees by the gauges what a program uses; its end is seen as ever.
                    self.tree.set_quota(&running.made.leaf, self.quota(quota)).ok();
                }
            }
            Request::Options(_) => {}
        }
    }

    fn spawn(&mut self, id: u64, spec: Box<Spec>, fds: Vec<OwnedFd>, numbers: &[RawFd]) {
        let Some(wanted) = wanted(spec, fds, numbers) else { return };
        if let Err(message) = self.build(id, &wanted) {
            failed(&wanted.status, message);
        }
    }

    fn kill(&self, id: u64) {
        if let Some(running) = self.running.get(&id) {
            if running.made.kind.is_origin {
                // No process namespace ends with its init, which has to see to that.
                shutdown(&running.made.go, Shutdown::Both).ok();
                return;
            }
            self.tree.thaw(&running.made.leaf);
            // Init's end is the end of all; it may have come already.
            pidfd_send_signal(&running.made.pidfd, Signal::KILL).ok();
            self.tree.thaw(&running.made.leaf);
        }
    }

    /// Collects an ended sandbox: all its processes are gone when its init can be reaped.
    fn ended(&mut self, id: u64) {
        if id & AHEAD != 0 {
            // Until it is collected the sandbox of its snapshot cannot end.
            self.discard_next(id & !AHEAD);
        }
        let Some(running) = self.running.get(&id) else { return };
        if let Ok(None) = waitpid(Some(running.made.pid), WaitOptions::NOHANG) {
            return;
        }
        if let Some(running) = self.running.remove(&id) {
            if let Some(ahead) = running.held.and_then(Held::end) {
                self.discard(ahead);
            }
            let (leaf, limits) = (running.made.leaf.clone(), running.made.limits);
            self.remove(running.made.leaf, running.made.slot);
            self.weigh(&leaf, &limits);
        }
    }

    /// Ends one that is nobody's, and waits for that: nothing runs in it.
    fn discard(&mut self, empty: Empty) {
        // It may be gone already.
        pidfd_send_signal(&empty.pidfd, Signal::KILL).ok();
        waitpid(Some(empty.pid), WaitOptions::empty()).ok();
        self.remove(empty.leaf, empty.slot);
    }

    fn remove(&mut self, name: LeafName, slot: u32) {
        if self.tree.remove(&name) {
            self.uids.release(slot);
        } else {
            self.leaving.push((name, slot));
        }
    }

    /// Ends every sandbox and removes all that was made for them.
    fn end(&mut self) {
        self.tree.give_notice();
        let ids: Vec<u64> = self.running.keys().copied().collect();
        for id in ids {
            self.kill(id);
        }
        while let Some(unused) = self.stock.give_up() {
            self.discard(unused);
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

/// What a request asks for, if it makes sense; otherwise whoever asked has been told.
fn wanted(spec: Box<Spec>, mut fds: Vec<OwnedFd>, numbers: &[RawFd]) -> Option<Wanted> {
    if fds.len() != numbers.len() + 1 {
        // Without its socket there is nobody to tell; with it the end of the socket tells.
        return None;
    }
    let status = fds.remove(0);
    if spec.role == Role::Origin {
        failed(&status, "an origin is made of what the launcher was told at its start".to_owned());
        return None;
    }
    if let Err(message) = spec.check(numbers) {
        failed(&status, message);
        return None;
    }
    let fds = fds.into_iter().zip(numbers.iter().copied()).collect();
    Some(Wanted { spec, status, fds })
}

/// Tells the server why there is no sandbox.
fn failed(status: &OwnedFd, message: String) {
    // The server may have let go of it already.
    send(status.as_fd(), &Status::Failed { message }, &[], SendFlags::DONTWAIT).ok();
}
