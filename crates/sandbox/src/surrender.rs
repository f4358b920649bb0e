//! Taking from the server itself what only its launcher needs.
//!
//! The server reads what strangers send. Once the launcher runs, it needs none of root's powers: it
//! keeps no capability and can gain none, runs no other program, writes in its own directories only,
//! reads little else, and speaks to nobody by Unix or netlink sockets. See capabilities(7),
//! landlock(7) and seccomp(2).
//!
//! All of that belongs to threads and goes on to those that they start, so it is done while there is
//! only one. Nothing here can be undone, and nothing here concerns sandboxes or the launcher.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use crate::probe::feature;
use crate::step::{Failure, Step};
use crate::{Error, Feature, confine, seccomp, sys};

/// Before version 2 a file could not be moved from one directory to another.
const LEAST_LANDLOCK: u32 = 2;
/// What any program may have to read while it runs: about itself and the machine, devices such as
/// `null`, locales and time zones.
const SYSTEM: [&str; 4] = ["/proc", "/sys", "/dev", "/usr"];

/// What a process keeps when it gives up everything else.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Directories in which it may read, make, change and remove files, directories and links.
    pub writable: Vec<PathBuf>,
    /// Further files and directories that it may read.
    pub readable: Vec<PathBuf>,
    /// Directories below which it may remove empty directories.
    pub clearable: Vec<PathBuf>,
    /// TCP ports to which it may connect.
    pub ports: Vec<u16>,
}

/// Gives up everything but what is named, for this thread and all that it starts, and tells what is
/// in force. What is open already stays open.
///
/// # Errors
/// If the process has more than one thread, or something that the kernel has cannot be given up.
pub fn surrender(keep: &Keep) -> Result<Vec<Feature>, Error> {
    let failed = |Failure(why)| Error::Surrender(why);
    let threads = fs::read_dir("/proc/self/task").step("count threads").map_err(failed)?.count();
    if threads != 1 {
        return Err(Error::Surrender(format!("the process has {threads} threads already")));
    }
    let rules = ruleset(keep).map_err(failed)?;
    confine::drop_bounds().and_then(|()| confine::drop_capabilities()).map_err(failed)?;
    let restricted = rules.map(RulesetCreated::restrict_self).transpose();
    let landlock = match restricted.step("landlock").map_err(failed)? {
        Some(status) if status.ruleset != RulesetStatus::NotEnforced => sys::landlock_version(),
        _ => 0,
    };
    let seccomp = sys::seccomp_knows(libc::SECCOMP_RET_ERRNO);
    if seccomp {
        let program = seccomp::server_program().map_err(Error::Surrender)?;
        confine::filter(&program).map_err(failed)?;
    }
    Ok(features(landlock, seccomp))
}

/// What [`surrender`] can put in force on this host, by what the kernel says.
#[must_use]
pub fn surrenderable() -> Vec<Feature> {
    features(sys::landlock_version(), sys::seccomp_knows(libc::SECCOMP_RET_ERRNO))
}

fn features(landlock: u32, seccomp: bool) -> Vec<Feature> {
    let files = format!("version {landlock}: it writes in its data directory only, reads little");
    let draft = [
        feature("server-capabilities", true).says("the server keeps none and can gain none", ""),
        feature("server-seccomp", seccomp)
            .says("the server cannot run programs, nor reach others by Unix sockets", "no filter")
            .remedy("Use a kernel built with CONFIG_SECCOMP_FILTER."),
        feature("server-landlock", landlock >= LEAST_LANDLOCK)
            .says(&files, "not in this kernel, or too old: the server may touch its user's files")
            .remedy("Use Linux 5.19 or newer with `landlock` in its lsm= list."),
    ];
    draft.into_iter().map(|draft| draft.0).collect()
}

/// What is to be kept, in the kernel's form; `None` where it cannot be restricted.
fn ruleset(keep: &Keep) -> Result<Option<RulesetCreated>, Failure> {
    if sys::landlock_version() < LEAST_LANDLOCK {
        return Ok(None);
    }
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .step("landlock")?;
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile
            | RemoveDir | Refer
    });
    for path in &keep.writable {
        rules = allow(rules, path, write)?;
    }
    let there = SYSTEM.iter().map(Path::new).filter(|path| path.exists());
    for path in there.chain(keep.readable.iter().map(PathBuf::as_path)) {
        rules = allow(rules, path, read)?;
    }
    for path in &keep.clearable {
        rules = allow(rules, path, AccessFs::RemoveDir.into())?;
    }
    for port in &keep.ports {
        let rule = NetPort::new(*port, AccessNet::ConnectTcp);
        rules = rules.add_rule(rule).step("landlock")?;
    }
    Ok(Some(rules))
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Failure> {
    let fd = PathFd::new(path).step("landlock")?;
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V6) };
    rules.add_rule(PathBeneath::new(fd, access)).step_of("landlock", path.display())
}
