//! What a caller asks for: one sandbox ([`Spec`]) and the launcher itself ([`LauncherOptions`]).
//!
//! Plain data that travels as JSON from the server to the launcher; nothing here acts.

use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Network, NetworkOptions};

/// How the launcher is set up, once for a server.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LauncherOptions {
    /// Short id of the data directory, `[a-z0-9]{8,40}`: part of the name of every cgroup we make.
    pub owner: String,
    /// Whether to refuse a host that cannot isolate fully.
    pub isolation: Isolation,
    /// Whether [`Limits::cpu_quota`] is put in force.
    pub cpu: Cpu,
    /// First host uid (and gid) of the range that sandboxes get when the launcher is root.
    pub uid_base: u32,
    /// How many uids the range has, which also bounds how many sandboxes can live at once.
    pub uid_count: u32,
    /// Parent of our cgroups, as a path below each hierarchy's mount; the launcher's own when absent.
    pub cgroup_parent: Option<PathBuf>,
    /// A tree whose `usr`, `lib*`, `bin` and `sbin` replace the host's.
    pub root: Option<PathBuf>,
    /// Existing directories below which sources of [`Mount::Bind`] may lie; all others are refused.
    pub sources: Vec<PathBuf>,
    /// One of them, of which sandboxes get what is in it at the start, whoever writes in it later.
    pub shared: Option<PathBuf>,
    /// Programs that may become origins.
    pub origins: Vec<OriginProgram>,
    /// Where `/tmp` directories are kept on disk; in memory when absent.
    pub scratch: Option<ScratchOptions>,
    /// How sandboxes get out.
    pub network: NetworkOptions,
    /// How many empty sandboxes, of the kind that was asked for last, wait for what is to run in
    /// them.
    pub empty: usize,
}

/// A program that may become an origin: the server, which may be told to ask for anything, cannot choose what
/// runs there.
///
/// It has nothing open but `/dev/null` and the other end of its keeper's socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OriginProgram {
    /// As in [`Spec::argv`]; `{}` in it stands for the number with which it is asked for.
    pub argv: Vec<String>,
    /// As in [`Spec::env`].
    pub env: Vec<(String, String)>,
    /// As in [`Spec::cwd`].
    pub cwd: String,
    /// As in [`Spec::mounts`].
    pub mounts: Vec<Mount>,
    /// As in [`Spec::limits`].
    pub limits: Limits,
    /// Numbers of the descriptors that are `/dev/null`.
    pub silent: Vec<RawFd>,
}

impl OriginProgram {
    /// Where it is to run.
    pub(crate) fn spec(&self, name: String, number: u32) -> Spec {
        let number = number.to_string();
        Spec {
            name,
            hostname: "origin".to_owned(),
            argv: self.argv.iter().map(|text| text.replace("{}", &number)).collect(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            mounts: self.mounts.clone(),
            tmp: TmpFs { bytes: 0, inodes: 0 },
            identity: Identity::default(),
            limits: self.limits,
            listeners: Vec::new(),
            network: Network::None,
            role: Role::Origin,
        }
    }
}

/// How the `/tmp` directories are kept on disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchOptions {
    /// A directory on a disk, absolute. Files without a name are made in it, so nothing of them is
    /// ever seen there.
    pub dir: PathBuf,
    /// The size of which the first ones are made.
    pub expected: TmpFs,
    /// Bytes that all of them together may hold before none of them can grow.
    pub most_bytes: u64,
}

/// What to do on a host that lacks a part of the isolation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Refuse to start and name what is missing.
    Required,
    /// Start with what there is and report the rest.
    BestEffort,
}

/// How processor time is shared.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cpu {
    /// By weight only: an idle machine's time goes to whoever wants it, and quotas are not applied.
    Fair,
    /// By weight, and by [`Limits::cpu_quota`] where one is given.
    Hard,
}

/// One sandbox: what runs in it, what it sees and what it may use.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Unique among living sandboxes, `[A-Za-z0-9._-]{1,64}`: the name of the cgroup leaf.
    pub name: String,
    /// Host name inside.
    pub hostname: String,
    /// Program (an absolute path inside) and its arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub cwd: String,
    /// What is mounted over the skeleton, in this order.
    pub mounts: Vec<Mount>,
    /// Size of the private `/tmp`.
    pub tmp: TmpFs,
    /// Ids that the program sees as its own.
    pub identity: Identity,
    /// What it may use.
    pub limits: Limits,
    /// TCP ports on 127.0.0.1 inside, whose listening sockets are handed to the caller.
    pub listeners: Vec<u16>,
    /// What it may reach; never more than the launcher was set up for and the host gives.
    pub network: Network,
    /// What its program is there for.
    pub role: Role,
}

/// What the program of a sandbox is there for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// To run.
    #[default]
    Program,
    /// To wait for a [`Furnishing`]. Nothing hostile may run in it before that: until then its init
    /// can mount.
    Blank,
    /// To be held, once it waits for an invocation, and forked into sandboxes within its own; what
    /// those may touch its own confinement must allow.
    Snapshot,
    /// To be held, once it waits, and forked into sandboxes anywhere. Nothing hostile may ever run in
    /// it: it has no user and no process namespace of its own, and capabilities. It needs a launcher that
    /// is root.
    Origin,
}

/// How the program of a sandbox must wait to be held.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stance {
    /// For its next frame, without other threads.
    Alone,
    /// For its next frame, beside threads that wait for whatever.
    Framed,
    /// For whatever, as all of its threads do.
    Free,
}

/// What must agree in a sandbox that was made ahead, empty, and in the [`Spec`] of who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) tmp: TmpFs,
    pub(crate) identity: Identity,
    pub(crate) network: Network,
    /// Whether its user map has room for sandboxes within it.
    pub(crate) is_snapshot: bool,
    /// Whether it has no user and no process namespace of its own.
    pub(crate) is_origin: bool,
}

impl Kind {
    pub(crate) fn of(spec: &Spec) -> Self {
        Self {
            tmp: spec.tmp,
            identity: spec.identity,
            network: spec.network,
            is_snapshot: spec.role == Role::Snapshot,
            is_origin: spec.role == Role::Origin,
        }
    }
}

/// What a blank sandbox gets before hostile code may run in it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Furnishing {
    /// What is mounted; [`Mount::Bind`] only, as the program's confinement knows what it may write.
    pub mounts: Vec<Mount>,
    /// What the sandbox may use from now on; the limits of single processes stay as they are.
    pub limits: Limits,
}

/// Something mounted into the sandbox; the target must exist in the skeleton or an earlier mount.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// A file or directory of the host: always read-only, without set-user-id and devices.
    Bind {
        /// Absolute path on the host: one of [`LauncherOptions::sources`], or below one by a way
        /// without links and `..`.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether programs may be run from it.
        exec: bool,
    },
    /// An empty writable directory owned by the sandbox, without devices and set-user-id.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Largest size.
        bytes: u64,
        /// Permission bits of its root.
        mode: u32,
    },
}

/// Size of a private temporary file system.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TmpFs {
    /// Largest size in bytes.
    pub bytes: u64,
    /// Largest number of files and directories.
    pub inodes: u64,
}

/// Ids as seen inside.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Default for Identity {
    /// The ids of `sbx_user1051`, the user that functions see on AWS Lambda.
    fn default() -> Self {
        Self { uid: 993, gid: 990 }
    }
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory of all its processes and of its temporary file systems.
    pub memory_bytes: u64,
    /// Processes and threads, not counting our init.
    pub pids: u64,
    /// Share of the processors when they are wanted by others too: 1 to 10,000, 100 is usual.
    pub cpu_weight: u32,
    /// Hard bound on processor time, in force with [`Cpu::Hard`] only.
    pub cpu_quota: Option<CpuQuota>,
    /// Open files of one process (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// Locked memory in bytes (`RLIMIT_MEMLOCK`).
    pub memlock: u64,
    /// Stack in bytes (`RLIMIT_STACK`).
    pub stack: u64,
    /// Size of a core file (`RLIMIT_CORE`).
    pub core: u64,
    /// Processes of the sandbox's user (`RLIMIT_NPROC`), where it has a user of its own.
    pub nproc: Option<u64>,
}

/// So much processor time in each period.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CpuQuota {
    /// Processor time in microseconds.
    pub quota_us: u64,
    /// Length of a period in microseconds.
    pub period_us: u64,
}
