//! A cgroup for the launcher from systemd, where it is systemd who hands them out.
//!
//! On a v2 host the group of a login shell holds the shell too, so it cannot be divided, and those
//! above it are systemd's to change (<https://systemd.io/CGROUP_DELEGATION/>, "single writer").
//! There the launcher is started in a transient scope with `Delegate=yes`: of the system's manager
//! for root, of the user's own for anybody else. `systemd-run --scope` registers itself and becomes
//! the launcher, so its process id stays.
//!
//! It only asks; if there is nothing to ask or the answer is no, the launcher starts where it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LauncherOptions;
use crate::cgroup::{self, Layout};

const RUNNER: &str = "/usr/bin/systemd-run";

/// Returns the start of a command line that runs what follows in a scope, if that is of use here.
pub(crate) fn command(options: &LauncherOptions) -> Option<Command> {
    if options.cgroup_parent.is_some() || !Path::new(RUNNER).exists() {
        return None;
    }
    let user = rustix::process::geteuid();
    let (manager, runtime) = if user.is_root() {
        ("--system", PathBuf::from("/run"))
    } else {
        ("--user", runtime_dir(user.as_raw()))
    };
    let answers = runtime.join("systemd/private").exists();
    if !answers || cgroup::own_group_will_do(&Layout::read(Path::new("/"), None)) {
        return None;
    }
    let mut command = Command::new(RUNNER);
    command
        .env_clear()
        .env("XDG_RUNTIME_DIR", runtime)
        .args([manager, "--scope", "--quiet", "--collect"])
        .arg(format!("--unit=lacewing-{}-{}", options.owner, std::process::id()))
        .arg("--description=Lacewing's sandboxes")
        // Each sandbox has its own limit of processes, their number another.
        .args(["--property=Delegate=yes", "--property=TasksMax=infinity", "--"]);
    Some(command)
}

/// The directory of a user's own manager; without the variable, as after `su`, pam_systemd(8)'s default.
fn runtime_dir(uid: u32) -> PathBuf {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}")))
}
