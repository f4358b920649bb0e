//! Turns what was found about this host into a [`Report`] with a remedy for each lack.
//!
//! The strongest evidence is a trial: the launcher builds one whole sandbox at its start. What
//! "full" means: namespaces, a uid of its own for each sandbox, limits on memory, processes and
//! processor by cgroup, seccomp and `no_new_privs`. Landlock and overlayfs are not part of it:
//! Landlock only repeats by another mechanism what the mounts already enforce.

use std::fs;

use crate::cgroup::{Controller, Kind, Tree};
use crate::{Feature, Report, sys};

/// What the launcher found.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    pub(crate) kind: Kind,
    pub(crate) root: bool,
    pub(crate) uid_range: bool,
    pub(crate) landlock: u32,
    pub(crate) trial: Result<(), String>,
    pub(crate) cgroup_lacks: Vec<String>,
    pub(crate) tree: &'a Tree,
}

/// Builds the report.
pub(crate) fn report(found: &Findings<'_>) -> Report {
    let works = found.trial.is_ok();
    let mut features = vec![
        namespaces(found),
        feature("uid-range", found.root && found.uid_range)
            .says("each sandbox has a host uid of its own", "all sandboxes share the server's uid")
            .remedy("Run the server as root.")
            .required(),
    ];
    let controllers =
        [(Controller::Memory, "memory"), (Controller::Pids, "pids"), (Controller::Cpu, "cpu")];
    for (controller, name) in controllers {
        features.push(limits(found, controller, name));
    }
    features.extend([
        feature("seccomp", works && sys::seccomp_knows(libc::SECCOMP_RET_ERRNO))
            .says("system calls are filtered by an allow-list", "no filter could be installed")
            .remedy("Use a kernel built with CONFIG_SECCOMP_FILTER.")
            .required(),
        feature("no-new-privs", works)
            .says("set-user-id programs gain nothing, all capabilities are dropped", "untried")
            .remedy("See `namespaces`: nothing can be built on this host yet.")
            .required(),
        feature("landlock", works && found.landlock > 0)
            .says(&format!("version {}", found.landlock), "not in this kernel")
            .remedy("Use a kernel with CONFIG_SECURITY_LANDLOCK and `landlock` in its lsm= list."),
        feature("overlayfs", has_filesystem("overlay"))
            .says("in this kernel", "not in this kernel")
            .remedy("Load it with `modprobe overlay`."),
        feature("pidfd", true).says("processes are held by descriptor", "").required(),
    ]);
    Report {
        features: features.into_iter().map(|draft| draft.0).collect(),
        cgroup: found.kind.name().to_owned(),
        root: found.root,
    }
}

/// Says in one text what keeps the launcher from full isolation.
pub(crate) fn refusal(report: &Report) -> String {
    let mut lacks: Vec<String> = report
        .missing()
        .map(|lack| {
            let remedy = lack.remedy.as_deref().unwrap_or_default();
            format!("{} ({}). {remedy}", lack.name, lack.detail)
        })
        .collect();
    if !report.root {
        lacks.insert(0, "root (the server is an ordinary user). Run it as root.".to_owned());
    }
    format!("full isolation is required and this host lacks: {}", lacks.join(" "))
}

fn namespaces(found: &Findings<'_>) -> Draft {
    let Err(why) = &found.trial else {
        let good = "user, pid, mount, ipc, uts, network and cgroup";
        return feature("namespaces", true).says(good, "").required();
    };
    let zero = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    let one = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let remedy = if zero("/proc/sys/user/max_user_namespaces") {
        "Allow user namespaces: `sysctl user.max_user_namespaces=65536`."
    } else if !found.root && one("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        "AppArmor forbids user namespaces to ordinary users: run as root, or set \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
    } else if !found.root && zero("/proc/sys/kernel/unprivileged_userns_clone") {
        "Allow user namespaces to ordinary users: `sysctl kernel.unprivileged_userns_clone=1`."
    } else {
        "Linux 5.14 or newer is needed, and inside a container one that may mount (privileged, \
         or with an unmasked /proc)."
    };
    feature("namespaces", false).says("", why).remedy(remedy).required()
}

fn limits(found: &Findings<'_>, controller: Controller, name: &str) -> Draft {
    let remedy = match found.kind {
        Kind::None => "Mount the cgroup file systems.",
        _ if found.root => "Give the server a cgroup that it may divide (systemd: `Delegate=yes`).",
        _ => {
            "Run as root, or in a delegated cgroup (`systemd-run --user --scope -p Delegate=yes`)."
        }
    };
    let lacks = &found.cgroup_lacks;
    let why = match lacks.iter().find(|lack| lack.contains(name)).or_else(|| lacks.first()) {
        Some(why) => why.clone(),
        None => format!("no {name} controller is in reach"),
    };
    feature(&format!("cgroup-{name}"), found.tree.has(controller))
        .says("a limit for each sandbox", &why)
        .remedy(remedy)
        .required()
}

fn has_filesystem(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().next_back() == Some(name))
}

/// A feature while it is being described.
struct Draft(Feature);

fn feature(name: &str, in_force: bool) -> Draft {
    let (name, detail) = (name.to_owned(), String::new());
    Draft(Feature { name, in_force, required: false, detail, remedy: None })
}

impl Draft {
    fn says(mut self, good: &str, bad: &str) -> Self {
        self.0.detail = if self.0.in_force { good } else { bad }.to_owned();
        self
    }

    fn remedy(mut self, remedy: &str) -> Self {
        self.0.remedy = (!self.0.in_force).then(|| remedy.to_owned());
        self
    }

    fn required(mut self) -> Self {
        self.0.required = true;
        self
    }
}

#[cfg(test)]
mod tests;
