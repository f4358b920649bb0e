//! What an operator can do about a lack: pure functions of what was found about the host.
//!
//! Each text says one thing to do, as a sentence; nothing here looks at the host.

use crate::cgroup::Kind;

/// What the remedies depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) root: bool,
    /// systemd is process 1.
    pub(super) systemd: bool,
    /// `user.max_user_namespaces` is 0.
    pub(super) no_namespaces: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's switch).
    pub(super) no_user_clone: bool,
    /// AppArmor gives user namespaces to programs with a profile only, and we have none (Ubuntu).
    pub(super) apparmor: bool,
}

/// For a host on which no sandbox can be built, for this reason.
pub(super) fn namespaces(facts: &Facts, why: &str) -> &'static str {
    if facts.no_namespaces {
        return "Allow user namespaces: `sysctl user.max_user_namespaces=65536`.";
    }
    if !facts.root && facts.apparmor {
        return "AppArmor forbids user namespaces to programs without a profile: install the one in \
                dist/apparmor (docs/hosts.md says how), or run as root.";
    }
    if !facts.root && facts.no_user_clone {
        return "Allow user namespaces to ordinary users: \
                `sysctl kernel.unprivileged_userns_clone=1`, or run as root.";
    }
    // ENOSPC: one of the limits on namespaces of user_namespaces(7) and namespaces(7).
    if why.contains("os error 28") {
        return "Too many namespaces exist: raise the limits in /proc/sys/user.";
    }
    "Linux 5.14 or newer is needed, and inside a container one that may mount (privileged, or with \
     an unmasked /proc)."
}

/// For a controller whose limits cannot be set; `others` tells whether some controller's can.
pub(super) fn controller(facts: &Facts, kind: Kind, name: &str, others: bool) -> String {
    let text = match (kind, facts.root, facts.systemd) {
        (Kind::None, ..) => "Mount the cgroup file system: `mount -t cgroup2 none /sys/fs/cgroup`.",
        (Kind::V2, false, true) if others => {
            return format!(
                "Let systemd delegate {name} to users: `systemctl edit user@.service`, there \
                 `[Service]` and `Delegate=cpu memory pids`; then log in again."
            );
        }
        (Kind::V2, false, true) => {
            "Start it where systemd runs a manager of this user (`loginctl enable-linger`, then log \
             in again; XDG_RUNTIME_DIR must be set), or as a service with `Delegate=yes`."
        }
        (Kind::V2, false, false) => {
            "Run as root, or in a cgroup that root has made and given to this user: the directory \
             and its cgroup.procs and cgroup.subtree_control."
        }
        (Kind::V2, true, _) if !others => {
            "Give the server a cgroup that it may divide: a service with `Delegate=yes`, or in a \
             container a writable /sys/fs/cgroup of its own."
        }
        // A controller that is off at boot is not in the kernel's list at all.
        (Kind::V2, true, _) => {
            return format!("Switch {name} on at boot: `cgroup_enable={name}` for the kernel.");
        }
        (Kind::V1 | Kind::Hybrid, true, _) => {
            return format!(
                "Mount it: `mount -t cgroup -o {name} none /sys/fs/cgroup/{name}` (with \
                 `cgroup_enable={name}` for the kernel if that fails)."
            );
        }
        (Kind::V1 | Kind::Hybrid, false, _) => {
            "Run as root: controllers of version 1 are not given to users. Or boot with version 2 \
             only (`systemd.unified_cgroup_hierarchy=1` for the kernel)."
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_namespaces_decides_the_remedy() {
        let user = Facts { apparmor: true, no_user_clone: true, ..Facts::default() };
        assert!(namespaces(&user, "").contains("dist/apparmor"));
        let user = Facts { no_user_clone: true, ..Facts::default() };
        assert!(namespaces(&user, "").contains("unprivileged_userns_clone=1"));
        let root = Facts { root: true, apparmor: true, no_user_clone: true, ..Facts::default() };
        assert!(namespaces(&root, "").contains("5.14"));
        assert!(namespaces(&root, "clone: No space left (os error 28)").contains("/proc/sys/user"));
        let none = Facts { no_namespaces: true, ..root };
        assert!(namespaces(&none, "").contains("max_user_namespaces"));
    }

    #[test]
    fn the_kind_of_host_and_the_user_decide_the_remedy_for_a_controller() {
        let facts = |root, systemd| Facts { root, systemd, ..Facts::default() };
        for (kind, root, systemd, others, part) in [
            (Kind::None, true, false, false, "mount -t cgroup2"),
            (Kind::V2, false, true, true, "Let systemd delegate cpu"),
            (Kind::V2, false, true, false, "enable-linger"),
            (Kind::V2, false, false, false, "given to this user"),
            (Kind::V2, true, true, false, "Delegate=yes"),
            (Kind::V2, true, false, true, "cgroup_enable=cpu"),
            (Kind::V1, true, false, true, "mount -t cgroup -o cpu"),
            (Kind::Hybrid, false, true, false, "unified_cgroup_hierarchy=1"),
        ] {
            let text = controller(&facts(root, systemd), kind, "cpu", others);
            assert!(text.contains(part) && text.ends_with('.'), "{kind:?} {root}: {text}");
        }
    }
}
