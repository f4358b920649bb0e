//! Turns what was found about this host into a [`Report`] with a remedy for each lack.
//!
//! The strongest evidence is a trial: the launcher builds one whole sandbox at its start. What
//! "full" means: namespaces, a uid of its own for each sandbox, limits on memory, processes and
//! processor by cgroup, seccomp and `no_new_privs`. Landlock and a `/tmp` on disk are not part of it:
//! Landlock only repeats by another mechanism what the mounts already enforce, and in memory `/tmp` is
//! as private. What lacks of these is named beside it: see `docs/design/010-hosts.md`.

mod remedy;

use std::fs;
use std::path::Path;

use crate::cgroup::{Controller, Kind, Tree};
use crate::network::Lack;
use crate::scratch::InMemory;
use crate::{Feature, Report, sys};

use remedy::Facts;

/// What the launcher found.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    pub(crate) kind: Kind,
    pub(crate) root: bool,
    pub(crate) uid_range: bool,
    pub(crate) landlock: u32,
    pub(crate) trial: Result<(), String>,
    pub(crate) in_memory: Option<InMemory>,
    pub(crate) cgroup_lacks: Vec<String>,
    pub(crate) tree: &'a Tree,
    /// What is in force of the way out, or why nothing is.
    pub(crate) egress: Result<String, Lack>,
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
        tmp(found.in_memory.as_ref()),
        egress(&found.egress),
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
    let remedy = remedy::namespaces(&facts(found.root), why);
    feature("namespaces", false).says("", why).remedy(remedy).required()
}

fn egress(found: &Result<String, Lack>) -> Draft {
    match found {
        Ok(detail) => feature("egress", true).says(detail, ""),
        Err(lack) => feature("egress", false).says("", &lack.why).remedy(&lack.remedy),
    }
}

fn limits(found: &Findings<'_>, controller: Controller, name: &str) -> Draft {
    let others = [Controller::Memory, Controller::Pids, Controller::Cpu];
    let others = others.into_iter().any(|other| found.tree.has(other));
    let remedy = remedy::controller(&facts(found.root), found.kind, name, others);
    let lacks = &found.cgroup_lacks;
    let why = match lacks.iter().find(|lack| lack.contains(name)).or_else(|| lacks.first()) {
        Some(why) => why.clone(),
        None => format!("no {name} controller is in reach"),
    };
    feature(&format!("cgroup-{name}"), found.tree.has(controller))
        .says("a limit for each sandbox", &why)
        .remedy(&remedy)
        .required()
}

/// Not a part of full isolation: in memory `/tmp` is as private, it only is charged otherwise.
fn tmp(in_memory: Option<&InMemory>) -> Draft {
    let (why, remedy) = match in_memory {
        None => (String::new(), ""),
        Some(InMemory::Chosen) => ("as configured".to_owned(), "Set `[sandbox] tmp = \"disk\"`."),
        Some(InMemory::NotRoot) => {
            ("an ordinary user cannot mount a disk".to_owned(), "Run the server as root.")
        }
        Some(InMemory::Lacks(remedy)) => ("the host lacks a part".to_owned(), *remedy),
        Some(InMemory::Failed(why)) => {
            (why.clone(), "Keep the data directory on a disk with ext4, XFS or btrfs.")
        }
    };
    feature("tmp-disk", in_memory.is_none())
        .says(
            "/tmp is a file system on disk, beside the memory limit",
            &format!("/tmp is in memory and counts as memory: {why}"),
        )
        .remedy(remedy)
}

/// Asks this host what the remedies depend on.
fn facts(root: bool) -> Facts {
    let says = |path: &str, text: &str| fs::read_to_string(path).is_ok_and(|it| it.trim() == text);
    // AppArmor has put the launcher under the second name when it made its user namespace.
    let label = fs::read_to_string("/proc/self/attr/apparmor/current").unwrap_or_default();
    let unnamed = ["unconfined", "unprivileged_userns"].iter().any(|name| label.starts_with(name));
    Facts {
        root,
        systemd: Path::new("/run/systemd/system").is_dir(),
        no_namespaces: says("/proc/sys/user/max_user_namespaces", "0"),
        no_user_clone: says("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        apparmor: says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") && unnamed,
    }
}

/// A feature while it is being described.
pub(crate) struct Draft(pub(crate) Feature);

pub(crate) fn feature(name: &str, in_force: bool) -> Draft {
    let (name, detail) = (name.to_owned(), String::new());
    Draft(Feature { name, in_force, required: false, detail, remedy: None })
}

impl Draft {
    pub(crate) fn says(mut self, good: &str, bad: &str) -> Self {
        self.0.detail = if self.0.in_force { good } else { bad }.to_owned();
        self
    }

    pub(crate) fn remedy(mut self, remedy: &str) -> Self {
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
