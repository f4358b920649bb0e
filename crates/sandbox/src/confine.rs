//! Taking away: user, capabilities, Landlock, seccomp, resource limits.
//!
//! Called inside a new sandbox before any code of its own runs; nothing here can be undone.

use std::io;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::seccomp::Program;
use crate::step::{Failure, Step};
use crate::{Identity, Limits, sys};

/// Becomes the user that the program sees as itself, with no capability left and none to gain.
pub(crate) fn become_user(identity: Identity, own_groups: bool) -> Result<(), Failure> {
    // First: it needs a capability itself.
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if remove_capability_from_bounding_set(capability).is_err() {
            // The first number that the kernel does not know.
            break;
        }
    }
    clear_ambient_capability_set().step("clear ambient capabilities")?;
    if own_groups {
        set_thread_groups(&[]).step("setgroups")?;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_res_gid(gid, gid, gid).step("setresgid")?;
    set_thread_res_uid(uid, uid, uid).step("setresuid")?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).step("drop capabilities")?;
    set_no_new_privs(true).step("no_new_privs")
}

/// Restricts writing to the temporary file systems, and signals and abstract sockets to the sandbox.
pub(crate) fn landlock(writable: &[&str]) -> Result<(), Failure> {
    ruleset(writable).and_then(RulesetCreated::restrict_self).step("landlock").map(|_| ())
}

fn ruleset(writable: &[&str]) -> Result<RulesetCreated, RulesetError> {
    let abi = ABI::V6;
    let beneath = |path: &str, access| -> Result<_, RulesetError> {
        // A path that is not there needs no rule.
        Ok(PathFd::new(path).ok().map(|fd| PathBeneath::new(fd, access)))
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let mut wanted = vec![
        ("/", AccessFs::from_read(abi)),
        ("/dev", AccessFs::WriteFile | AccessFs::IoctlDev),
        // Names of threads and the score for the out-of-memory killer.
        ("/proc", AccessFs::WriteFile | AccessFs::Truncate),
    ];
    wanted.extend(writable.iter().map(|path| (*path, AccessFs::from_all(abi))));
    for (path, access) in wanted {
        if let Some(rule) = beneath(path, access)? {
            rules = rules.add_rule(rule)?;
        }
    }
    Ok(rules)
}

/// Installs the filter on system calls.
pub(crate) fn filter(program: &Program) -> Result<(), Failure> {
    sys::install_filter(program).step("seccomp")
}

/// Sets the limits that the kernel keeps for each process.
pub(crate) fn limit(limits: &Limits) -> Result<(), Failure> {
    let wanted = [
        (Resource::Nofile, "nofile", Some(limits.open_files)),
        (Resource::Memlock, "memlock", Some(limits.memlock)),
        (Resource::Stack, "stack", Some(limits.stack)),
        (Resource::Core, "core", Some(limits.core)),
        (Resource::Nproc, "nproc", limits.nproc),
    ];
    for (resource, name, value) in wanted {
        let Some(value) = value else { continue };
        let new = Rlimit { current: Some(value), maximum: Some(value) };
        let set = match setrlimit(resource, new) {
            // Above the limit of the server itself: the most that may be had.
            Err(rustix::io::Errno::PERM) => {
                let most = rustix::process::getrlimit(resource).maximum;
                setrlimit(resource, Rlimit { current: most, maximum: most })
            }
            set => set,
        };
        set.map_err(io::Error::from).step_of("set limit", name)?;
    }
    Ok(())
}
