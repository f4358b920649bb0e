//! What is different around an origin: an interpreter in the host's user and process namespace, which
//! its keeper forks into sandboxes anywhere.
//!
//! Its forks enter other namespaces, and as root other cgroups, for which it has two capabilities, also
//! across exec (capabilities(7), "Ambient capabilities"). They are more than its filter takes away, so nothing
//! that is hostile may ever run in it: what it runs the launcher knows from its start, and nobody but its
//! keeper has a way to it.

use rustix::process::{
    Gid, Pid, Signal, Uid, WaitOptions, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, wait,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::confine::{self, Reach};
use crate::step::{Failure, Step};

use super::Plan;

const KEPT: [CapabilitySet; 2] = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETUID];

/// Makes this process, its init, the parent of all that its forks leave behind on their way.
pub(super) fn stand() -> Result<(), Failure> {
    set_child_subreaper(Pid::from_raw(1)).step("be a subreaper")
}

/// Takes from its init, whose program has been started, what only building needs. The kernel asks who dies
/// for the right to the signal that tells it of that.
pub(super) fn restrict(plan: &Plan<'_>) -> Result<(), Failure> {
    confine::only(CapabilitySet::KILL)?;
    if plan.landlock {
        confine::landlock(&[], Reach::All)?;
    }
    confine::filter(plan.filter)
}

/// Ends the program and collects it with all that its keeper has made of it and still holds.
pub(super) fn end(program: Pid) {
    // It may have ended already. Its keeper ends with it, and with that all that it holds.
    kill_process(program, Signal::KILL).ok();
    while !matches!(wait(WaitOptions::empty()), Err(rustix::io::Errno::CHILD)) {}
}

/// Takes all from this process but those capabilities; its init is its parent.
pub(super) fn confine(plan: &Plan<'_>, init: Pid) -> Result<(), Failure> {
    let kept = KEPT.into_iter().fold(CapabilitySet::empty(), CapabilitySet::union);
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(capability) && remove_capability_from_bounding_set(capability).is_err() {
            // The first number that the kernel does not know.
            break;
        }
    }
    set_thread_groups(&[]).step("setgroups")?;
    let (uid, gid) = (Uid::from_raw(plan.host), Gid::from_raw(plan.host));
    set_thread_res_gid(gid, gid, gid).step("setresgid")?;
    set_keep_capabilities(true).step("keep capabilities")?;
    set_thread_res_uid(uid, uid, uid).step("setresuid")?;
    set_keep_capabilities(false).step("keep no capabilities")?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).step("drop capabilities")?;
    for capability in KEPT {
        configure_capability_in_ambient_set(capability, true).step("keep them across exec")?;
    }
    set_no_new_privs(true).step("no_new_privs")?;
    if plan.landlock {
        // What its forks may touch it must allow, as a snapshot does.
        confine::landlock(&["/"], Reach::Own)?;
    }
    // No process namespace ends it with its init; a change of user has cleared it.
    set_parent_process_death_signal(Some(Signal::KILL)).step("PDEATHSIG")?;
    if getppid() != Some(init) {
        return Err(Failure("its init is gone".to_owned()));
    }
    confine::filter(plan.filter)
}
