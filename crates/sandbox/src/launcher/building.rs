//! The launcher's share in making one sandbox: first empty (cgroup leaves, the clone, the user map),
//! then somebody's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::cgroup::{Above, LeafName, Tree};
use crate::init::{self, Plan};
use crate::network::Pooled;
use crate::scratch::Scratch;
use crate::snapshot::Given;
use crate::sources::Sources;
use crate::spec::{Kind, Role};
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::wire::{Word, send};
use crate::{Furnishing, Identity, Limits, Part, Spec, root, sys};

use super::empty::Empty;
use super::{Running, State, owner};

pub(super) const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// What an origin has for itself.
const OWN_NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;

/// The sandbox of a snapshot, in whose namespaces another is made.
#[derive(Debug)]
pub(super) struct Within {
    pub(super) init: Pid,
    pub(super) above: Above,
}

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
        self.check_name(spec)?;
        let (kind, mut watch) = (Kind::of(spec), Stopwatch::start());
        if !kind.is_snapshot && !kind.is_origin {
            // One of these is seldom wanted a second time.
            self.stock.note(kind, spec.limits);
        }
        while let Some(mut empty) = self.stock.take(kind) {
            let fitted = self.fit(&mut empty, wanted, None, &mut watch);
            match fitted.map_err(|Failure(message)| message) {
                Ok(true) => {
                    self.run(id, wanted, empty);
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
        let made = self.make(kind, spec.limits, spec.name.clone(), None, Some(watch.clone()));
        let mut empty = made.map_err(|Failure(message)| message)?;
        match self.fit(&mut empty, wanted, None, &mut watch) {
            Ok(true) => self.run(id, wanted, empty),
            fitted => {
                self.discard(empty);
                fitted.map_err(|Failure(message)| message)?;
                return Err("it ended before it was built".to_owned());
            }
        }
        Ok(())
    }

    /// No two sandboxes may have one name.
    pub(super) fn check_name(&self, spec: &Spec) -> Result<(), String> {
        let taken = |name: &String| *name == spec.name;
        if self.running.values().any(|running| taken(&running.name))
            || self.leaving.iter().any(|(leaf, _)| taken(&leaf.name))
        {
            return Err(format!("a sandbox named {} exists", spec.name));
        }
        Ok(())
    }

    pub(super) fn run(&mut self, id: u64, wanted: &Wanted, empty: Empty) {
        let spec = &wanted.spec;
        let data = epoll::EventData::new_u64(id);
        // It fails only for want of kernel memory; the sandbox is then collected at the end.
        epoll::add(&self.events, &empty.pidfd, data, epoll::EventFlags::IN).ok();
        let given = || Given {
            fds: wanted.fds.iter().map(|(_, number)| *number).collect(),
            files: wanted.fds.iter().map(|(fd, _)| file_of(fd)).collect(),
            ports: spec.listeners.clone(),
        };
        let running = Running {
            name: spec.name.clone(),
            is_blank: spec.role == Role::Blank,
            made: empty,
            given: matches!(spec.role, Role::Snapshot | Role::Origin).then(given),
            held: None,
            frames: None,
            _mounts: None,
        };
        self.running.insert(id, running);
    }

    /// Makes one ahead, if that is wanted.
    pub(super) fn make_ahead(&mut self) {
        let Some((kind, limits)) = self.stock.wanted() else { return };
        let name = self.stock.name();
        match self.make(kind, limits, name, None, None) {
            Ok(empty) => self.stock.put(empty),
            // Who asks next is told why.
            Err(_) => self.stock.rest(),
        }
    }

    /// Makes an empty sandbox, `within` that of a snapshot;
    /// `watch` runs if somebody waits for it.
    pub(super) fn make(
        &mut self,
        kind: Kind,
        limits: Limits,
        leaf: String,
        within: Option<Within>,
        watch: Option<Stopwatch>,
    ) -> Result<Empty, Failure> {
        let slot = self.slot()?;
        let (within, above) = within.map(|it| (it.init, it.above)).unzip();
        let leaf = LeafName { name: leaf, within: above };
        let made = self.clone_init(kind, limits, &leaf, slot, within, watch);
        made.inspect_err(|_| self.remove(leaf, slot))
    }

    fn slot(&mut self) -> Result<u32, Failure> {
        let slot = self.uids.acquire();
        let slot = slot.or_else(|| {
            match self.stock.give_up() {
                Some(unused) => self.discard(unused),
                None => self.give_up_next()?,
            }
            self.uids.acquire()
        });
        slot.ok_or_else(|| Failure("all uids of the range are in use".to_owned()))
    }

    fn clone_init(
        &mut self,
        kind: Kind,
        limits: Limits,
        leaf: &LeafName,
        slot: u32,
        within: Option<Pid>,
        mut watch: Option<Stopwatch>,
    ) -> Result<Empty, Failure> {
        let mut lap = |part| watch.as_mut().map_or((), |watch| watch.lap(part));
        let scratch = if kind.is_origin { None } else { self.order_tmp(kind, slot)? };
        lap(Part::Tmp);
        let made = self.tree.make(leaf, &limits).step("make cgroup")?;
        let (wait, go) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("socketpair")?;
        lap(Part::Cgroup);
        let pool = self.pool.as_mut().filter(|_| within.is_none() && !kind.is_origin);
        let pooled = pool.map(|pool| pool.take(kind.network));
        let mut pooled = pooled.transpose().step("make a network namespace")?;
        let mut gauges = made.gauges;
        gauges.extend(pooled.as_mut().map_or_else(Vec::new, |it| std::mem::take(&mut it.gauges)));
        lap(Part::Network);
        let cloned = match within {
            Some(within) => self.clone_within(within, kind.identity, made.into.as_ref()),
            None if kind.is_origin => self.clone_origin(made.into.as_ref()),
            None => self.clone_owned(slot, made.into.as_ref(), pooled.as_ref()),
        };
        match cloned? {
            sys::Forked::Child => init::run(Plan {
                kind,
                host: self.uids.host(slot),
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
                let mapped = match within {
                    Some(within) => self.map_within(within, pid, kind.identity, slot),
                    None if kind.is_origin => Ok(()),
                    None => self.map(pid, kind, slot),
                };
                let begun = mapped.and_then(|()| {
                    let gauges = within.map(|_| self.plug(pid, kind.network));
                    let (gauges, fds): (Vec<_>, Vec<_>) =
                        gauges.transpose()?.unwrap_or_default().into_iter().unzip();
                    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    let word = Word::Begin { gauges };
                    send(go.as_fd(), &word, &fds, SendFlags::DONTWAIT).step("release init")
                });
                if let Err(failure) = begun {
                    // Without its word init ends when the socket does.
                    drop(go);
                    waitpid(Some(pid), WaitOptions::empty()).step("wait for init")?;
                    return Err(failure);
                }
                let leaf = leaf.clone();
                Ok(Empty { kind, limits, leaf, pid, pidfd, go, _scratch: scratch, slot })
            }
        }
    }

    /// Tells an empty sandbox whose it is; `false` when it is gone. With a line its program comes from
    /// a snapshot, and so does what that gets.
    pub(super) fn fit(
        &self,
        empty: &mut Empty,
        wanted: &Wanted,
        line: Option<&OwnedFd>,
        watch: &mut Stopwatch,
    ) -> Result<bool, Failure> {
        let Wanted { spec, status, fds } = wanted;
        let fds = if line.is_some() { &[] } else { fds.as_slice() };
        let bounds = root::bounds(&self.sources, &spec.mounts)?;
        watch.lap(Part::Mounts);
        self.tree.limit(&empty.leaf, &empty.limits, &spec.limits).step("set limits")?;
        empty.limits = spec.limits;
        if let Some(quota) = self.quota(spec.limits.cpu_quota) {
            self.tree.set_quota(&empty.leaf, Some(quota)).step("set the quota")?;
        }
        watch.lap(Part::Cgroup);
        let numbers = fds.iter().map(|(_, number)| *number).collect();
        let word = Word::Fit {
            spec: spec.clone(),
            is_restored: line.is_some(),
            fds: numbers,
            watch: watch.clone(),
        };
        let rights = [status].into_iter().chain(line).chain(fds.iter().map(|(fd, _)| fd));
        let rights: Vec<BorrowedFd<'_>> = rights.chain(&bounds).map(AsFd::as_fd).collect();
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

    /// Clones a process that stays in this user and this process namespace.
    fn clone_origin(&self, cgroup: Option<&OwnedFd>) -> Result<sys::Forked, Failure> {
        if !self.root {
            return Err(Failure("the server was not started as root".to_owned()));
        }
        let template = self.template.as_ref();
        let template = template.ok_or_else(|| Failure("there is no template".to_owned()))?;
        template.enter()?;
        let cloned = sys::clone_into(OWN_NAMESPACES, cgroup.map(AsFd::as_fd));
        if !matches!(cloned, Ok(sys::Forked::Child)) {
            template.leave();
        }
        cloned.step("clone")
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

    /// Gives the sandbox its one user and one group. The users of sandboxes within that of a snapshot
    /// must exist in it, too, where nobody can become one of them.
    fn map(&self, pid: Pid, kind: Kind, slot: u32) -> Result<(), Failure> {
        // Unprivileged this launcher is 0 in its own user namespace, and has nothing else to give.
        let host = if self.root { self.uids.host(slot) } else { 0 };
        let pid = pid.as_raw_nonzero();
        let mut others = String::new();
        if kind.is_snapshot && self.root {
            for range in self.uids.but(slot).into_iter().filter(|range| !range.is_empty()) {
                others.push_str(&format!("{0} {0} {1}\n", range.start, range.len()));
            }
        }
        let process = open(format!("/proc/{pid}"), DIRECTORY, Mode::empty()).step("open /proc")?;
        write_maps(&process, kind.identity, host, &others)
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Device and inode of what a descriptor leads to; of what cannot be looked at, those of nothing.
fn file_of(fd: &OwnedFd) -> (u64, u64) {
    rustix::fs::fstat(fd).map_or((0, 0), |found| (found.st_dev, found.st_ino))
}

/// Writes the user map and the group map of a process, of which the directory in `/proc` is given.
pub(super) fn write_maps(
    process: &OwnedFd,
    inside: Identity,
    host: u32,
    others: &str,
) -> Result<(), Failure> {
    let write = |name: &str, id: u32| {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        openat(process, name, flags, Mode::empty())
            .and_then(|file| rustix::io::write(file, format!("{id} {host} 1\n{others}").as_bytes()))
            .step_of("write", name)
    };
    write("uid_map", inside.uid)?;
    write("gid_map", inside.gid).map(drop)
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
