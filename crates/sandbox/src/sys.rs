//! System calls that rustix does not offer safely, each wrapped once.
//!
//! Everything here is called in a single-threaded process: the launcher, or a child it cloned.

#![expect(unsafe_code, reason = "these calls have no safe wrapper in rustix")]

pub(crate) mod disk;
#[cfg(target_arch = "x86_64")]
pub(crate) mod trace;

use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a clone this is.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the handle of the new.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// Clones this process into new namespaces, on v2 straight into its cgroup.
pub(crate) fn clone_into(namespaces: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // JUSTIFICATION: `clone_args` is a plain C structure of integers that has no constructor.
    // SAFETY: all bits zero is a valid value of a structure of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.cast_unsigned()) | flag(libc::CLONE_PIDFD);
    args.pidfd = (&raw mut pidfd).addr() as u64;
    // The child of this process's parent tells its end as this process would.
    let is_brother = namespaces & libc::CLONE_PARENT != 0;
    args.exit_signal = if is_brother { 0 } else { flag(libc::SIGCHLD) };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    let size = size_of::<libc::clone_args>();
    // JUSTIFICATION: the only call that makes a process inside new namespaces and a cgroup at once.
    // SAFETY: `args` is valid for `size` bytes and `pidfd` outlives the call. No stack and no
    // CLONE_VM: the child gets a copy of this memory, and as this process has one thread no lock is
    // held by anybody else in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) };
    match check(pid)? {
        0 => Ok(Forked::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
            // JUSTIFICATION: the kernel wrote a raw number.
            // SAFETY: a successful clone3 with CLONE_PIDFD stores a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// Forks within the present namespaces; `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // JUSTIFICATION: `libc::fork` may call clone3, which our filter refuses.
    // SAFETY: the same as in `clone_into`; all pointers are null, so their order does not matter.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    let pid = check(pid)?;
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

/// Chooses the user as whom this process meets files, whatever its others are.
pub(crate) fn set_files_user(uid: u32) {
    // JUSTIFICATION: rustix has no setfsuid.
    // SAFETY: it takes a number and changes this thread's credentials only; it cannot fail for root.
    unsafe { libc::setfsuid(uid) };
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // JUSTIFICATION: rustix offers it as unsafe only, because of `CLONE_FILES` and threads.
    // SAFETY: this process has one thread, and no caller asks for descriptors to be unshared.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(Into::into)
}

/// Becomes another program; returns only when that failed.
pub(crate) fn exec(argv: &[CString], env: &[CString]) -> io::Error {
    let Some(program) = argv.first() else { return io::ErrorKind::InvalidInput.into() };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // JUSTIFICATION: rustix has no safe execve.
    // SAFETY: both vectors are null-terminated arrays of C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running any destructor of the copied memory.
pub(crate) fn exit_now(code: i32) -> ! {
    // JUSTIFICATION: `std::process::exit` would flush and run handlers that belong to the parent.
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Sets flags on a mount, on all below it too when `recursive`.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attributes = [set, 0_u64, 0, 0];
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // JUSTIFICATION: rustix does not have this call; remounting would need one call per mount.
    // SAFETY: the path is an empty C string and `attributes` is valid for the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    check(done).map(|_| ())
}

/// Closes every descriptor but these.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // JUSTIFICATION: closing what a clone copied is not expressible with owned descriptors.
            // SAFETY: the owners of these numbers live in memory that this process never drops,
            // because it ends by `exit_now` or `exec`.
            check_int(unsafe { libc::close_range(first, fd - 1, 0) })?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// Makes every descriptor close at `exec`.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    let flag = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // JUSTIFICATION: one call for all, including descriptors that were inherited.
    // SAFETY: it only sets a flag on open descriptors.
    check_int(unsafe { libc::close_range(0, u32::MAX, flag) }).map(|_| ())
}

/// Puts a descriptor at a number where a program will look for it after `exec`.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // JUSTIFICATION: the number is chosen by the caller, so there is no owner to give to rustix.
    // SAFETY: only the child about to call `exec` does this; whatever it replaces is not used again.
    check_int(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(|_| ())
}

/// Blocks these signals and returns a descriptor that reads them.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    set_mask(&set)?;
    // JUSTIFICATION: rustix has no signalfd.
    // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    let fd = check_int(fd)?;
    // JUSTIFICATION: signalfd returns a raw number.
    // SAFETY: the number is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for a signal that is blocked, so long at most.
fn wait_for_signal(signal: i32, most: std::time::Duration) {
    let set = signal_set(&[signal]);
    let most = libc::timespec {
        tv_sec: most.as_secs().cast_signed(),
        tv_nsec: i64::from(most.subsec_nanos()),
    };
    // JUSTIFICATION: rustix has it as unsafe only, for the sake of handlers.
    // SAFETY: set and time are initialised; nothing is asked for about the signal.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const most) };
}

/// Blocks what a terminal or a service manager sends to a whole group of processes: the launcher
/// ends with the server, which decides when.
pub(crate) fn block_stop_signals() -> io::Result<()> {
    set_mask(&signal_set(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]))
}

/// Unblocks all signals and gives SIGPIPE, which the Rust runtime ignores, its usual effect.
pub(crate) fn reset_signals() -> io::Result<()> {
    set_mask(&signal_set(&[]))?;
    // JUSTIFICATION: an ignored signal would stay ignored in the program that is run.
    // SAFETY: the default action needs no handler.
    let old = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if old == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings up the loopback interface of this network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // JUSTIFICATION: `ifreq` is a C structure with a union that has no constructor.
    // SAFETY: all bits zero is a valid value: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // JUSTIFICATION: netdevice(7) has only this ioctl, netlink would be a hundred lines.
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which is valid and initialised.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(|_| ())
}

/// Installs a seccomp filter on this thread.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // JUSTIFICATION: rustix has no seccomp.
    // SAFETY: `program` points to `len` initialised instructions, which the kernel copies and checks.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) };
    check(done).map(|_| ())
}

/// Has the kernel of a netlink socket look at what is asked for, where it would answer with all.
pub(crate) fn netlink_strict(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    let (level, option) = (libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK);
    // JUSTIFICATION: rustix has no options of netlink sockets.
    // SAFETY: the option reads one int, which is initialised and outlives the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size)
    };
    check_int(done).map(|_| ())
}

/// Asks the kernel whether it knows a seccomp action.
pub(crate) fn seccomp_knows(action: u32) -> bool {
    let ask = libc::SECCOMP_GET_ACTION_AVAIL;
    // JUSTIFICATION: rustix has no seccomp.
    // SAFETY: the call reads one u32.
    unsafe { libc::syscall(libc::SYS_seccomp, ask, 0, &raw const action) == 0 }
}

/// Asks the kernel for its Landlock version; 0 when it has none.
pub(crate) fn landlock_version() -> u32 {
    let none: *const c_void = std::ptr::null();
    // JUSTIFICATION: the landlock crate does not tell the version it found.
    // SAFETY: with the version flag (1) the kernel takes no attributes.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, 1) };
    u32::try_from(version).unwrap_or(0)
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn flag(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // JUSTIFICATION: `sigset_t` is an opaque C structure.
    // SAFETY: all bits zero is a valid, empty set on Linux.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // JUSTIFICATION: the only portable way to add to the set.
        // SAFETY: `set` is initialised; a wrong number is refused without effect.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // JUSTIFICATION: rustix does not change signal masks.
    // SAFETY: `set` is initialised and the old mask is not asked for.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) })
        .map(|_| ())
}
