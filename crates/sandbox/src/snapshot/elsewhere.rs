//! Snapshots on processors whose registers nobody has taught us: there are none, and that is said.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::net::SendFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::wire::{Verdict, send};
use crate::{Identity, sys};

/// What the launcher would tell a keeper.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) init: i32,
    pub(crate) joins: usize,
    pub(crate) fds: Vec<RawFd>,
    pub(crate) identity: Identity,
    pub(crate) host: u32,
}

/// What a keeper is started with.
#[derive(Debug)]
pub(crate) struct Charge {
    pub(crate) init: Pid,
    pub(crate) orders: OwnedFd,
    pub(crate) answer: OwnedFd,
    pub(crate) given: Vec<RawFd>,
}

/// Says that there is no snapshot.
pub(crate) fn run(charge: &Charge) -> ! {
    let why = "snapshots need an x86-64 processor".to_owned();
    send(charge.answer.as_fd(), &Verdict::Unfit { why }, &[], SendFlags::DONTWAIT).ok();
    sys::exit_now(0)
}
