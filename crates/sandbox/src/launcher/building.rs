//! The launcher's share in making one sandbox: first empty (cgroup leaves, the clone, the user map),
//! then somebody's.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::cgroup::Tree;
use crate::init::{self, Plan};
use crate::network::Pooled;
use crate::scratch::Scratch;
use crate::sources::Sources;
use crate::spec::Kind;
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::wire::{Word, send};
use crate::{Furnishing, Identity, Limits, Part, Spec, root, sys};

use super::empty::Empty;
use super::{Running, State, owner};

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// What a server asks for: a sandbox, its status socket, and what its program gets.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) spec: Box<Spec>,
    pub(super) status: OwnedFd,
    pub(super) fds: Vec<(OwnedFd, RawFd)>,
}

impl State {
    /// Builds a sandbox and notes it as running; from then on it reports by itself.
    pub(super) fn build(&mut self, id: u64, wanted: &Wanted) -> Result<(), String> {
        let spec = &wanted.spec;
        let taken = |name: &String| *name == spec.name;
        if self.running.values().any(|running| taken(&running.name))
            || self.leaving.iter().any(|(name, _)| taken(name))
        {
            return Err(format!("a sandbox named {} exists", spec.name));
        }
        let (kind, mut watch) = (Kind::of(spec), Stopwatch::start());
        self.stock.note(kind, spec.limits);
        while let Some(empty) = self.stock.take(kind) {
            let fitted = self.fit(&empty, wanted, &mut watch);
            match fitted.map_err(|Failure(message)| message) {
                Ok(true) => {
                    self.run(id, spec, empty);
                    return Ok(());
                }
                // Somebody killed it while it waited.
                Ok(false) => self.discard(empty),
                Err(message) => {
                    self.discard(empty);
                    return Err(message);
                }
            }
        }
        let made = self.make(kind, spec.limits, spec.name.clone(), Some(watch.clone()));
        let empty = made.map_err(|Failure(message)| message)?;
        match self.fit(&empty, wanted, &mut watch) {
            Ok(true) => self.run(id, spec, empty),
            fitted => {
                self.discard(empty);
                fitted.map_err(|Failure(message)| message)?;
                return Err("it ended before it was built".to_owned());
            }
        }
        Ok(())
    }

    fn run(&mut self, id: u64, spec: &Spec, empty: Empty) {
        let data = epoll::EventData::new_u64(id);
        // It fails only for want of kernel memory; the sandbox is then collected at the end.
        epoll::add(&self.events, &empty.pidfd, data, epoll::EventFlags::IN).ok();
        let running = Running { name: spec.name.clone(), is_blank: spec.is_blank, made: empty };
        self.running.insert(id, running);
    }

    /// Makes one ahead, if that is wanted.
    pub(super) fn make_ahead(&mut self) {
        let Some((kind, limits)) = self.stock.wanted() else { return };
        let name = self.stock.name();
        match self.make(kind, limits, name, None) {
            Ok(empty) => self.stock.put(empty),
            // Who asks next is told why.
            Err(_) => self.stock.rest(),
        }
    }

    /// Makes an empty sandbox; `watch` runs if somebody waits for it.
    fn make(
        &mut self,
        kind: Kind,
        limits: Limits,
        leaf: String,
        watch: Option<Stopwatch>,
    ) -> Result<Empty, Failure> {
        let slot = self.slot()?;
        let made = self.clone_init(kind, limits, &leaf, slot, watch);
        made.inspect_err(|_| self.remove(leaf, slot))
    }

    fn slot(&mut self) -> Result<u32, Failure> {
        let slot = self.uids.acquire();
        let slot = slot.or_else(|| {
            let unused = self.stock.give_up()?;
            self.discard(unused);
            self.uids.acquire()
        });
        slot.ok_or_else(|| Failure("all uids of the range are in use".to_owned()))
    }

    fn clone_init(
        &mut self,
        kind: Kind,
        limits: Limits,
        leaf: &str,
        slot: u32,
        mut watch: Option<Stopwatch>,
    ) -> Result<Empty, Failure> {
        let mut lap = |part| watch.as_mut().map_or((), |watch| watch.lap(part));
        let scratch = self.order_tmp(kind, slot)?;
        lap(Part::Tmp);
        let made = self.tree.make(leaf, &limits).step("make cgroup")?;
        let (wait, go) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("socketpair")?;
        lap(Part::Cgroup);
        let pooled = self.pool.as_mut().map(|pool| pool.take(kind.network));
        let mut pooled = pooled.transpose().step("make a network namespace")?;
        let mut gauges = made.gauges;
        gauges.extend(pooled.as_mut().map_or_else(Vec::new, |it| std::mem::take(&mut it.gauges)));
        lap(Part::Network);
        match self.clone_owned(slot, made.into.as_ref(), pooled.as_ref())? {
            sys::Forked::Child => init::run(Plan {
                kind,
                limits,
                filter: &self.filter,
                go: wait,
                joins: made.joins,
                weight: made.weight,
                gauges,
                scratch: scratch.as_ref(),
                watch,
                own_groups: self.root,
                landlock: self.landlock,
                network_is_ready: pooled.is_some(),
            }),
            sys::Forked::Parent { pid, pidfd } => {
                let mapped = self.map(pid, kind.identity, slot);
                let mapped =
                    mapped.and_then(|()| rustix::io::write(&go, b"1").step("release init"));
                if let Err(failure) = mapped {
                    // Without its byte init ends when the socket does.
                    drop(go);
                    waitpid(Some(pid), WaitOptions::empty()).step("wait for init")?;
                    return Err(failure);
                }
                let leaf = leaf.to_owned();
                Ok(Empty { kind, limits, leaf, pid, pidfd, go, _scratch: scratch, slot })
            }
        }
    }

    /// Tells an empty sandbox whose it is; `false` when it is gone.
    fn fit(&self, empty: &Empty, wanted: &Wanted, watch: &mut Stopwatch) -> Result<bool, Failure> {
        let Wanted { spec, status, fds } = wanted;
        let bounds = root::bounds(&self.sources, &spec.mounts)?;
        watch.lap(Part::Mounts);
        self.tree.limit(&empty.leaf, &empty.limits, &spec.limits).step("set limits")?;
        if let Some(quota) = self.quota(spec.limits.cpu_quota) {
            self.tree.set_quota(&empty.leaf, Some(quota)).step("set the quota")?;
        }
        watch.lap(Part::Cgroup);
        let numbers = fds.iter().map(|(_, number)| *number).collect();
        let word = Word::Fit { spec: spec.clone(), fds: numbers, watch: watch.clone() };
        let rights = fds.iter().map(|(fd, _)| fd).chain(&bounds).map(AsFd::as_fd);
        let rights: Vec<BorrowedFd<'_>> = [status.as_fd()].into_iter().chain(rights).collect();
        match send(empty.go.as_fd(), &word, &rights, SendFlags::DONTWAIT) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            sent => sent.step("hand over").map(|()| true),
        }
    }

    /// Gives a blank sandbox what it lacks; its init mounts it, and tells the server.
    pub(super) fn furnish(&mut self, id: u64, furnishing: &Furnishing) {
        let Some(running) = self.running.get_mut(&id) else { return };
        if !std::mem::take(&mut running.is_blank) {
            return;
        }
        let running = &*running;
        let gathered = gather(&self.tree, &self.sources, &running.made, furnishing);
        let (word, mounts) = match gathered {
            Ok(bounds) => {
                let mounts = furnishing.mounts.clone();
                let shm_bytes = root::shm_bytes(&furnishing.limits);
                (Word::Furnish { mounts, shm_bytes }, bounds)
            }
            Err(Failure(message)) => (Word::Failed { message }, Vec::new()),
        };
        let mounts: Vec<_> = mounts.iter().map(AsFd::as_fd).collect();
        // It may be ending by itself just now.
        send(running.made.go.as_fd(), &word, &mounts, SendFlags::DONTWAIT).ok();
    }

    /// Asks for the private `/tmp` as early as can be: making one takes longer than most parts.
    fn order_tmp(&mut self, kind: Kind, slot: u32) -> Result<Option<OwnedFd>, Failure> {
        let owner = self.uids.host(slot);
        let order = |scratch: &mut Scratch| scratch.order(kind.tmp, owner);
        self.scratch.as_mut().map(order).transpose().step("order a /tmp")
    }

    /// Clones a process whose user namespace the user of this slot owns, where there is one.
    fn clone_owned(
        &self,
        slot: u32,
        cgroup: Option<&OwnedFd>,
        network: Option<&Pooled>,
    ) -> Result<sys::Forked, Failure> {
        let template = self.template.as_ref();
        let template = template.ok_or_else(|| Failure("there is no template".to_owned()))?;
        let clone = |namespaces| {
            template.enter()?;
            let forked = self.clone_for(slot, cgroup, namespaces);
            if !matches!(forked, Ok(sys::Forked::Child)) {
                template.leave();
            }
            forked
        };
        let Some((pool, pooled)) = self.pool.as_ref().zip(network) else {
            return clone(NAMESPACES | libc::CLONE_NEWNET);
        };
        // Before, as inside the new user namespace nobody has a right to it.
        pooled.namespace.enter().step("enter the network namespace")?;
        let forked = clone(NAMESPACES);
        if !matches!(forked, Ok(sys::Forked::Child)) {
            pool.home().enter().step("leave the network namespace")?;
        }
        forked
    }

    fn clone_for(
        &self,
        slot: u32,
        cgroup: Option<&OwnedFd>,
        namespaces: i32,
    ) -> Result<sys::Forked, Failure> {
        if self.root {
            owner::take(self.uids.host(slot)).inspect_err(|_| owner::give_back())?;
        }
        let cloned = sys::clone_into(namespaces, cgroup.map(AsFd::as_fd));
        if self.root && !matches!(cloned, Ok(sys::Forked::Child)) {
            owner::give_back();
        }
        cloned.step("clone")
    }

    /// Gives the sandbox its one user and one group.
    fn map(&self, pid: Pid, inside: Identity, slot: u32) -> Result<(), Failure> {
        // Unprivileged this launcher is 0 in its own user namespace, and has nothing else to give.
        let host = if self.root { self.uids.host(slot) } else { 0 };
        let pid = pid.as_raw_nonzero();
        let write = |file: &str, id: u32| {
            fs::write(format!("/proc/{pid}/{file}"), format!("{id} {host} 1\n"))
                .step_of("write", file)
        };
        write("uid_map", inside.uid)?;
        write("gid_map", inside.gid)
    }
}

/// Opens what a blank sandbox gets, and puts its limits in force.
fn gather(
    tree: &Tree,
    sources: &Sources,
    made: &Empty,
    furnishing: &Furnishing,
) -> Result<Vec<OwnedFd>, Failure> {
    furnishing.check().map_err(Failure)?;
    let bounds = root::bounds(sources, &furnishing.mounts)?;
    tree.limit(&made.leaf, &made.limits, &furnishing.limits).step("set limits")?;
    tree.set_weight(&made.leaf, &furnishing.limits).step("set the weight")?;
    Ok(bounds)
}
