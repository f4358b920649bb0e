//! The first process of a sandbox: it builds everything from within, then watches over the program.
//!
//! ```text
//! clone -> join cgroups -> root -> user ... whose it is -> its mounts, filters -> Ready -> fork: worker execs argv
//!                                                                                     '--> reap, forward, report, end
//! ```
//!
//! Up to the dots nothing depends on what will run: a sandbox may be made ahead and wait there,
//! empty. In a blank sandbox filters come after the fork, twice: the worker puts them on before its
//! program runs, and init when it has mounted what the sandbox is furnished with. Init keeps the one
//! capability that mounting takes until it puts on the filters.
//!
//! It runs in a copy of the launcher's memory, which it never drops: it ends by `exit_now` only.
//! When it ends the kernel kills the rest of the sandbox; it ends when the program does, when the
//! server lets go of the status socket, or when the launcher is gone. It is not dumpable, so code of
//! the same user inside cannot look into it.

mod origin;
pub(crate) mod worker;

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, listen, socket_with,
    sockopt,
};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::cgroup::Weight;
use crate::confine::Reach;
use crate::seccomp::Program;
use crate::spec::{Kind, Role};
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::wire::{Ended, Gauge, Line, MESSAGE_LIMIT, Status, Word, receive, send};
use crate::{Limits, Mount, Part, Spec, confine, gauges, root, scratch, sys};

const CLOEXEC: SocketFlags = SocketFlags::CLOEXEC;

/// What the launcher hands to a new sandbox.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) kind: Kind,
    /// Its user, as the host knows it.
    pub(crate) host: u32,
    /// Limits that the cgroup has, and `/dev/shm` gets, until more is known.
    pub(crate) limits: Limits,
    pub(crate) filter: &'a Program,
    /// Gives each [`Word`]; ends with the launcher.
    pub(crate) go: OwnedFd,
    pub(crate) joins: Vec<OwnedFd>,
    pub(crate) weight: Option<Weight>,
    pub(crate) gauges: Vec<(Gauge, OwnedFd)>,
    /// Where the private `/tmp` comes out; it is in memory when absent.
    pub(crate) scratch: Option<&'a OwnedFd>,
    /// Has run since the launcher began, if somebody waits for this sandbox.
    pub(crate) watch: Option<Stopwatch>,
    /// Whether supplementary groups can be dropped: only where the launcher is root.
    pub(crate) own_groups: bool,
    pub(crate) landlock: bool,
    /// Whether the network namespace was made ahead, with all that belongs in it.
    pub(crate) network_is_ready: bool,
}

/// Whose it is and what shall run in it.
#[derive(Debug)]
struct Task {
    spec: Spec,
    /// The sandbox's end of its status socket.
    status: OwnedFd,
    /// What the program gets, and under which numbers.
    fds: Vec<(OwnedFd, RawFd)>,
    /// One for each [`Mount::Bind`] of the spec.
    bounds: Vec<OwnedFd>,
    /// The line to the keeper of the snapshot from which the program comes.
    line: Option<OwnedFd>,
    watch: Stopwatch,
}

/// Builds the sandbox around this process, runs the program and reports its end.
pub(crate) fn run(mut plan: Plan<'_>) -> ! {
    let stood = stand(&mut plan);
    // Whoever wants it hears of a failure, too.
    let Ok(Some(mut task)) = Task::receive(&mut plan) else { sys::exit_now(0) };
    let fitted = stood.and_then(|()| fit(&plan, &mut task));
    let served = fitted.and_then(|signals| serve(&plan, &mut task, signals.as_fd()));
    let ended = match served {
        Ok(Some(how)) => Status::Ended {
            how,
            memory: gauges::memory(&plan.gauges).ok(),
            traffic: gauges::traffic(&plan.gauges).ok(),
        },
        Ok(None) => sys::exit_now(0),
        Err(Failure(message)) => Status::Failed { message },
    };
    // Nobody to tell when this fails: the end of the socket tells enough.
    send(task.status.as_fd(), &ended, &[], SendFlags::DONTWAIT).ok();
    if task.spec.role == Role::Snapshot {
        // Sandboxes within this one need it until the server has let go of it.
        rustix::io::read(&task.status, &mut [0; 1]).ok();
    }
    sys::exit_now(0)
}

/// Does everything that does not depend on who will get this sandbox.
fn stand(plan: &mut Plan<'_>) -> Result<(), Failure> {
    let mut ahead = Stopwatch::start();
    let watch = plan.watch.as_mut().unwrap_or(&mut ahead);
    watch.lap(Part::Namespaces);
    // First of all: a process that joins by itself, without threads, does not wait for the kernel.
    for join in plan.joins.drain(..) {
        rustix::io::write(join, b"0").step("join a cgroup")?;
    }
    watch.lap(Part::Cgroup);
    let gauges = plan.gauges.iter().map(|(_, fd)| fd.as_raw_fd());
    let weight = plan.weight.as_ref().map(|weight| weight.as_fd().as_raw_fd());
    let kept = gauges
        .chain(weight)
        .chain([plan.go.as_raw_fd()])
        .chain(plan.scratch.map(AsRawFd::as_raw_fd));
    sys::close_all_but(&kept.collect::<Vec<_>>()).step("close descriptors")?;
    if plan.kind.is_origin {
        origin::stand()?;
    } else {
        sys::unshare(UnshareFlags::NEWCGROUP).step("unshare the cgroup view")?;
    }
    watch.lap(Part::Namespaces);
    if !plan.network_is_ready {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, CLOEXEC, None);
        sys::loopback_up(socket.step("socket")?.as_fd()).step("bring up loopback")?;
    }
    watch.lap(Part::Network);
    let begun = receive(plan.go.as_fd(), &mut vec![0; 4096], RecvFlags::empty());
    let Some((Word::Begin { gauges }, fds)) = begun.step("wait for the launcher")? else {
        return Err(Failure("the launcher is gone".to_owned()));
    };
    plan.gauges.extend(gauges.into_iter().zip(fds));
    watch.lap(Part::Namespaces);
    if !plan.kind.is_origin {
        let tmp = || plan.scratch.map_or(Ok(None), scratch::take);
        root::complete(&plan.kind, root::shm_bytes(&plan.limits), watch, tmp)?;
        confine::become_user(plan.kind.identity, plan.own_groups, CapabilitySet::SYS_ADMIN)?;
    }
    watch.lap(Part::User);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide init")?;
    // A change of user clears it, so only now; that the launcher lives is checked by reading `go`.
    set_parent_process_death_signal(Some(Signal::KILL)).step("PDEATHSIG")
}

impl Task {
    /// Waits until this sandbox is somebody's; `None` when nobody wants it any more.
    fn receive(plan: &mut Plan<'_>) -> io::Result<Option<Self>> {
        // The launcher's words around a request are few.
        let mut buffer = vec![0; 2 * MESSAGE_LIMIT];
        let Some((word, received)) = receive(plan.go.as_fd(), &mut buffer, RecvFlags::empty())?
        else {
            return Ok(None);
        };
        let Word::Fit { spec, is_restored, fds, mut watch } = word else { return Ok(None) };
        let mut received = received.into_iter();
        let Some(status) = received.next() else { return Ok(None) };
        let line = if is_restored { received.next() } else { None };
        let fds = received.by_ref().zip(fds).collect();
        match plan.watch.take() {
            Some(running) => watch = running,
            None => watch.lap(Part::Order),
        }
        Ok(Some(Self { spec: *spec, status, fds, bounds: received.collect(), line, watch }))
    }
}

/// Makes an empty sandbox that of a program, and says that it is ready; returns the signal
/// descriptor.
fn fit(plan: &Plan<'_>, task: &mut Task) -> Result<OwnedFd, Failure> {
    rustix::system::sethostname(task.spec.hostname.as_bytes()).step("sethostname")?;
    task.watch.lap(Part::Namespaces);
    let listeners = listen_on(&task.spec.listeners)?;
    task.watch.lap(Part::Network);
    root::furnish(&task.spec.mounts, std::mem::take(&mut task.bounds), &plan.kind)?;
    let shm_bytes = root::shm_bytes(&task.spec.limits);
    if shm_bytes != root::shm_bytes(&plan.limits) {
        root::resize_shm(shm_bytes)?;
    }
    task.watch.lap(Part::Mounts);
    let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM]).step("signalfd")?;
    let mut rules = None;
    if task.line.is_some() {
        // The program, which it signals, has a domain of its own.
        rules = landlock_rules(plan, &task.spec)?;
    }
    // A blank one can mount until it is furnished, an origin's program is confined otherwise.
    if matches!(task.spec.role, Role::Program | Role::Snapshot) {
        let reach = if task.line.is_some() { Reach::All } else { Reach::Own };
        restrict(plan, &task.spec, &mut task.watch, reach)?;
    }
    if task.line.is_none() {
        weigh(plan, task)?;
    }
    task.watch.lap(Part::Cgroup);
    let mut fds: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    fds.extend(plan.gauges.iter().map(|(_, fd)| fd.as_fd()));
    let gauges = plan.gauges.iter().map(|(gauge, _)| *gauge).collect();
    let took = task.watch.laps().to_vec();
    let ready = Status::Ready { listeners: listeners.len(), gauges, took };
    send(task.status.as_fd(), &ready, &fds, SendFlags::empty()).step("report")?;
    if let Some(line) = &task.line {
        let rules: Vec<_> = rules.iter().map(AsFd::as_fd).collect();
        send(line.as_fd(), &Line::Fitted, &rules, SendFlags::empty()).step("tell the keeper")?;
    }
    Ok(signals)
}

/// Gives the program its share of the processors: until then all is built with the usual one.
fn weigh(plan: &Plan<'_>, task: &Task) -> Result<(), Failure> {
    match &plan.weight {
        Some(weight) => weight.set(&task.spec.limits).step("set the weight"),
        None => Ok(()),
    }
}

/// What a program that comes from a snapshot may touch.
fn landlock_rules(plan: &Plan<'_>, spec: &Spec) -> Result<Option<OwnedFd>, Failure> {
    if !plan.landlock {
        return Ok(None);
    }
    confine::landlock_rules(&writable(spec), Reach::Own)
}

/// The directories that a program may change.
fn writable(spec: &Spec) -> Vec<&str> {
    let own = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Tmpfs { target, .. } => target.to_str(),
        Mount::Bind { .. } => None,
    });
    ["/tmp", "/dev/shm"].into_iter().chain(own).collect()
}

/// Takes from this process, and from all that it will start, whatever only building needs.
fn restrict(
    plan: &Plan<'_>,
    spec: &Spec,
    watch: &mut Stopwatch,
    reach: Reach,
) -> Result<(), Failure> {
    confine::drop_capabilities()?;
    if plan.landlock {
        // What is forked from it has other directories of these names, which rules for its own would
        // not mean; it gets rules as well.
        let writable = if spec.role == Role::Snapshot { vec!["/"] } else { writable(spec) };
        confine::landlock(&writable, reach)?;
    }
    watch.lap(Part::Landlock);
    confine::filter(plan.filter)?;
    watch.lap(Part::Filter);
    Ok(())
}

/// Mounts what the launcher sends to a blank sandbox; `None` when nobody wants it any more.
fn furnish(plan: &Plan<'_>, task: &mut Task) -> Result<Option<()>, Failure> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    let word = receive(plan.go.as_fd(), &mut buffer, RecvFlags::empty());
    match word.step("read what to mount")? {
        Some((Word::Furnish { mounts, shm_bytes }, bounds)) => {
            root::furnish(&mounts, bounds, &plan.kind)?;
            root::resize_shm(shm_bytes)?;
        }
        Some((Word::Failed { message }, _)) => return Err(Failure(message)),
        Some((Word::Begin { .. } | Word::Fit { .. }, _)) => {
            return Err(Failure("it is somebody's already".to_owned()));
        }
        None => return Ok(None),
    }
    // The program, which it signals, is in a domain of its own.
    restrict(plan, &task.spec, &mut task.watch, Reach::All)?;
    send(task.status.as_fd(), &Status::Furnished, &[], SendFlags::empty()).step("report")?;
    Ok(Some(()))
}

/// Starts the program and stays until it ends; `None` when nobody wants it any more.
fn serve(
    plan: &Plan<'_>,
    task: &mut Task,
    signals: BorrowedFd<'_>,
) -> Result<Option<Ended>, Failure> {
    let worker = match task.line.take() {
        Some(line) => {
            let worker = worker::adopt(line)?;
            // What is made of a snapshot has its own weight only then.
            weigh(plan, task)?;
            worker
        }
        None => worker::start(plan, task)?,
    };
    if plan.kind.is_origin {
        origin::restrict(plan)?;
    }
    // From here on only the copies in the worker count: their peers must see its end.
    let keep = plan.gauges.iter().map(|(_, fd)| fd.as_raw_fd()).chain([
        plan.go.as_raw_fd(),
        task.status.as_raw_fd(),
        signals.as_raw_fd(),
        worker.error.as_raw_fd(),
    ]);
    sys::close_all_but(&keep.collect::<Vec<_>>()).step("close descriptors")?;
    // `poll` would be refused when it goes on after a freeze, once the program has set the limit of
    // open files on this process, which is of its user.
    let events = epoll::create(epoll::CreateFlags::CLOEXEC).step("epoll")?;
    for (fd, token) in [signals, task.status.as_fd(), plan.go.as_fd()].into_iter().zip(0..) {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&events, fd, data, epoll::EventFlags::IN).step("epoll")?;
    }
    let watched = watch(plan, task, signals, &events, &worker);
    if plan.kind.is_origin {
        origin::end(worker.pid);
    }
    watched
}

/// Stays with the program until it ends; `None` when nobody wants it any more.
fn watch(
    plan: &Plan<'_>,
    task: &mut Task,
    signals: BorrowedFd<'_>,
    events: &OwnedFd,
    worker: &worker::Worker,
) -> Result<Option<Ended>, Failure> {
    let mut is_blank = task.spec.role == Role::Blank;
    loop {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); 3];
        let ready: Vec<u64> = match epoll::wait(events, &mut space, None) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited.step("epoll")?.0.iter().map(|event| event.data.u64()).collect(),
        };
        let [signal, status, go] = [0, 1, 2].map(|token| ready.contains(&token));
        if status || (go && !is_blank) {
            return Ok(None);
        }
        if go {
            is_blank = false;
            if furnish(plan, task)?.is_none() {
                return Ok(None);
            }
        }
        if signal {
            forward_terminate(signals, worker.pid);
            if let Some(ended) = reap(worker.pid)? {
                return worker.exec_failure().map_or(Ok(Some(ended)), Err);
            }
        }
    }
}

/// Reads all pending signals; SIGTERM of the launcher goes on to the program.
fn forward_terminate(signals: BorrowedFd<'_>, worker: Pid) {
    let mut buffer = [0; size_of::<libc::signalfd_siginfo>()];
    while let Ok(read) = rustix::io::read(signals, &mut buffer) {
        if read > 0 && is_terminate_from_outside(&buffer) {
            // It may have ended already, which its SIGCHLD tells.
            kill_process(worker, Signal::TERM).ok();
        }
    }
}

/// Whether a `struct signalfd_siginfo` is of a SIGTERM that nobody inside has sent: where init and
/// program are one user of the host, the program may signal init, too.
///
/// The kernel gives 0 as the sender's process id when that is in an ancestor's namespace, and lets
/// nobody choose `SI_USER` together with an id, see rt_sigqueueinfo(2).
fn is_terminate_from_outside(info: &[u8]) -> bool {
    let (fields, _) = info.as_chunks::<4>();
    // Signal, errno, code, process id.
    matches!(fields, [signal, _, code, pid, ..]
        if i32::from_ne_bytes(*signal) == libc::SIGTERM
            && i32::from_ne_bytes(*code) == libc::SI_USER
            && i32::from_ne_bytes(*pid) == 0)
}

/// Collects every ended process; tells how the program ended if it was among them.
fn reap(worker: Pid) -> Result<Option<Ended>, Failure> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == worker => {
                ended = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(Ended::Exited(code)),
                    (None, Some(signal)) => Some(Ended::Signaled(signal)),
                    (None, None) => None,
                };
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(error) => return Err(error).step("wait"),
        }
    }
}

/// Opens the listeners of this network namespace.
fn listen_on(ports: &[u16]) -> Result<Vec<OwnedFd>, Failure> {
    let open = |port: &u16| -> rustix::io::Result<OwnedFd> {
        let flags = CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port))?;
        listen(&listener, 128)?;
        Ok(listener)
    };
    ports
        .iter()
        .map(|port| open(port).map_err(io::Error::from).step_of("listen on", port))
        .collect()
}
