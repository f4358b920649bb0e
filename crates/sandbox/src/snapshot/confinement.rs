//! What a new program gets and loses before it goes on: the same as one that is started by its init.

use std::os::fd::RawFd;

use rustix::process::Pid;

use crate::step::{Failure, Step};

use super::remote::Remote;
use super::{Argument, Order, TRANSIT};

/// Puts each descriptor in its place, and `/dev/null` at 0; `rules` come to be at [`TRANSIT`].
pub(super) fn place(
    program: &Remote,
    given: &[RawFd],
    numbers: &[RawFd],
    rules: &[RawFd],
) -> Result<(), Failure> {
    let duplicate = |from: RawFd, to: RawFd, flags: i32| {
        let arguments = [from.arg(), to.arg(), flags.arg()];
        program.call(libc::SYS_dup3, &arguments).step("place descriptors").map(drop)
    };
    // First away from all places, so that none is overwritten before it was moved.
    for (fd, to) in rules.iter().chain(given).zip(TRANSIT..) {
        duplicate(*fd, to, 0)?;
    }
    program.call(libc::SYS_close_range, &[0, (TRANSIT - 1).arg(), 0]).step("close descriptors")?;
    let null = program.text(b"/dev/null\0").step("write a name")?;
    let arguments = [libc::AT_FDCWD.arg(), null, libc::O_RDWR.arg(), 0];
    program.call(libc::SYS_openat, &arguments).step("open /dev/null")?;
    let first = TRANSIT + i32::from(!rules.is_empty());
    for (number, from) in numbers.iter().zip(first..) {
        // Our bootstraps keep from their children what is not a standard one.
        duplicate(from, *number, if *number > 2 { libc::O_CLOEXEC } else { 0 })?;
    }
    Ok(())
}

/// Takes the user, all capabilities, what Landlock says; the filter it has already.
pub(super) fn confine(program: &Remote, order: &Order, has_rules: bool) -> Result<(), Failure> {
    let call = |number, arguments: &[u64], step: &str| program.call(number, arguments).step(step);
    call(libc::SYS_setsid, &[], "setsid")?;
    for capability in 0..64 {
        if program.call(libc::SYS_prctl, &[libc::PR_CAPBSET_DROP.arg(), capability]).is_err() {
            // The first number that the kernel does not know.
            break;
        }
    }
    let ambient = [libc::PR_CAP_AMBIENT.arg(), libc::PR_CAP_AMBIENT_CLEAR_ALL.arg(), 0, 0, 0];
    call(libc::SYS_prctl, &ambient, "clear ambient capabilities")?;
    let (uid, gid) = (u64::from(order.identity.uid), u64::from(order.identity.gid));
    call(libc::SYS_setgroups, &[0, 0], "setgroups")?;
    call(libc::SYS_setresgid, &[gid; 3], "setresgid")?;
    call(libc::SYS_setresuid, &[uid; 3], "setresuid")?;
    // `struct __user_cap_header_struct` of version 3 for itself, and two empty sets of data.
    let mut sets = [0; 32];
    sets[..4].copy_from_slice(&0x2008_0522_u32.to_ne_bytes());
    let at = program.text(&sets).step("write the capabilities")?;
    call(libc::SYS_capset, &[at, at + 8], "drop capabilities")?;
    if has_rules {
        call(libc::SYS_landlock_restrict_self, &[TRANSIT.arg(), 0], "landlock")?;
    }
    call(libc::SYS_close_range, &[TRANSIT.arg(), u64::from(u32::MAX), 0], "close descriptors")?;
    // A change of user has cleared it: its files in /proc belong to root as long as it is not.
    call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.arg(), 1], "own /proc/self")?;
    Ok(())
}

/// Goes to the directory in which the snapshot is.
pub(super) fn enter_directory(program: &Remote, snapshot: Pid) -> Result<(), Failure> {
    let link = format!("/proc/{}/cwd", snapshot.as_raw_nonzero());
    let mut path =
        std::fs::read_link(link).step("read the directory")?.into_os_string().into_encoded_bytes();
    path.push(0);
    let at = program.text(&path).step("write a name")?;
    program.call(libc::SYS_chdir, &[at]).step("chdir").map(drop)
}
