//! What a new program gets and loses before it goes on: the same as one that is started by its init.

use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use rustix::process::Pid;

use crate::step::{Failure, Step};

use super::batch::Batch;
use super::{Argument, Order, TRANSIT};

/// Puts each descriptor in its place, and `/dev/null` at 0; `rules` come to be at [`TRANSIT`].
pub(super) fn place(calls: &mut Batch<'_>, given: &[RawFd], numbers: &[RawFd], rules: &[RawFd]) {
    let duplicate = |calls: &mut Batch<'_>, from: RawFd, to: RawFd, flags: i32| {
        let arguments = [from.arg(), to.arg(), flags.arg()];
        calls.call(libc::SYS_dup3, &arguments, "place descriptors");
    };
    // First away from all places, so that none is overwritten before it was moved.
    for (fd, to) in rules.iter().chain(given).zip(TRANSIT..) {
        duplicate(calls, *fd, to, 0);
    }
    let arguments = [0, (TRANSIT - 1).arg(), 0];
    calls.call(libc::SYS_close_range, &arguments, "close descriptors");
    let null = calls.data(b"/dev/null\0");
    let arguments = [libc::AT_FDCWD.arg(), null, libc::O_RDWR.arg(), 0];
    calls.call(libc::SYS_openat, &arguments, "open /dev/null");
    let first = TRANSIT + i32::from(!rules.is_empty());
    for (number, from) in numbers.iter().zip(first..) {
        // Our bootstraps keep from their children what is not a standard one.
        duplicate(calls, from, *number, if *number > 2 { libc::O_CLOEXEC } else { 0 });
    }
}

/// Meets files as root, whose cgroups are; only an origin may.
pub(super) fn meet_files_as_root(calls: &mut Batch<'_>) {
    // What it returns is who it was; where it failed the cgroup cannot be entered.
    calls.attempt(libc::SYS_setfsuid, &[0]);
}

/// Takes the user, all capabilities, what Landlock says; the filter it has already.
pub(super) fn confine(calls: &mut Batch<'_>, order: &Order, has_rules: bool) {
    calls.call(libc::SYS_setsid, &[], "setsid");
    for capability in 0..64 {
        // The kernel does not know all of these; what it knows is looked at in the end.
        calls.attempt(libc::SYS_prctl, &[libc::PR_CAPBSET_DROP.arg(), capability]);
    }
    let ambient = [libc::PR_CAP_AMBIENT.arg(), libc::PR_CAP_AMBIENT_CLEAR_ALL.arg(), 0, 0, 0];
    calls.call(libc::SYS_prctl, &ambient, "clear ambient capabilities");
    let (uid, gid) = (u64::from(order.identity.uid), u64::from(order.identity.gid));
    calls.call(libc::SYS_setgroups, &[0, 0], "setgroups");
    calls.call(libc::SYS_setresgid, &[gid; 3], "setresgid");
    calls.call(libc::SYS_setresuid, &[uid; 3], "setresuid");
    // `struct __user_cap_header_struct` of version 3 for itself, and two empty sets of data.
    let (header, sets) = (calls.words(&[0x2008_0522]), calls.words(&[0; 3]));
    calls.call(libc::SYS_capset, &[header, sets], "drop capabilities");
    if has_rules {
        calls.call(libc::SYS_landlock_restrict_self, &[TRANSIT.arg(), 0], "landlock");
    }
    let arguments = [TRANSIT.arg(), u64::from(u32::MAX), 0];
    calls.call(libc::SYS_close_range, &arguments, "close descriptors");
    // A change of user has cleared it: its files in /proc belong to root as long as it is not.
    calls.call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.arg(), 1], "own /proc/self");
}

/// Goes to the directory in which the snapshot is.
pub(super) fn enter_directory(calls: &mut Batch<'_>, snapshot: Pid) -> Result<(), Failure> {
    let link = format!("/proc/{}/cwd", snapshot.as_raw_nonzero());
    let path = std::fs::read_link(link).step("read the directory")?;
    let at = calls.data(&[path.as_os_str().as_bytes(), b"\0"].concat());
    calls.call(libc::SYS_chdir, &[at], "chdir");
    Ok(())
}
