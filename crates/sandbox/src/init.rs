//! The first process of a sandbox: it builds everything from within, then watches over the program.
//!
//! ```text
//! clone -> join cgroups -> root, network -> user, filters -> Ready -> fork: worker execs argv
//!                                                                '--> reap, forward, report, end
//! ```
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
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};
use rustix::thread::UnshareFlags;

use crate::seccomp::Program;
use crate::step::{Failure, Step};
use crate::wire::{Ended, Gauge, Status, send};
use crate::{Mount, Spec, confine, gauges, root, sys};

/// What the launcher hands to a new sandbox.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) filter: &'a Program,
    /// The sandbox's end of its status socket.
    pub(crate) status: OwnedFd,
    /// Gives one byte when the user map is written, and ends with the launcher.
    pub(crate) go: OwnedFd,
    pub(crate) joins: Vec<OwnedFd>,
    pub(crate) gauges: Vec<(Gauge, OwnedFd)>,
    /// What the program gets, and under which numbers.
    pub(crate) fds: Vec<(OwnedFd, RawFd)>,
    /// Whether supplementary groups can be dropped: only where the launcher is root.
    pub(crate) own_groups: bool,
    pub(crate) landlock: bool,
}

/// Builds the sandbox around this process, runs the program and reports its end.
pub(crate) fn run(plan: &Plan<'_>) -> ! {
    let status = plan.status.as_fd();
    let ended = match build(plan).and_then(|signals| serve(plan, signals.as_fd())) {
        Ok(Some(how)) => Status::Ended { how, memory: gauges::memory(&plan.gauges).ok() },
        Ok(None) => sys::exit_now(0),
        Err(Failure(message)) => Status::Failed { message },
    };
    // Nobody to tell when this fails: the end of the socket tells enough.
    send(status, &ended, &[], SendFlags::DONTWAIT).ok();
    sys::exit_now(0)
}

/// Does everything that must be done before code of the sandbox runs; returns the signal descriptor.
fn build(plan: &Plan<'_>) -> Result<OwnedFd, Failure> {
    let spec = plan.spec;
    // First of all: a process that joins by itself, without threads, does not wait for the kernel.
    for join in &plan.joins {
        rustix::io::write(join, b"0").step("join a cgroup")?;
    }
    sys::close_all_but(&kept(plan)).step("close descriptors")?;
    sys::unshare(UnshareFlags::NEWCGROUP).step("unshare the cgroup view")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("sethostname")?;
    let listeners = network(&spec.listeners)?;
    if rustix::io::read(&plan.go, &mut [0; 1]).step("wait for the launcher")? == 0 {
        return Err(Failure("the launcher is gone".to_owned()));
    }
    root::enter(spec)?;
    confine::become_user(spec.identity, plan.own_groups)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide init")?;
    // A change of user clears it, so only now; that the launcher lives is checked by polling `go`.
    set_parent_process_death_signal(Some(Signal::KILL)).step("PDEATHSIG")?;
    let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM]).step("signalfd")?;
    if plan.landlock {
        let own = spec.mounts.iter().filter_map(|mount| match mount {
            Mount::Tmpfs { target, .. } => target.to_str(),
            Mount::Bind { .. } => None,
        });
        confine::landlock(&["/tmp", "/dev/shm"].into_iter().chain(own).collect::<Vec<_>>())?;
    }
    confine::filter(plan.filter)?;
    let mut fds: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    fds.extend(plan.gauges.iter().map(|(_, fd)| fd.as_fd()));
    let gauges = plan.gauges.iter().map(|(gauge, _)| *gauge).collect();
    let ready = Status::Ready { listeners: listeners.len(), gauges };
    send(plan.status.as_fd(), &ready, &fds, SendFlags::empty()).step("report")?;
    drop(listeners);
    Ok(signals)
}

/// Starts the program and stays until it ends; `None` when nobody wants it any more.
fn serve(plan: &Plan<'_>, signals: BorrowedFd<'_>) -> Result<Option<Ended>, Failure> {
    let worker = worker::start(plan)?;
    // From here on only the copies in the worker count: their peers must see its end.
    let keep: Vec<RawFd> =
        own(plan).chain([signals.as_raw_fd(), worker.error.as_raw_fd()]).collect();
    sys::close_all_but(&keep).step("close descriptors")?;
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
        if status || go {
            return Ok(None);
        }
        if signal {
            forward_terminate(signals, worker.pid);
            if let Some(ended) = reap(worker.pid)? {
                return worker.exec_failure().map_or(Ok(Some(ended)), Err);
            }
        }
    }
}

/// Reads all pending signals; SIGTERM goes on to the program.
fn forward_terminate(signals: BorrowedFd<'_>, worker: Pid) {
    let mut buffer = [0; size_of::<libc::signalfd_siginfo>()];
    while let Ok(read) = rustix::io::read(signals, &mut buffer) {
        // The signal's number is the first field of `struct signalfd_siginfo`.
        let number = buffer.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        if read > 0 && number == Some(libc::SIGTERM.cast_unsigned()) {
            // It may have ended already, which its SIGCHLD tells.
            kill_process(worker, Signal::TERM).ok();
        }
    }
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

/// Brings up loopback and opens the listeners of this network namespace.
fn network(ports: &[u16]) -> Result<Vec<OwnedFd>, Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    sys::loopback_up(socket().step("socket")?.as_fd()).step("bring up loopback")?;
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
    own(plan).chain(plan.fds.iter().map(|(fd, _)| fd.as_raw_fd())).collect()
}
