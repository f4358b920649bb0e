//! The keeper of one snapshot or origin: it holds a process that waits, and forks it into other sandboxes.
//!
//! ```text
//! snapshot -fork-> first: lets go of every descriptor, enters the other sandbox's namespaces and cgroup
//!                  first -clone-> second, in its process namespace
//!                                 second -clone-> the program; second ends, so init becomes its parent
//! ```
//!
//! The first is made ahead. The others share its copy of the memory, which is the program's alone when
//! first and second have ended.
//!
//! A snapshot has run hostile code, so nothing of what it could have changed is trusted, and none of
//! it takes part: it was stopped by ptrace(2), runs not one instruction more, and its children are
//! stopped from their birth. The keeper makes each system call in them ([`remote`]), checks from
//! outside what has come of it, and only then lets the program go on, confined as any other. An origin
//! has run nothing hostile, and is dealt with in the same way.
//!
//! The keeper is a copy of the launcher, with its rights and one thread; it ends with the launcher
//! or with the snapshot, and the snapshot ends with it.

mod batch;
mod confinement;
mod descriptors;
mod fitness;
mod order;
mod remote;
mod sockets;
mod threads;

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{
    DumpableBehavior, PidfdFlags, Signal, pidfd_open, set_dumpable_behavior,
    set_parent_process_death_signal,
};

use crate::Stance;
use crate::init::worker::OOM_SCORE;
use crate::step::{Failure, Step};
use crate::sys;
use crate::sys::trace;
use crate::wire::{Line, MESSAGE_LIMIT, Verdict, receive, send};

use batch::Batch;
use descriptors::Own;
pub(crate) use order::{Charge, FRAMES, Given, Order};
use remote::Remote;
use threads::Others;

/// How long a snapshot may take to wait for what comes next.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an interpreter may take to warm up.
const WARM_UP: Duration = Duration::from_secs(10);
/// Where descriptors are on their way to their place.
const TRANSIT: RawFd = 128;
/// The kinds of namespaces in the order in which they are entered: only who is in the user namespace
/// may enter the others. The last is for children only.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "mnt", "net", "ipc", "uts", "cgroup", "pid"];

/// Holds the program of a sandbox until nobody wants it any more.
pub(crate) fn run(charge: &Charge<'_>) -> ! {
    let mut kept = vec![charge.orders.as_raw_fd(), charge.answer.as_raw_fd()];
    kept.extend(charge.frames.as_ref().map(AsRawFd::as_raw_fd));
    let began = sys::close_all_but(&kept).step("close descriptors").and_then(|()| {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the keeper")?;
        set_parent_process_death_signal(Some(Signal::KILL)).step("PDEATHSIG")
    });
    // From here on it is heard of ends and stops by waiting for the signal.
    let ends = began.and_then(|()| sys::signal_fd(&[libc::SIGCHLD]).step("signalfd"));
    let held = ends.and_then(|ends| hold(charge).map(|standing| (standing, ends)));
    let verdict = match &held {
        Ok(_) => Verdict::Held,
        Err(Failure(why)) => Verdict::Unfit { why: why.clone() },
    };
    // Whoever asked may have gone.
    send(charge.answer.as_fd(), &verdict, &[], SendFlags::DONTWAIT).ok();
    let Ok((standing, ends)) = held else { sys::exit_now(0) };
    let snapshot = &standing.remote;
    let Ok(program) = pidfd_open(snapshot.pid(), PidfdFlags::empty()) else { sys::exit_now(0) };
    let (mut buffer, mut spare) = (vec![0; MESSAGE_LIMIT], copy(snapshot).ok());
    while waits_for_order(&charge.orders, &program, &ends)
        && let Ok(Some((order, fds))) =
            receive::<Order>(charge.orders.as_fd(), &mut buffer, RecvFlags::empty())
    {
        let mut fds = fds.into_iter();
        let Some((line, init)) = fds.next().zip(fds.next()) else { continue };
        let word = match fork(&standing, spare.take(), &order, &line, &init, fds) {
            Ok(pid) => Line::Adopted { pid },
            Err(Failure(message)) => Line::Failed { message },
        };
        // The other sandbox may be gone already.
        send(line.as_fd(), &word, &[], SendFlags::DONTWAIT).ok();
        // The next is told why there is none.
        spare = copy(snapshot).ok();
    }
    sys::exit_now(0)
}

/// Waits for an order; `false` if the program has ended, of which its init hears when this process lets
/// go of it.
///
/// A program has not ended before its threads were collected, which only who holds them can do.
fn waits_for_order(orders: &OwnedFd, program: &OwnedFd, ends: &OwnedFd) -> bool {
    loop {
        // Of some of the ends it may have heard while it waited for a stop.
        trace::collect();
        let mut ready = [program, orders, ends].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut ready, None) {
            Ok(_) if !ready[0].revents().is_empty() => return false,
            Ok(_) if !ready[2].revents().is_empty() => {
                while rustix::io::read(ends, &mut [0; 1024]).is_ok_and(|read| read > 0) {}
            }
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A process that stands for good, and what each copy of it takes to be whole.
#[derive(Debug)]
struct Standing {
    remote: Remote,
    is_origin: bool,
    own: Own,
    threads: Others,
    /// Mappings that it kept from its forks, and its copies shall keep from theirs.
    left_out: Vec<Range<u64>>,
}

/// Stops the program while it waits for its next frame, and sees whether it can be forked.
fn hold(charge: &Charge<'_>) -> Result<Standing, Failure> {
    if let Some(frames) = &charge.frames {
        wait_until_ready(frames)?;
    }
    let program = fitness::only_program(charge.init)?;
    // Who waits for another process would not be seen to wait.
    fitness::is_alone(charge.init, program)?;
    trace::seize(program).step("hold the program")?;
    let until = Instant::now() + PATIENCE;
    let registers = loop {
        trace::interrupt(program).step("stop the program")?;
        while trace::wait_for_stop(program).step("wait for the program")? != trace::Stop::Told {
            trace::resume(program).step("resume the program")?;
        }
        let registers = trace::registers(program).step("read registers")?;
        let waits = match charge.stance {
            Stance::Alone | Stance::Framed => remote::is_reading(&registers),
            Stance::Free => threads::is_waiting(&registers),
        };
        if waits {
            break registers;
        }
        if Instant::now() > until {
            return Err(Failure("it does not wait for what comes next".to_owned()));
        }
        trace::resume(program).step("resume the program")?;
        std::thread::sleep(Duration::from_millis(1));
    };
    let has_threads = charge.stance != Stance::Alone;
    let mut threads = if has_threads { threads::stop_others(program)? } else { Others::default() };
    // Only now, as nothing can change any more.
    let own = fitness::check(charge.init, program, &charge.given, has_threads)?;
    let Charge { tree, leaf, limits, host, .. } = charge;
    if charge.is_origin {
        // It has no /proc of its own to do so.
        let score = format!("/proc/{}/oom_score_adj", program.as_raw_nonzero());
        std::fs::write(score, OOM_SCORE).step("oom_score_adj")?;
    } else {
        tree.divide(leaf, limits, *host).step("divide its cgroup")?;
    }
    let stopped = Remote::of_stopped(program, registers)?;
    // Only now: of its own it does nothing any more.
    trace::suspend_filter(program).step("suspend its filter")?;
    let remote = stopped.into_snapshot()?;
    threads.ask(&remote)?;
    let left_out = fitness::left_out(program)?;
    advise(&remote, &left_out, libc::MADV_DOFORK)?;
    Ok(Standing { remote, is_origin: charge.is_origin, own, threads, left_out })
}

/// Waits until an origin says that it has warmed up; what it says is a frame without a body.
fn wait_until_ready(frames: &OwnedFd) -> Result<(), Failure> {
    const READY: [u8; 5] = [1, 0, 0, 0, 1];
    let most = Timespec::try_from(WARM_UP).ok();
    let mut ready = [PollFd::new(frames, PollFlags::IN)];
    poll(&mut ready, most.as_ref()).step("wait for the program")?;
    let mut said = [0; READY.len()];
    let has_said = ready[0].revents().contains(PollFlags::IN)
        && rustix::io::read(frames, &mut said).is_ok_and(|read| read == READY.len());
    if has_said && said == READY {
        return Ok(());
    }
    Err(Failure("it did not get ready".to_owned()))
}

/// Says for each mapping what shall become of it in a fork.
fn advise(remote: &Remote, mappings: &[Range<u64>], advice: i32) -> Result<(), Failure> {
    let mut calls = Batch::of(remote);
    for mapping in mappings {
        let arguments = [mapping.start, mapping.end - mapping.start, advice.arg()];
        calls.call(libc::SYS_madvise, &arguments, "say what is forked");
    }
    calls.run()
}

/// A process that ends unless it has got where it should.
#[derive(Debug)]
struct Passing {
    remote: Remote,
    has_arrived: bool,
}

impl Passing {
    fn of(remote: Remote) -> Self {
        Self { remote, has_arrived: false }
    }

    fn arrived(mut self) {
        self.has_arrived = true;
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if !self.has_arrived {
            self.remote.end();
        }
    }
}

/// Copies the snapshot's memory, for the next restore.
fn copy(snapshot: &Remote) -> Result<Passing, Failure> {
    snapshot.fork_brother().step("fork the snapshot").map(Passing::of)
}

/// Puts a copy of the snapshot into the sandbox at the other end of the line; returns the program's id
/// there.
fn fork(
    standing: &Standing,
    spare: Option<Passing>,
    order: &Order,
    line: &OwnedFd,
    init: &OwnedFd,
    given: impl Iterator<Item = OwnedFd>,
) -> Result<i32, Failure> {
    let Standing { remote: snapshot, is_origin, own, threads, left_out } = standing;
    // Its init must have mounted everything, and says so with what its program may touch.
    let mut buffer = vec![0; MESSAGE_LIMIT];
    let fitted =
        receive::<Line>(line.as_fd(), &mut buffer, RecvFlags::empty()).step("wait for init")?;
    let Some((Line::Fitted, rules)) = fitted else {
        return Err(Failure("its init is gone".to_owned()));
    };
    let rules_count = rules.len();
    let mut sent = namespaces_of(order.init, init)?;
    sent.extend(given);
    sent.extend(rules);
    let ready = spare.and_then(|first| Some((first.remote.receive(&sent).ok()?, first)));
    let (there, first) = match ready {
        Some(ready) => ready,
        // There was none, or somebody has killed it.
        None => {
            let first = copy(snapshot)?;
            (first.remote.receive(&sent)?, first)
        }
    };
    let (namespaces, rest) = there.split_at_checked(NAMESPACES.len()).ok_or_else(few)?;
    let (into, rest) = rest.split_at_checked(order.is_cloned_into.into()).ok_or_else(few)?;
    let (joins, rest) = rest.split_at_checked(order.joins).ok_or_else(few)?;
    let (given, rules) = rest.split_at_checked(order.fds.len()).ok_or_else(few)?;
    if rules.len() != rules_count {
        return Err(few());
    }
    let mut calls = Batch::of(&first.remote);
    let enter = |calls: &mut Batch<'_>, (fd, kind): (&RawFd, &str)| {
        calls.call(libc::SYS_setns, &[fd.arg(), 0], format!("enter the {kind} namespace"));
    };
    // That of cgroups last of all: who is in it may not come from elsewhere, see cgroups(7) "nsdelegate".
    let (last, others): (Vec<_>, Vec<_>) =
        namespaces.iter().zip(NAMESPACES).partition(|(_, kind)| *kind == "cgroup");
    // A network that was made ahead belongs to the host's user namespace: who may leave that may enter it
    // before. A snapshot's sandboxes have made their own.
    let (before, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, kind)| *is_origin && *kind == "net");
    if *is_origin {
        confinement::meet_files_as_root(&mut calls);
    }
    before.into_iter().chain(others).for_each(|one| enter(&mut calls, one));
    for fd in joins {
        let zero = calls.data(b"0");
        calls.call(libc::SYS_write, &[fd.arg(), zero, 1], "join a cgroup");
    }
    calls.run()?;
    let second = first.remote.clone_into(into.first().copied());
    let second = Passing::of(second.step("clone in the namespaces")?);
    let mut calls = Batch::of(&second.remote);
    last.into_iter().for_each(|one| enter(&mut calls, one));
    calls.run()?;
    let program = Passing::of(second.remote.clone_last().step("clone the program")?);
    // From here on its parent is the init of the other sandbox.
    drop(second);
    drop(first);
    let remote = &program.remote;
    let mut calls = Batch::of(remote);
    confinement::place(&mut calls, given, &order.fds, rules);
    own.remake(&mut calls, &order.fds);
    confinement::confine(&mut calls, order, !rules.is_empty());
    confinement::enter_directory(&mut calls, snapshot.pid())?;
    remote.remind(&mut calls);
    calls.run()?;
    let namespaces = sent.get(..NAMESPACES.len()).ok_or_else(few)?;
    let pid = fitness::verify(remote.pid(), order, namespaces, own)?;
    advise(remote, left_out, libc::MADV_DONTFORK)?;
    // As soon as one of them runs nothing more may be done in any: it could change what is done.
    let others = threads.remake(remote)?;
    remote.prepare().step("let the program go on")?;
    // That is what somebody waits for. It may end at once, and all others with it.
    remote.release().step("let go of the program")?;
    program.arrived();
    others.iter().for_each(|other| drop(other.release()));
    Ok(pid)
}

/// Opens the namespaces of a process, which `pidfd` is.
fn namespaces_of(pid: i32, pidfd: &OwnedFd) -> Result<Vec<OwnedFd>, Failure> {
    let open = |kind: &&str| File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
    let opened: std::io::Result<_> = NAMESPACES.iter().map(open).collect();
    let opened = opened.step("open its namespaces")?;
    // If it lives still, the number has been its own.
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    if poll(&mut ended, Some(&Timespec::default())).step("look for its init")? != 0 {
        return Err(Failure("its init is gone".to_owned()));
    }
    Ok(opened)
}

fn few() -> Failure {
    Failure("descriptors are lacking".to_owned())
}

/// A number as an argument of a system call.
trait Argument {
    fn arg(self) -> u64;
}

impl Argument for RawFd {
    fn arg(self) -> u64 {
        i64::from(self).cast_unsigned()
    }
}
