//! The few requests of ptrace(2) with which the launcher's keeper acts on a process that it holds.
//!
//! Only stops and registers are here; memory is read and written through `/proc/<pid>/mem`. For
//! x86-64: other processors have other registers.

use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::{check, check_int, wait_for_signal};

/// What a process that is held does on its own, as `PTRACE_O_*`: it dies with its holder, and is
/// held from its first instruction on if it was forked by one.
const HELD: i32 = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE;
/// The same, and no filter applies, to those that it is forked into neither, until they are let go.
const UNFILTERED: i32 = HELD | libc::PTRACE_O_SUSPEND_SECCOMP;

/// `NT_X86_XSTATE` of the kernel's `uapi/linux/elf.h`.
const XSTATE: usize = 0x202;
/// More than any processor has: those with AMX have 11 KB.
const MOST_VECTORS: usize = 64 << 10;

/// The registers of a stopped process.
pub(crate) type Registers = libc::user_regs_struct;

/// Why a process has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has forked.
    Forked,
    /// It was told to, or was born.
    Told,
    /// It has made one step.
    Stepped,
    /// It would get a signal.
    Signal,
}

/// Takes hold of a process; it goes on, under its filter, until it is stopped.
pub(crate) fn seize(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, pid, 0, HELD as usize)
}

/// Suspends the filter of a stopped process, which must not go on by itself from here on: what it
/// has been forbidden it could do then.
pub(crate) fn suspend_filter(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_SETOPTIONS, pid, 0, UNFILTERED as usize)
}

/// Whether two descriptors of a process are one, as dup(2) makes them. See kcmp(2).
pub(crate) fn is_same_file(pid: Pid, one: RawFd, other: RawFd) -> io::Result<bool> {
    const FILE: i32 = 0;
    let pid = pid.as_raw_nonzero().get();
    // JUSTIFICATION: rustix has no kcmp.
    // SAFETY: it takes numbers and changes nothing.
    let compared = unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, FILE, one, other) };
    check(compared).map(|compared| compared == 0)
}

/// Stops it at the next point where that can be done.
pub(crate) fn interrupt(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0)
}

/// Lets it go on.
pub(crate) fn resume(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_CONT, pid, 0, 0)
}

/// Lets it make one step; signals that wait are dropped.
pub(crate) fn step(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_SINGLESTEP, pid, 0, 0)
}

/// Lets go of it for good.
pub(crate) fn release(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_DETACH, pid, 0, 0)
}

/// Reads the registers of a stopped process.
pub(crate) fn registers(pid: Pid) -> io::Result<Registers> {
    // JUSTIFICATION: a C structure of integers that has no constructor.
    // SAFETY: all bits zero is a valid value of it.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, pid, 0, (&raw mut registers).addr())?;
    Ok(registers)
}

/// Writes the registers of a stopped process.
pub(crate) fn set_registers(pid: Pid, registers: &Registers) -> io::Result<()> {
    request(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(registers).addr())
}

/// Reads the floating-point and vector registers of a stopped thread, and their modes.
pub(crate) fn vectors(pid: Pid) -> io::Result<Vec<u8>> {
    let mut state = vec![0_u8; MOST_VECTORS];
    let mut room = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
    request(libc::PTRACE_GETREGSET, pid, XSTATE, (&raw mut room).addr())?;
    state.truncate(room.iov_len);
    Ok(state)
}

/// Writes them.
pub(crate) fn set_vectors(pid: Pid, state: &[u8]) -> io::Result<()> {
    let room = libc::iovec { iov_base: state.as_ptr().cast_mut().cast(), iov_len: state.len() };
    request(libc::PTRACE_SETREGSET, pid, XSTATE, (&raw const room).addr())
}

/// Reads which signals a stopped thread has blocked.
pub(crate) fn signal_mask(pid: Pid) -> io::Result<u64> {
    let mut mask = 0_u64;
    request(libc::PTRACE_GETSIGMASK, pid, size_of_val(&mask), (&raw mut mask).addr())?;
    Ok(mask)
}

/// Sets which signals a stopped thread has blocked.
pub(crate) fn set_signal_mask(pid: Pid, mask: u64) -> io::Result<()> {
    request(libc::PTRACE_SETSIGMASK, pid, size_of_val(&mask), (&raw const mask).addr())
}

/// Where a thread's restartable sequences are registered, see `PTRACE_GET_RSEQ_CONFIGURATION`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequences {
    pub(crate) address: u64,
    pub(crate) bytes: u32,
    pub(crate) signature: u32,
}

impl Sequences {
    /// The arguments of rseq(2).
    pub(crate) fn arguments(self, flags: u64) -> [u64; 4] {
        [self.address, self.bytes.into(), flags, self.signature.into()]
    }
}

/// Asks for what a stopped process has registered, if anything.
///
/// # Errors
/// Also where the kernel cannot tell: before Linux 5.13.
pub(crate) fn sequences(pid: Pid) -> io::Result<Option<Sequences>> {
    // JUSTIFICATION: a C structure of integers that has no constructor.
    // SAFETY: all bits zero is a valid value of it.
    let mut found: libc::ptrace_rseq_configuration = unsafe { std::mem::zeroed() };
    let (size, at) = (size_of_val(&found), (&raw mut found).addr());
    request(libc::PTRACE_GET_RSEQ_CONFIGURATION, pid, size, at)?;
    let (address, bytes) = (found.rseq_abi_pointer, found.rseq_abi_size);
    Ok((address != 0).then_some(Sequences { address, bytes, signature: found.signature }))
}

/// The process that a process has just forked.
pub(crate) fn child(pid: Pid) -> io::Result<Pid> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message).addr())?;
    let child = i32::try_from(message).ok().and_then(Pid::from_raw);
    child.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Waits until a process that is held stops; an error if it has ended. The caller has blocked SIGCHLD.
pub(crate) fn wait_for_stop(pid: Pid) -> io::Result<Stop> {
    let status = wait_for_status(pid, None)?;
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(match status >> 16 {
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE => Stop::Forked,
        libc::PTRACE_EVENT_STOP => Stop::Told,
        0 if libc::WSTOPSIG(status) == libc::SIGTRAP => Stop::Stepped,
        _ => Stop::Signal,
    })
}

/// Collects whatever has ended of what is held. What stands has been waited for.
pub(crate) fn collect() {
    // JUSTIFICATION: rustix cannot wait for threads.
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) } > 0 {}
}

/// Waits for the end of a process that has been killed; not for ever.
pub(crate) fn wait_for_end(pid: Pid) {
    let until = Instant::now() + DEATH;
    while wait_for_status(pid, Some(until)).is_ok_and(|status| libc::WIFSTOPPED(status)) {}
}

/// How long nothing must be heard before it is looked for.
const SILENCE: Duration = Duration::from_millis(20);
/// Time for a killed process to be gone.
const DEATH: Duration = Duration::from_secs(5);

/// Waits for what becomes of a process, and collects its threads if it has been killed: a process has not
/// ended before that, and only who holds them can do it.
fn wait_for_status(pid: Pid, until: Option<Instant>) -> io::Result<i32> {
    let raw = pid.as_raw_nonzero().get();
    let mut has_heard_nothing = false;
    loop {
        let mut status = 0;
        // JUSTIFICATION: rustix takes the event of a stop for a part of the signal.
        // SAFETY: `status` outlives the call.
        let waited = unsafe { libc::waitpid(raw, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if check_int(waited)? == raw {
            return Ok(status);
        }
        if has_heard_nothing && is_zombie(pid) {
            collect_threads(pid);
        }
        if until.is_some_and(|until| Instant::now() > until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        wait_for_signal(libc::SIGCHLD, SILENCE);
        has_heard_nothing = true;
    }
}

fn is_zombie(pid: Pid) -> bool {
    // Its name is whatever it likes, and comes in brackets before its state.
    let Ok(stat) = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())) else {
        return false;
    };
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 2));
    state == Some(&b'Z')
}

fn collect_threads(pid: Pid) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    for entry in tasks.into_iter().flatten().flatten() {
        let Some(thread) = entry.file_name().to_str().and_then(|it| it.parse::<i32>().ok()) else {
            continue;
        };
        if thread != pid.as_raw_nonzero().get() {
            // JUSTIFICATION: rustix cannot wait for threads.
            // SAFETY: no status is asked for.
            unsafe {
                libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG);
            }
        }
    }
}

fn request(request: libc::c_uint, pid: Pid, address: usize, data: usize) -> io::Result<()> {
    let (address, data) = (address as *mut c_void, data as *mut c_void);
    // JUSTIFICATION: rustix has no ptrace.
    // SAFETY: the callers above give numbers, or the address of a value of the size that the request
    // takes and that outlives the call.
    check(unsafe { libc::ptrace(request, pid.as_raw_nonzero().get(), address, data) }).map(drop)
}
