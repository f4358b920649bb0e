//! What a keeper is started with and told, the same on every processor. Nothing is done here.

use std::os::fd::{OwnedFd, RawFd};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup::Tree;
use crate::{Identity, Limits, Stance};

/// The descriptor at which a program waits to be held.
pub(crate) const FRAMES: RawFd = 3;

/// What the launcher tells a keeper; descriptors: the line to the init of the other sandbox, its
/// pidfd, the directory of its cgroup of v2, `joins` files of its others, what the program gets.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    /// The init of the other sandbox.
    pub(crate) init: i32,
    /// Whether there is a cgroup of v2.
    pub(crate) is_cloned_into: bool,
    pub(crate) joins: usize,
    pub(crate) fds: Vec<RawFd>,
    pub(crate) identity: Identity,
    /// The host's uid and gid of the other sandbox.
    pub(crate) host: u32,
}

/// What a program has from its start that is to be held.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) fds: Vec<RawFd>,
    /// Device and inode of what each of them was.
    pub(crate) files: Vec<(u64, u64)>,
    /// Where somebody listens in its sandbox, and in that of each copy.
    pub(crate) ports: Vec<u16>,
}

/// What a keeper is started with.
#[derive(Debug)]
pub(crate) struct Charge<'a> {
    pub(crate) init: Pid,
    /// [`Order`]s come from it; ends with the launcher.
    pub(crate) orders: OwnedFd,
    /// Gets the [`Verdict`](crate::wire::Verdict).
    pub(crate) answer: OwnedFd,
    pub(crate) given: Given,
    /// Whether its threads can be made anew depends on what runs in it: it must not have to be told that
    /// it was forked, as Python has to be.
    pub(crate) stance: Stance,
    /// The other end of an origin's socket: it says there that it is ready.
    pub(crate) frames: Option<OwnedFd>,
    /// Whether it is in no user namespace of its own, and may enter any.
    pub(crate) is_origin: bool,
    /// A snapshot's cgroup is divided, for those that it is forked into.
    pub(crate) tree: &'a Tree,
    pub(crate) leaf: String,
    pub(crate) limits: Limits,
    /// Its user, as the host knows it.
    pub(crate) host: u32,
}
