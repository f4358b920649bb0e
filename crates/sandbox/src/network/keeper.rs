//! The keeper: a process in the host's network namespace that keeps pasta(1) running.
//!
//! The launcher of an ordinary user leaves the host's namespace for good, so what is started there
//! has to be started by a process that stays. It is process 1 of a pid namespace of its own: when it
//! ends, and it ends with the launcher, the kernel ends what it started. A program that ends is
//! started again, after a pause that grows; meanwhile the router has no route out, and functions are
//! told at once that the network is unreachable.
//!
//! It reads nothing that comes from a sandbox but the first words of the program's complaints.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, pidfd_send_signal, set_parent_process_death_signal, setsid, waitpid,
};
use rustix::thread::set_no_new_privs;
use serde::{Deserialize, Serialize};

use crate::step::{Failure, Step};
use crate::sys;
use crate::wire::{receive, send};

/// What it is told and what it tells is shorter.
const MESSAGE: usize = 8 * 1024;
/// Bytes of complaints that are kept.
const COMPLAINT: usize = 300;

/// Time before the program is started again: the first, the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A program that ran for so long is started again as if for the first time.
const STEADY: Duration = Duration::from_secs(10);

/// The launcher's handle.
#[derive(Debug)]
pub(super) struct Keeper {
    control: OwnedFd,
    process: Option<(Pid, OwnedFd)>,
}

/// What the program is; its standard input comes with it.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    argv: Vec<String>,
}

/// What the keeper tells.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Word {
    /// The program has ended, and said this.
    Ended(String),
}

impl Keeper {
    /// Starts it in the namespace in which the caller is.
    pub(super) fn start() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (control, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match sys::clone_into(libc::CLONE_NEWPID, None)? {
            sys::Forked::Child => run(&there),
            sys::Forked::Parent { pid, pidfd } => Ok(Self { control, process: Some((pid, pidfd)) }),
        }
    }

    /// Has it run a program, and run it again when that ends.
    pub(super) fn run(&self, argv: Vec<String>, stdin: BorrowedFd<'_>) -> io::Result<()> {
        send(self.control.as_fd(), &Order { argv }, &[stdin], SendFlags::empty())
    }

    /// Waits for a word of it, for so long.
    pub(super) fn hear(&self, most: Duration) -> io::Result<Option<Word>> {
        let most = Timespec::try_from(most).ok();
        let mut heard = [PollFd::new(&self.control, PollFlags::IN)];
        if poll(&mut heard, most.as_ref())? == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; MESSAGE];
        match receive(self.control.as_fd(), &mut buffer, RecvFlags::DONTWAIT)? {
            Some((word, _)) => Ok(Some(word)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Ends it and what it runs.
    pub(super) fn end(&mut self) {
        let Some((pid, pidfd)) = self.process.take() else { return };
        // It may have ended already.
        pidfd_send_signal(&pidfd, Signal::KILL).ok();
        waitpid(Some(pid), WaitOptions::empty()).ok();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

// === In the keeper ===

/// A started program.
struct Program {
    pid: Pid,
    pidfd: OwnedFd,
    stderr: OwnedFd,
}

/// Serves until the launcher is gone.
fn run(control: &OwnedFd) -> ! {
    // The standard ones stay, so that no other takes their numbers.
    sys::close_all_but(&[0, 1, 2, control.as_raw_fd()]).ok();
    set_parent_process_death_signal(Some(Signal::KILL)).ok();
    // What a terminal sends to the server's group is not meant for the program.
    setsid().ok();
    if let Err(Failure(why)) = keep(control) {
        tell(control, why);
    }
    sys::exit_now(0)
}

fn keep(control: &OwnedFd) -> Result<(), Failure> {
    let mut buffer = vec![0; MESSAGE];
    let order = receive::<Order>(control.as_fd(), &mut buffer, RecvFlags::empty());
    let Some((order, fds)) = order.step("read the order")? else { return Ok(()) };
    let stdin = fds.into_iter().next().ok_or_else(|| Failure("no descriptor came".to_owned()))?;
    let argv = order.argv.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let argv = argv.step("read the order")?;
    let (mut pause, longest) = PAUSE;
    loop {
        let began = Instant::now();
        let program = start(&argv, &stdin)?;
        let Some(complaint) = watch(control, &program)? else { return Ok(()) };
        tell(control, complaint);
        if began.elapsed() > STEADY {
            pause = PAUSE.0;
        }
        let most = Timespec::try_from(pause).ok();
        let mut ended = [PollFd::new(control, PollFlags::IN)];
        if poll(&mut ended, most.as_ref()).step("poll")? > 0 {
            return Ok(());
        }
        pause = (pause * 2).min(longest);
    }
}

/// Nobody may be listening any more.
fn tell(control: &OwnedFd, complaint: String) {
    send(control.as_fd(), &Word::Ended(complaint), &[], SendFlags::DONTWAIT).ok();
}

fn start(argv: &[CString], stdin: &OwnedFd) -> Result<Program, Failure> {
    let (stderr, told) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).step("pipe")?;
    match sys::clone_into(0, None).step("fork")? {
        sys::Forked::Parent { pid, pidfd } => Ok(Program { pid, pidfd, stderr }),
        sys::Forked::Child => {
            let Err(Failure(why)) = become_program(argv, stdin, &told);
            rustix::io::write(&told, why.as_bytes()).ok();
            sys::exit_now(127)
        }
    }
}

/// What stops a service is blocked, as in the launcher: the program ends with its keeper.
fn become_program(
    argv: &[CString],
    stdin: &OwnedFd,
    stderr: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    sys::close_all_on_exec().step("close descriptors")?;
    let null = File::options().write(true).open("/dev/null").step("open /dev/null")?;
    for (fd, number) in [(stdin.as_fd(), 0), (null.as_fd(), 1), (stderr.as_fd(), 2)] {
        sys::place(fd, number).step("place descriptors")?;
    }
    // It takes an ignored SIGPIPE for an error.
    sys::reset_signals().and_then(|()| sys::block_stop_signals()).step("reset signals")?;
    set_parent_process_death_signal(Some(Signal::KILL)).step("PDEATHSIG")?;
    set_no_new_privs(true).step("no_new_privs")?;
    Err(sys::exec(argv, &[])).step("run it")
}

/// Waits for the program's end and returns its first words; `None` when the launcher is gone.
fn watch(control: &OwnedFd, program: &Program) -> Result<Option<String>, Failure> {
    let mut complaint = Vec::new();
    let mut listens = true;
    loop {
        let said = PollFd::new(&program.stderr, PollFlags::IN);
        let ended = PollFd::new(&program.pidfd, PollFlags::IN);
        let mut watched = [PollFd::new(control, PollFlags::IN), ended, said];
        let count = if listens { 3 } else { 2 };
        match poll(&mut watched[..count], None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled.step("poll")?,
        };
        let [gone, ended, said] = watched.map(|fd| fd.revents());
        if !gone.is_empty() {
            return Ok(None);
        }
        if said.contains(PollFlags::IN) {
            read(&program.stderr, &mut complaint);
        } else if !ended.is_empty() {
            return reap(program, &complaint).map(Some);
        } else if !said.is_empty() {
            // It has closed its end and runs on.
            listens = false;
        }
    }
}

/// Says how it ended, in its own words if it has any.
fn reap(program: &Program, complaint: &[u8]) -> Result<String, Failure> {
    let status = waitpid(Some(program.pid), WaitOptions::empty()).step("wait")?;
    let text = String::from_utf8_lossy(complaint);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((_, status)) = status.filter(|_| text.is_empty()) else { return Ok(text) };
    let (code, signal) = (status.exit_status(), status.terminating_signal());
    Ok(format!("it ended with status {code:?}, signal {signal:?}"))
}

/// Reads what is there and keeps the beginning.
fn read(from: &OwnedFd, complaint: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    let read = rustix::io::read(from, &mut buffer).unwrap_or(0);
    let room = COMPLAINT.saturating_sub(complaint.len());
    complaint.extend(buffer.iter().take(read.min(room)));
}
