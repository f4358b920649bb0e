//! The first process of a sandbox: it builds everything from within, then watches over the program.
//!
//! ```text
//! clone -> join cgroups -> root, network -> user, filters -> Ready -> fork: worker execs argv
//!                                                                '--> reap, forward, report, end
//! ```
//!
//! In a blank sandbox user and filters come after the fork, twice: the worker puts them on before its
//! program runs, and init when it has mounted what the sandbox is furnished with.
//!
//! It runs in a copy of the launcher's memory, which it never drops: it ends by `exit_now` only.
//! When it ends the kernel kills the rest of the sandbox; it ends when the program does, when the
//! server lets go of the status socket, or when the launcher is gone. It is not dumpable, so code of
//! the same user inside cannot look into it.

mod worker;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, listen, socket_with,
    sockopt,
};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::confine::Reach;
use crate::seccomp::Program;
use crate::sources::Sources;
use crate::step::{Failure, Step};
use crate::timing::Stopwatch;
use crate::wire::{Ended, Gauge, MESSAGE_LIMIT, Status, Word, receive, send};
use crate::{Mount, Part, Spec, confine, gauges, root, scratch, sys};

/// What the launcher hands to a new sandbox.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) filter: &'a Program,
    pub(crate) sources: &'a Sources,
    /// The sandbox's end of its status socket.
    pub(crate) status: OwnedFd,
    /// Gives one byte when the user map is written, then a [`Word`] to a blank sandbox; ends with
    /// the launcher.
    pub(crate) go: OwnedFd,
    pub(crate) joins: Vec<OwnedFd>,
    pub(crate) gauges: Vec<(Gauge, OwnedFd)>,
    /// What the program gets, and under which numbers.
    pub(crate) fds: Vec<(OwnedFd, RawFd)>,
    /// Where the private `/tmp` comes out; it is in memory when absent.
    pub(crate) scratch: Option<&'a OwnedFd>,
    /// Has run since the launcher began.
    pub(crate) watch: Stopwatch,
    /// Whether supplementary groups can be dropped: only where the launcher is root.
    pub(crate) own_groups: bool,
    pub(crate) landlock: bool,
    /// Whether the network namespace was made ahead, with all that belongs in it.
    pub(crate) network_is_ready: bool,
}

/// Builds the sandbox around this process, runs the program and reports its end.
pub(crate) fn run(mut plan: Plan<'_>) -> ! {
    let built = build(&mut plan);
    let served = built.and_then(|signals| serve(&mut plan, signals.as_fd()));
    let status = plan.status.as_fd();
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
    send(status, &ended, &[], SendFlags::DONTWAIT).ok();
    sys::exit_now(0)
}

/// Does everything that must be done before code of the sandbox runs; returns the signal descriptor.
fn build(plan: &mut Plan<'_>) -> Result<OwnedFd, Failure> {
    let spec = plan.spec;
    plan.watch.lap(Part::Namespaces);
    // First of all: a process that joins by itself, without threads, does not wait for the kernel.
    for join in &plan.joins {
        rustix::io::write(join, b"0").step("join a cgroup")?;
    }
    plan.watch.lap(Part::Cgroup);
    sys::close_all_but(&kept(plan)).step("close descriptors")?;
    sys::unshare(UnshareFlags::NEWCGROUP).step("unshare the cgroup view")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("sethostname")?;
    plan.watch.lap(Part::Namespaces);
    let listeners = network(&spec.listeners, plan.network_is_ready)?;
    plan.watch.lap(Part::Network);
    if rustix::io::read(&plan.go, &mut [0; 1]).step("wait for the launcher")? == 0 {
        return Err(Failure("the launcher is gone".to_owned()));
    }
    plan.watch.lap(Part::Namespaces);
    let tmp = || plan.scratch.map_or(Ok(None), scratch::take);
    root::enter(spec, plan.sources, &mut plan.watch, tmp)?;
    let kept = if spec.is_blank { CapabilitySet::SYS_ADMIN } else { CapabilitySet::empty() };
    confine::become_user(spec.identity, plan.own_groups, kept)?;
    plan.watch.lap(Part::User);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide init")?;
    // A change of user clears it, so only now; that the launcher lives is checked by polling `go`.
    set_parent_process_death_signal(Some(Signal::KILL)).step("PDEATHSIG")?;
    let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM]).step("signalfd")?;
    if !spec.is_blank {
        restrict(plan, Reach::Own)?;
    }
    let mut fds: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    fds.extend(plan.gauges.iter().map(|(_, fd)| fd.as_fd()));
    let gauges = plan.gauges.iter().map(|(gauge, _)| *gauge).collect();
    let took = plan.watch.laps().to_vec();
    let ready = Status::Ready { listeners: listeners.len(), gauges, took };
    send(plan.status.as_fd(), &ready, &fds, SendFlags::empty()).step("report")?;
    drop(listeners);
    Ok(signals)
}

/// Takes from this process, and from all that it will start, whatever only building needs.
fn restrict(plan: &mut Plan<'_>, reach: Reach) -> Result<(), Failure> {
    confine::drop_capabilities()?;
    if plan.landlock {
        let own = plan.spec.mounts.iter().filter_map(|mount| match mount {
            Mount::Tmpfs { target, .. } => target.to_str(),
            Mount::Bind { .. } => None,
        });
        let writable: Vec<_> = ["/tmp", "/dev/shm"].into_iter().chain(own).collect();
        confine::landlock(&writable, reach)?;
    }
    plan.watch.lap(Part::Landlock);
    confine::filter(plan.filter)?;
    plan.watch.lap(Part::Filter);
    Ok(())
}

/// Mounts what the launcher sends to a blank sandbox; `None` when nobody wants it any more.
fn furnish(plan: &mut Plan<'_>) -> Result<Option<()>, Failure> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    let word = receive(plan.go.as_fd(), &mut buffer, RecvFlags::empty());
    match word.step("read what to mount")? {
        Some((Word::Furnish { targets, shm_bytes }, mounts)) if targets.len() == mounts.len() => {
            let mounts: Vec<_> = mounts.into_iter().zip(targets).collect();
            root::furnish(&mounts, shm_bytes)?;
        }
        Some((Word::Furnish { .. }, _)) => return Err(Failure("a mount did not come".to_owned())),
        Some((Word::Failed { message }, _)) => return Err(Failure(message)),
        None => return Ok(None),
    }
    // The program, which it signals, is in a domain of its own.
    restrict(plan, Reach::All)?;
    send(plan.status.as_fd(), &Status::Furnished, &[], SendFlags::empty()).step("report")?;
    Ok(Some(()))
}

/// Starts the program and stays until it ends; `None` when nobody wants it any more.
fn serve(plan: &mut Plan<'_>, signals: BorrowedFd<'_>) -> Result<Option<Ended>, Failure> {
    let worker = worker::start(plan)?;
    // From here on only the copies in the worker count: their peers must see its end.
    let keep: Vec<RawFd> =
        own(plan).chain([signals.as_raw_fd(), worker.error.as_raw_fd()]).collect();
    sys::close_all_but(&keep).step("close descriptors")?;
    let mut is_blank = plan.spec.is_blank;
    loop {
        let mut watched = [
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(plan.status.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(plan.go.as_fd(), PollFlags::IN),
        ];
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled.step("poll")?,
        };
        let [signal, status, go] = watched.map(|fd| !fd.revents().is_empty());
        if status || (go && !is_blank) {
            return Ok(None);
        }
        if go {
            is_blank = false;
            if furnish(plan)?.is_none() {
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

/// Opens the listeners of this network namespace; brings up loopback if nobody has.
fn network(ports: &[u16], is_ready: bool) -> Result<Vec<OwnedFd>, Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    if !is_ready {
        sys::loopback_up(socket().step("socket")?.as_fd()).step("bring up loopback")?;
    }
    let open = |port: &u16| -> rustix::io::Result<OwnedFd> {
        let listener = socket()?;
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

/// Descriptors that init itself needs to the end.
fn own(plan: &Plan<'_>) -> impl Iterator<Item = RawFd> {
    let gauges = plan.gauges.iter().map(|(_, fd)| fd.as_raw_fd());
    [plan.status.as_raw_fd(), plan.go.as_raw_fd()].into_iter().chain(gauges)
}

/// Descriptors that are needed until the program runs.
fn kept(plan: &Plan<'_>) -> Vec<RawFd> {
    let passed = plan.fds.iter().map(|(fd, _)| fd.as_raw_fd());
    own(plan).chain(passed).chain(plan.scratch.map(AsRawFd::as_raw_fd)).collect()
}
