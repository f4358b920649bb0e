//! The program's own process, from the fork to its exec.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::RecvFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, getpid, set_dumpable_behavior};

use crate::confine::Reach;
use crate::spec::Role;
use crate::step::{Failure, Step};
use crate::wire::{Line, receive};
use crate::{Spec, confine, sys};

use super::{Plan, Task, origin};

/// Numbers from here on are free for descriptors on their way to their place.
const TRANSIT: i32 = 512;
/// The kernel prefers it to init, which holds nearly nothing, when memory runs out.
pub(crate) const OOM_SCORE: &str = "1000";

/// The running program.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pid: Pid,
    /// Closed by a successful exec, else tells why there was none.
    pub(super) error: OwnedFd,
}

impl Worker {
    /// Tells why the program could not be run, if it could not.
    pub(super) fn exec_failure(&self) -> Option<Failure> {
        let mut buffer = [0; 512];
        let read = rustix::io::read(&self.error, &mut buffer).unwrap_or(0);
        let text = buffer.get(..read).filter(|bytes| !bytes.is_empty())?;
        Some(Failure(String::from_utf8_lossy(text).into_owned()))
    }
}

/// Forks and runs the program in the child.
pub(super) fn start(plan: &Plan<'_>, task: &mut Task) -> Result<Worker, Failure> {
    let (error, told) = pipe_with(PipeFlags::CLOEXEC).step("pipe")?;
    // Low numbers are free here and will be taken by what the program gets.
    let told = fcntl_dupfd_cloexec(&told, TRANSIT).step("dup")?;
    let init = getpid();
    match sys::fork().step("fork the program")? {
        Some(pid) => Ok(Worker { pid, error }),
        None => {
            let Err(Failure(message)) = run(plan, task, init);
            // The reader is our init; if it is gone so are we.
            rustix::io::write(&told, message.as_bytes()).ok();
            sys::exit_now(127)
        }
    }
}

/// Waits for a program that comes from a snapshot: it becomes a child of this process.
pub(super) fn adopt(line: OwnedFd) -> Result<Worker, Failure> {
    let word = receive(line.as_fd(), &mut vec![0; 4096], RecvFlags::empty());
    match word.step("wait for the snapshot")? {
        Some((Line::Adopted { pid }, _)) => {
            let pid = Pid::from_raw(pid).ok_or_else(|| Failure("no process".to_owned()))?;
            Ok(Worker { pid, error: line })
        }
        Some((Line::Failed { message }, _)) => Err(Failure(message)),
        Some((Line::Fitted, _)) | None => Err(Failure("the snapshot is gone".to_owned())),
    }
}

fn run(plan: &Plan<'_>, task: &mut Task, init: Pid) -> Result<std::convert::Infallible, Failure> {
    let spec = &task.spec;
    let (argv, env) = texts(spec)?;
    if argv.is_empty() {
        // The launcher's own trial: everything up to here is what it wanted to know.
        sys::exit_now(0);
    }
    match spec.role {
        // Only its init may mount, and that not for long.
        Role::Blank => super::restrict(plan, spec, &mut task.watch, Reach::Own)?,
        Role::Origin => origin::confine(plan, init)?,
        Role::Program | Role::Snapshot => {}
    }
    if !plan.kind.is_origin {
        // Its files in /proc belong to root as long as it is not dumpable; nobody else is here yet.
        set_dumpable_behavior(DumpableBehavior::Dumpable).step("own /proc/self")?;
        let score = OFlags::WRONLY | OFlags::CLOEXEC;
        openat(CWD, "/proc/self/oom_score_adj", score, Mode::empty())
            .and_then(|file| rustix::io::write(file, OOM_SCORE.as_bytes()))
            .step("oom_score_adj")?;
    }
    rustix::process::setsid().step("setsid")?;
    rustix::process::chdir(spec.cwd.as_str()).step_of("chdir", &spec.cwd)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    place(&task.fds).step("place descriptors")?;
    confine::limit(&spec.limits)?;
    sys::reset_signals().step("reset signals")?;
    Err(sys::exec(&argv, &env)).step_of(
        "run",
        argv.first().map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
    )
}

/// Leaves exactly the wanted descriptors to survive exec, and `/dev/null` as 0 if it is not given.
fn place(fds: &[(OwnedFd, RawFd)]) -> io::Result<()> {
    sys::close_all_on_exec()?;
    // First away from all places, so that none is overwritten before it was moved.
    let mut moved = Vec::new();
    for (fd, number) in fds {
        moved.push((fcntl_dupfd_cloexec(fd, TRANSIT)?, *number));
    }
    if moved.iter().all(|(_, number)| *number != 0) {
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        moved.push((fcntl_dupfd_cloexec(&null, TRANSIT)?, 0));
    }
    moved.iter().try_for_each(|(fd, number)| sys::place(fd.as_fd(), *number))
}

fn texts(spec: &Spec) -> Result<(Vec<CString>, Vec<CString>), Failure> {
    let argv = spec.argv.iter().map(|text| CString::new(text.as_str()));
    let env = spec.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    Ok((argv.collect::<Result<_, _>>().step("argv")?, env.collect::<Result<_, _>>().step("env")?))
}
