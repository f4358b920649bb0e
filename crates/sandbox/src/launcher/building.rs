//! The launcher's share in making one sandbox: cgroup leaves, the clone, the user map.

use std::fs;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::event::epoll;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::init::{self, Plan};
use crate::step::{Failure, Step};
use crate::{Identity, Spec, sys};

use super::{Running, State};

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET;

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
        &self,
        spec: &Spec,
        slot: u32,
        status: &OwnedFd,
        fds: Vec<(OwnedFd, RawFd)>,
    ) -> Result<Running, Failure> {
        let quota = self.quota(spec.limits.cpu_quota);
        let leaf = self.tree.make(&spec.name, &spec.limits, quota).step("make cgroup")?;
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).step("pipe")?;
        match sys::clone_into(NAMESPACES, leaf.into.as_ref().map(AsFd::as_fd)).step("clone")? {
            sys::Forked::Child => {
                // The copy of the launcher's memory is never dropped, so the socket stays open.
                let status = status.try_clone().step("dup").unwrap_or_else(|_| sys::exit_now(1));
                init::run(&Plan {
                    spec,
                    filter: &self.filter,
                    status,
                    go: wait,
                    joins: leaf.joins,
                    gauges: leaf.gauges,
                    fds,
                    own_groups: self.root,
                    landlock: self.landlock,
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
                Ok(Running { name: spec.name.clone(), pid, pidfd, _go: go, slot })
            }
        }
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
