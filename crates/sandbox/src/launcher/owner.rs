//! Who owns the user namespace of a sandbox.
//!
//! The kernel charges what it counts for each user (inotify instances and watches, queued signals
//! and timers, message queues) to the user inside a namespace *and* to the namespace's owner
//! outside. If all were owned by root, one sandbox could use up what root and all other sandboxes
//! may have. So the launcher takes on the sandbox's own user while it clones, and files are still
//! opened as root. See user_namespaces(7), and `inc_ucount` in the kernel's `kernel/ucount.c`.

use rustix::process::Uid;
use rustix::thread::{capabilities, set_capabilities, set_thread_res_uid};

use crate::step::{Failure, Step};
use crate::sys;

/// From here on namespaces belong to `uid`; what root may do the launcher still may.
pub(super) fn take(uid: u32) -> Result<(), Failure> {
    set_thread_res_uid(Uid::ROOT, Uid::from_raw(uid), Uid::ROOT).step("take on the owner")?;
    // The change of user has cleared the effective set, and the files' user followed it.
    let mut sets = capabilities(None).step("read capabilities")?;
    sets.effective = sets.permitted;
    set_capabilities(None, sets).step("keep capabilities")?;
    sys::set_files_user(0);
    Ok(())
}

/// Is root again. Without that nothing can be built or ended as it must be.
pub(super) fn give_back() {
    if set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_err() {
        sys::exit_now(1);
    }
}
