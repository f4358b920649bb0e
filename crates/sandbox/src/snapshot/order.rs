//! What a keeper is started with and told, the same on every processor. Nothing is done here.

use std::os::fd::{OwnedFd, RawFd};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::Identity;

/// What the launcher tells a keeper; descriptors: the line to the init of the other sandbox, its
/// pidfd, `joins` files of its cgroups, what the program gets.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    /// The init of the other sandbox.
    pub(crate) init: i32,
    pub(crate) joins: usize,
    pub(crate) fds: Vec<RawFd>,
    pub(crate) identity: Identity,
    /// The host's uid and gid of the other sandbox.
    pub(crate) host: u32,
}

/// What a keeper is started with.
#[derive(Debug)]
pub(crate) struct Charge {
    pub(crate) init: Pid,
    /// [`Order`]s come from it; ends with the launcher.
    pub(crate) orders: OwnedFd,
    /// Gets the [`Verdict`](crate::wire::Verdict).
    pub(crate) answer: OwnedFd,
    /// Descriptors that the snapshot may have, as it was given them.
    pub(crate) given: Vec<RawFd>,
}
