//! The launcher's share in snapshots and origins: a keeper for each, and the sandboxes into which the
//! keeper forks it.
//!
//! A process can only be forked into namespaces below its own, so those of a snapshot lie within its
//! user and its process namespace, and end with it. An origin has none of its own, so any sandbox
//! will do. Everything else about them is made as ever, by an init that has never been near either.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions, kill_process, pidfd_open, waitpid,
};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Above, LeafName};
use crate::snapshot::{self, Charge, Order};
use crate::spec::Kind;
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::wire::{Gauge, Verdict, receive, send};
use crate::{Identity, Limits, Network, Spec, Stance, sys};

use super::AHEAD;
use super::building::{NAMESPACES, Within, write_maps};
use super::empty::Empty;
use super::{Running, State, Wanted, failed, wanted};

const NONE: &str = "there is no such snapshot";

/// The keeper of a snapshot.
#[derive(Debug)]
pub(super) struct Held {
    orders: OwnedFd,
    keeper: Pid,
    /// What such a sandbox is like.
    kind: Kind,
    /// Whether they lie anywhere, and not within its own.
    is_origin: bool,
    /// The mounts of an origin.
    mounts: Option<Rc<OwnedFd>>,
    /// The sandbox for the next restore, made ahead.
    next: Option<Empty>,
}

impl Held {
    /// The init of what was made ahead.
    pub(super) fn ahead(&self) -> Option<Pid> {
        self.next.as_ref().map(|empty| empty.pid)
    }

    /// Ends the keeper, and with it what it still holds; gives back what was made ahead.
    pub(super) fn end(self) -> Option<Empty> {
        // It may have ended with the snapshot.
        kill_process(self.keeper, Signal::KILL).ok();
        waitpid(Some(self.keeper), WaitOptions::empty()).ok();
        self.next
    }
}

/// What the processes in between say.
#[derive(Debug, Deserialize, Serialize)]
enum Word {
    /// The first has made the second, which has this id here.
    Second(i32),
    /// The second has cloned; descriptor: the pidfd.
    Cloned,
    Failed(String),
}

impl State {
    /// Has the program of a sandbox held.
    pub(super) fn hold(&mut self, id: u64, stance: Stance, ports: &[u16], mut fds: Vec<OwnedFd>) {
        // Without it there is nobody to tell; with it the end of the socket tells.
        let Some(answer) = fds.pop() else { return };
        if let Err(Failure(why)) = self.start_keeper(id, stance, ports, &answer) {
            let verdict = Verdict::Unfit { why };
            // The server may have let go of it already.
            send(answer.as_fd(), &verdict, &[], SendFlags::DONTWAIT).ok();
        }
    }

    fn start_keeper(
        &mut self,
        id: u64,
        stance: Stance,
        ports: &[u16],
        answer: &OwnedFd,
    ) -> Result<(), Failure> {
        let is_root = self.root;
        let none = || Failure("there is no sandbox whose program could be held".to_owned());
        let running = self.running.get_mut(&id).ok_or_else(none)?;
        let mut given = running.given.take().ok_or_else(none)?;
        given.ports.retain(|port| ports.contains(port));
        if !is_root {
            return Err(Failure("the server was not started as root".to_owned()));
        }
        let is_origin = running.made.kind.is_origin;
        let frames = running.frames.take();
        let mut mounts = None;
        if is_origin {
            let path = format!("/proc/{}/ns/mnt", running.made.pid.as_raw_nonzero());
            let opened = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            mounts = Some(Rc::new(opened.step("open its mounts")?));
        }
        let (orders, there) = pair()?;
        match sys::fork().step("fork a keeper")? {
            None => {
                let answer = answer.try_clone().step("dup");
                let Ok(answer) = answer else { sys::exit_now(1) };
                snapshot::run(&Charge {
                    init: running.made.pid,
                    orders: there,
                    answer,
                    given,
                    is_origin,
                    stance,
                    frames,
                    tree: &self.tree,
                    leaf: running.made.leaf.name.clone(),
                    limits: running.made.limits,
                    host: self.uids.host(running.made.slot),
                })
            }
            Some(keeper) => {
                let kind = Kind { is_snapshot: false, is_origin: false, ..running.made.kind };
                running.held = Some(Held { orders, keeper, kind, is_origin, mounts, next: None });
                self.want_next(id);
                Ok(())
            }
        }
    }

    /// Builds a sandbox and has a snapshot forked into it.
    pub(super) fn restore(
        &mut self,
        id: u64,
        snapshot: u64,
        spec: Box<Spec>,
        fds: Vec<OwnedFd>,
        numbers: &[RawFd],
    ) {
        let Some(wanted) = wanted(spec, fds, numbers) else { return };
        if let Err(message) = self.build_within(id, snapshot, &wanted) {
            failed(&wanted.status, message);
        }
    }

    fn build_within(&mut self, id: u64, snapshot: u64, wanted: &Wanted) -> Result<(), String> {
        let spec = &wanted.spec;
        self.check_name(spec)?;
        let (kind, mut watch) = (Kind::of(spec), Stopwatch::start());
        let found = self.running.get_mut(&snapshot).and_then(|running| running.held.as_mut());
        let held = found.ok_or_else(|| NONE.to_owned())?;
        held.kind = kind;
        let is_origin = held.is_origin;
        if is_origin {
            self.stock.note(kind, spec.limits);
        } else if held.next.as_ref().is_some_and(|empty| empty.kind != kind) {
            self.discard_next(snapshot);
        }
        let ahead = if is_origin { self.stock.take(kind) } else { self.take_next(snapshot) };
        self.want_next(snapshot);
        if let Some(empty) = ahead
            && self.begin(id, snapshot, wanted, empty, &mut watch)?
        {
            return Ok(());
        }
        let (name, watching) = (spec.name.clone(), Some(watch.clone()));
        let made = match is_origin {
            true => self.make(kind, spec.limits, name, None, watching),
            false => self.make_within(snapshot, kind, spec.limits, name, watching),
        };
        let empty = made.map_err(|Failure(message)| message)?;
        match self.begin(id, snapshot, wanted, empty, &mut watch) {
            Ok(false) => Err("it ended before it was built".to_owned()),
            begun => begun.map(drop),
        }
    }

    /// Tells an empty sandbox whose it is and the keeper what to do; `false` when the sandbox was gone.
    fn begin(
        &mut self,
        id: u64,
        snapshot: u64,
        wanted: &Wanted,
        mut empty: Empty,
        watch: &mut Stopwatch,
    ) -> Result<bool, String> {
        let told = pair().and_then(|(line, there)| {
            let is_there = self.fit(&mut empty, wanted, Some(&there), watch)?;
            if is_there {
                self.order(snapshot, wanted, &empty, &line)?;
            }
            Ok(is_there)
        });
        match told {
            Ok(true) => {
                let (leaf, limits) = (empty.leaf.clone(), &wanted.spec.limits);
                self.run(id, wanted, empty);
                let held = self.running.get(&snapshot).and_then(|running| running.held.as_ref());
                let mounts = held.and_then(|held| held.mounts.clone());
                self.keep_mounts(id, mounts);
                self.weigh(&leaf, limits);
            }
            _ => self.discard(empty),
        }
        told.map_err(|Failure(message)| message)
    }

    /// Notes that a snapshot lacks what is made ahead for it.
    fn want_next(&mut self, id: u64) {
        let held = self.running.get(&id).and_then(|running| running.held.as_ref());
        if held.is_some_and(|held| !held.is_origin) {
            self.short.push(id);
        }
    }

    fn order(
        &self,
        snapshot: u64,
        wanted: &Wanted,
        empty: &Empty,
        line: &OwnedFd,
    ) -> Result<(), Failure> {
        let pidfd = pidfd_open(empty.pid, PidfdFlags::empty()).step("open its init")?;
        let ways = self.tree.ways_into(&empty.leaf).step("open its cgroups")?;
        let order = Order {
            init: empty.pid.as_raw_nonzero().get(),
            is_cloned_into: ways.into.is_some(),
            joins: ways.joins.len(),
            fds: wanted.fds.iter().map(|(_, number)| *number).collect(),
            identity: wanted.spec.identity,
            host: self.uids.host(empty.slot),
        };
        let given = wanted.fds.iter().map(|(fd, _)| fd);
        let rights = [line, &pidfd].into_iter().chain(&ways.into).chain(&ways.joins).chain(given);
        let rights: Vec<BorrowedFd<'_>> = rights.map(AsFd::as_fd).collect();
        let held = self.running.get(&snapshot).and_then(|running| running.held.as_ref());
        let held = held.ok_or_else(|| Failure(NONE.to_owned()))?;
        send(held.orders.as_fd(), &order, &rights, SendFlags::DONTWAIT).step("ask the keeper")
    }

    /// Makes an empty sandbox within that of a snapshot.
    fn make_within(
        &mut self,
        snapshot: u64,
        kind: Kind,
        limits: Limits,
        leaf: String,
        watch: Option<Stopwatch>,
    ) -> Result<Empty, Failure> {
        let found = self.running.get(&snapshot).map(|running| &running.made);
        let found = found.ok_or_else(|| Failure(NONE.to_owned()))?;
        let above = Above { name: found.leaf.name.clone(), user: self.uids.host(found.slot) };
        let within = Within { init: found.pid, above };
        self.make(kind, limits, leaf, Some(within), watch)
    }

    /// Makes the sandbox for the next restore of a snapshot that has none.
    pub(super) fn make_next(&mut self) {
        let Some(snapshot) = self.short.pop() else { return };
        let Some(running) = self.running.get(&snapshot) else { return };
        let limits = running.made.limits;
        let Some(kind) = running.held.as_ref().filter(|it| it.next.is_none()).map(|it| it.kind)
        else {
            return;
        };
        let name = self.stock.name();
        // Who restores the next is told why there is none. On v2 the first may come before the keeper has
        // divided the cgroup, and fails.
        let Ok(empty) = self.make_within(snapshot, kind, limits, name, None) else { return };
        let data = epoll::EventData::new_u64(snapshot | AHEAD);
        let watched = epoll::add(&self.events, &empty.pidfd, data, epoll::EventFlags::IN);
        match self.running.get_mut(&snapshot).and_then(|running| running.held.as_mut()) {
            Some(held) if watched.is_ok() => held.next = Some(empty),
            _ => self.discard(empty),
        }
    }

    /// Takes what was made ahead for a snapshot.
    fn take_next(&mut self, snapshot: u64) -> Option<Empty> {
        let empty = self.running.get_mut(&snapshot)?.held.as_mut()?.next.take()?;
        // It was watched; if it cannot be let go of it is seen once more, as somebody's.
        epoll::delete(&self.events, &empty.pidfd).ok();
        Some(empty)
    }

    /// Ends what was made ahead for some snapshot, if there is any such thing.
    pub(super) fn give_up_next(&mut self) -> Option<()> {
        let has_next =
            |running: &Running| running.held.as_ref().is_some_and(|held| held.next.is_some());
        let found = self.running.iter().find(|(_, running)| has_next(running));
        let snapshot = found.map(|(id, _)| *id)?;
        self.discard_next(snapshot);
        Some(())
    }

    /// Ends what was made ahead for a snapshot.
    pub(super) fn discard_next(&mut self, snapshot: u64) {
        if let Some(empty) = self.take_next(snapshot) {
            self.discard(empty);
        }
    }

    /// Gives a divided leaf what all those within it should have together.
    pub(super) fn weigh(&self, leaf: &LeafName, limits: &Limits) {
        let Some(above) = &leaf.within else { return };
        let is_within = |running: &&Running| {
            running.made.leaf.within.as_ref().is_some_and(|it| it.name == above.name)
        };
        let count = self.running.values().filter(is_within).count();
        // The snapshot may end just now, and then it does not matter.
        self.tree.weigh(&above.name, limits, count).ok();
    }

    /// Clones a process below the user and the process namespace of a sandbox, whose user it is until
    /// it has its own. Two short-lived processes go there: who has entered a user namespace cannot come
    /// back, and a process namespace is below that in which its maker was born. All of them are
    /// children of this process.
    pub(super) fn clone_within(
        &self,
        init: Pid,
        identity: Identity,
        cgroup: Option<&OwnedFd>,
    ) -> Result<sys::Forked, Failure> {
        let cloned = self.send_within(init, identity, cgroup);
        cloned.inspect_err(|_| self.collect_lost())
    }

    fn send_within(
        &self,
        init: Pid,
        identity: Identity,
        cgroup: Option<&OwnedFd>,
    ) -> Result<sys::Forked, Failure> {
        let template = self.template.as_ref();
        let template = template.ok_or_else(|| Failure("there is no template".to_owned()))?;
        let namespace = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", init.as_raw_nonzero());
            open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step_of("open", kind)
        };
        let (user, process) = (namespace("user")?, namespace("pid")?);
        let (here, there) = pair()?;
        template.enter()?;
        // Born in its cgroup: to move there takes until the kernel's next grace period.
        let forked = sys::clone_into(0, cgroup.map(AsFd::as_fd)).step("fork");
        if let Ok(sys::Forked::Child) = forked {
            let gone = go(&user, &process, identity);
            return Ok(in_between(gone, &there));
        }
        template.leave();
        drop(there);
        let sys::Forked::Parent { pid: first, .. } = forked? else {
            return Err(Failure("fork".to_owned()));
        };
        let wait = |pid| waitpid(Some(pid), WaitOptions::empty()).step("wait for the clone");
        wait(first)?;
        // Either may have come first.
        let (mut buffer, mut cloned) = (vec![0; 4096], None);
        for _ in 0..2 {
            match receive(here.as_fd(), &mut buffer, RecvFlags::empty()).step("hear of it")? {
                Some((Word::Second(pid), _)) => {
                    wait(Pid::from_raw(pid).ok_or_else(|| Failure("no process".to_owned()))?)?;
                }
                Some((Word::Cloned, fds)) => cloned = fds.into_iter().next(),
                Some((Word::Failed(why), _)) => return Err(Failure(why)),
                None => break,
            }
        }
        let pidfd = cloned.ok_or_else(|| Failure("the one in between is gone".to_owned()))?;
        Ok(sys::Forked::Parent { pid: pid_of(&pidfd)?, pidfd })
    }

    /// Gives a process that was cloned so its one user and one group. Only who is in the user namespace
    /// above may do that: another short-lived process.
    pub(super) fn map_within(
        &self,
        init: Pid,
        pid: Pid,
        identity: Identity,
        slot: u32,
    ) -> Result<(), Failure> {
        let path = format!("/proc/{}/ns/user", init.as_raw_nonzero());
        let user = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open user")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{}", pid.as_raw_nonzero());
        let process = open(path, flags, Mode::empty()).step("open /proc")?;
        match sys::fork().step("fork")? {
            None => {
                let entered =
                    move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User));
                let mapped = entered
                    .step("enter the user namespace")
                    .and_then(|()| write_maps(&process, identity, self.uids.host(slot), ""));
                sys::exit_now(i32::from(mapped.is_err()))
            }
            Some(mapper) => {
                let ended = waitpid(Some(mapper), WaitOptions::empty()).step("wait for the map")?;
                match ended.and_then(|(_, status)| status.exit_status()) {
                    Some(0) => Ok(()),
                    _ => Err(Failure("the user map could not be written".to_owned())),
                }
            }
        }
    }

    /// Connects the network namespace that a process has made for itself, and opens what counts.
    pub(super) fn plug(
        &mut self,
        pid: Pid,
        wanted: Network,
    ) -> Result<Vec<(Gauge, OwnedFd)>, Failure> {
        let Some(pool) = self.pool.as_mut() else { return Ok(Vec::new()) };
        pool.plug(pid, wanted).step("connect its network")
    }
}

/// Moves this process to where the next one is to be born.
fn go(user: &OwnedFd, process: &OwnedFd, identity: Identity) -> Result<(), Failure> {
    let enter = |fd: &OwnedFd, kind| move_into_link_name_space(fd.as_fd(), Some(kind));
    enter(process, LinkNameSpaceType::ProcessID).step("enter the process namespace")?;
    enter(user, LinkNameSpaceType::User).step("enter the user namespace")?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_res_gid(gid, gid, gid).step("setresgid")?;
    set_thread_res_uid(uid, uid, uid).step("setresuid")
}

/// What the first process in between does, then the second; returns in the third only.
fn in_between(gone: Result<(), Failure>, there: &OwnedFd) -> sys::Forked {
    let brother = |flags| sys::clone_into(flags | libc::CLONE_PARENT, None).step("clone");
    let tell = |word: Word, fds: &[BorrowedFd<'_>]| -> ! {
        // Who asked may be gone.
        send(there.as_fd(), &word, fds, SendFlags::empty()).ok();
        sys::exit_now(0)
    };
    match gone.and_then(|()| brother(0)) {
        Ok(sys::Forked::Parent { pid, .. }) => tell(Word::Second(pid.as_raw_nonzero().get()), &[]),
        Err(Failure(why)) => tell(Word::Failed(why), &[]),
        Ok(sys::Forked::Child) => match brother(NAMESPACES | libc::CLONE_NEWNET) {
            Ok(sys::Forked::Parent { pidfd, .. }) => tell(Word::Cloned, &[pidfd.as_fd()]),
            Err(Failure(why)) => tell(Word::Failed(why), &[]),
            Ok(sys::Forked::Child) => sys::Forked::Child,
        },
    }
}

/// The id, in this process's namespace, of the process that a pidfd is.
fn pid_of(pidfd: &OwnedFd) -> Result<Pid, Failure> {
    let file = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(file).step("read a pidfd")?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:\t")?.parse().ok());
    pid.and_then(Pid::from_raw).ok_or_else(|| Failure("it has ended".to_owned()))
}

fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    socketpair(family, kind, SocketFlags::CLOEXEC, None).step("socketpair")
}
