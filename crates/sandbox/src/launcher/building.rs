//! The launcher's share in making one sandbox: cgroup leaves, the clone, the user map.

use std::fs;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::event::epoll;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::cgroup::Tree;
use crate::init::{self, Plan};
use crate::network::Pooled;
use crate::scratch::Scratch;
use crate::sources::Sources;
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::wire::{Word, send};
use crate::{Furnishing, Identity, Mount, Part, Spec, root, sys};

use super::{Running, State, owner};

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

impl State {
    /// Builds a sandbox and notes it as running; from then on it reports by itself.
    pub(super) fn build(
        &mut self,
        id: u64,
        spec: &Spec,
        status: &OwnedFd,
        fds: Vec<(OwnedFd, RawFd)>,
    ) -> Result<(), String> {
        let taken = |name: &String| *name == spec.name;
        if self.running.values().any(|running| taken(&running.name))
            || self.leaving.iter().any(|(name, _)| taken(name))
        {
            return Err(format!("a sandbox named {} exists", spec.name));
        }
        let slot = self.uids.acquire().ok_or("all uids of the range are in use")?;
        match self.clone_init(spec, slot, status, fds) {
            Ok(running) => {
                self.watch(id, &running);
                self.running.insert(id, running);
                Ok(())
            }
            Err(Failure(message)) => {
                self.remove(spec.name.clone(), slot);
                Err(message)
            }
        }
    }

    fn clone_init(
        &mut self,
        spec: &Spec,
        slot: u32,
        status: &OwnedFd,
        fds: Vec<(OwnedFd, RawFd)>,
    ) -> Result<Running, Failure> {
        let mut watch = Stopwatch::start();
        let scratch = self.order_tmp(spec, slot)?;
        watch.lap(Part::Tmp);
        let quota = self.quota(spec.limits.cpu_quota);
        let mut leaf = self.tree.make(&spec.name, &spec.limits, quota).step("make cgroup")?;
        let (wait, go) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("socketpair")?;
        watch.lap(Part::Cgroup);
        let pooled = self.pool.as_mut().map(|pool| pool.take(spec.network));
        let mut pooled = pooled.transpose().step("make a network namespace")?;
        leaf.gauges
            .extend(pooled.as_mut().map_or_else(Vec::new, |it| std::mem::take(&mut it.gauges)));
        watch.lap(Part::Network);
        match self.clone_owned(slot, leaf.into.as_ref(), pooled.as_ref())? {
            sys::Forked::Child => {
                // The copy of the launcher's memory is never dropped, so the socket stays open.
                let status = status.try_clone().step("dup").unwrap_or_else(|_| sys::exit_now(1));
                init::run(Plan {
                    spec,
                    filter: &self.filter,
                    sources: &self.sources,
                    status,
                    go: wait,
                    joins: leaf.joins,
                    gauges: leaf.gauges,
                    fds,
                    scratch: scratch.as_ref(),
                    watch,
                    own_groups: self.root,
                    landlock: self.landlock,
                    network_is_ready: pooled.is_some(),
                })
            }
            sys::Forked::Parent { pid, pidfd } => {
                let mapped = self.map(pid, spec.identity, slot);
                let mapped =
                    mapped.and_then(|()| rustix::io::write(&go, b"1").step("release init"));
                if let Err(failure) = mapped {
                    // Without its byte init ends when the pipe does.
                    drop(go);
                    waitpid(Some(pid), WaitOptions::empty()).step("wait for init")?;
                    return Err(failure);
                }
                Ok(Running {
                    name: spec.name.clone(),
                    pid,
                    pidfd,
                    go,
                    is_blank: spec.is_blank,
                    _scratch: scratch,
                    slot,
                })
            }
        }
    }

    /// Gives a blank sandbox what it lacks; its init mounts it, and tells the server.
    pub(super) fn furnish(&mut self, id: u64, furnishing: &Furnishing) {
        let Some(running) = self.running.get_mut(&id) else { return };
        if !std::mem::take(&mut running.is_blank) {
            return;
        }
        let running = &*running;
        let gathered = gather(&self.tree, &self.sources, &running.name, furnishing);
        let (word, mounts) = match gathered {
            Ok((targets, mounts)) => {
                let shm_bytes = root::shm_bytes(&furnishing.limits);
                (Word::Furnish { targets, shm_bytes }, mounts)
            }
            Err(Failure(message)) => (Word::Failed { message }, Vec::new()),
        };
        let mounts: Vec<_> = mounts.iter().map(AsFd::as_fd).collect();
        // It may be ending by itself just now.
        send(running.go.as_fd(), &word, &mounts, SendFlags::DONTWAIT).ok();
    }

    /// Asks for the private `/tmp` as early as can be: making one takes longer than most parts.
    fn order_tmp(&mut self, spec: &Spec, slot: u32) -> Result<Option<OwnedFd>, Failure> {
        let owner = self.uids.host(slot);
        let order = |scratch: &mut Scratch| scratch.order(spec.tmp, owner);
        self.scratch.as_mut().map(order).transpose().step("order a /tmp")
    }

    /// Clones a process whose user namespace the user of this slot owns, where there is one.
    fn clone_owned(
        &self,
        slot: u32,
        cgroup: Option<&OwnedFd>,
        network: Option<&Pooled>,
    ) -> Result<sys::Forked, Failure> {
        let Some((pool, pooled)) = self.pool.as_ref().zip(network) else {
            return self.clone_for(slot, cgroup, NAMESPACES | libc::CLONE_NEWNET);
        };
        // Before, as inside the new user namespace nobody has a right to it.
        pooled.namespace.enter().step("enter the network namespace")?;
        let forked = self.clone_for(slot, cgroup, NAMESPACES);
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

    fn watch(&self, id: u64, running: &Running) {
        let data = epoll::EventData::new_u64(id);
        // It fails only for want of kernel memory; the sandbox is then collected at the end.
        epoll::add(&self.events, &running.pidfd, data, epoll::EventFlags::IN).ok();
    }
}

/// Opens what a blank sandbox gets, and puts its limits in force.
fn gather(
    tree: &Tree,
    sources: &Sources,
    name: &str,
    furnishing: &Furnishing,
) -> Result<(Vec<PathBuf>, Vec<OwnedFd>), Failure> {
    furnishing.check().map_err(Failure)?;
    let mut gathered = (Vec::new(), Vec::new());
    for mount in &furnishing.mounts {
        if let Mount::Bind { source, target, exec } = mount {
            gathered.0.push(target.clone());
            gathered.1.push(root::bound(sources, source, *exec)?);
        }
    }
    tree.limit(name, &furnishing.limits).step("set limits")?;
    Ok(gathered)
}
