//! Taking away: user, capabilities, Landlock, seccomp, resource limits.
//!
//! Called inside a new sandbox before any code of its own runs, and in part by the server for itself;
//! nothing here can be undone.

use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::seccomp::Program;
use crate::step::{Failure, Step};
use crate::{Identity, Limits, sys};

/// Empties the sets that bound what can be gained; without a capability for it that is left to
/// `no_new_privs`.
pub(crate) fn drop_bounds() -> Result<(), Failure> {
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if remove_capability_from_bounding_set(capability).is_err() {
            // The first number that the kernel does not know.
            break;
        }
    }
    clear_ambient_capability_set().step("clear ambient capabilities")
}

/// Gives up every capability and the means to gain one.
pub(crate) fn drop_capabilities() -> Result<(), Failure> {
    only(CapabilitySet::empty())
}

/// The same, but for some that can be used and are never passed on to another program.
pub(crate) fn only(kept: CapabilitySet) -> Result<(), Failure> {
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    set_capabilities(None, sets).step("drop capabilities")?;
    set_no_new_privs(true).step("no_new_privs")
}

/// Becomes the user that the program sees as itself, with no capability but those `kept` left, and
/// none to gain.
pub(crate) fn become_user(
    identity: Identity,
    own_groups: bool,
    kept: CapabilitySet,
) -> Result<(), Failure> {
    // First: it needs a capability itself.
    drop_bounds()?;
    if own_groups {
        set_thread_groups(&[]).step("setgroups")?;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_res_gid(gid, gid, gid).step("setresgid")?;
    set_keep_capabilities(!kept.is_empty()).step("keep capabilities")?;
    set_thread_res_uid(uid, uid, uid).step("setresuid")?;
    set_keep_capabilities(false).step("keep no capabilities")?;
    only(kept)
}

/// What a process may still signal, and to whose abstract sockets it may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those that it starts from now on.
    Own,
    /// Also those that run already, as far as anything else lets it.
    All,
}

/// Restricts writing to the temporary file systems, and signals and abstract sockets to its reach.
pub(crate) fn landlock(writable: &[&str], reach: Reach) -> Result<(), Failure> {
    ruleset(writable, reach).and_then(RulesetCreated::restrict_self).step("landlock").map(|_| ())
}

/// The same as something that another process, which has no new privileges, can put on itself.
pub(crate) fn landlock_rules(writable: &[&str], reach: Reach) -> Result<Option<OwnedFd>, Failure> {
    ruleset(writable, reach).step("landlock").map(Into::into)
}

fn ruleset(writable: &[&str], reach: Reach) -> Result<RulesetCreated, RulesetError> {
    let abi = ABI::V6;
    let beneath = |path: &str, access| -> Result<_, RulesetError> {
        // A path that is not there needs no rule.
        Ok(PathFd::new(path).ok().map(|fd| PathBeneath::new(fd, access)))
    };
    let handled = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
    let scoped = match reach {
        Reach::Own => handled.scope(Scope::from_all(abi))?,
        Reach::All => handled,
    };
    let mut rules = scoped.create()?;
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
