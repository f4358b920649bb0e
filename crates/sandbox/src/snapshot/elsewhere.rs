//! Snapshots on processors whose registers nobody has taught us: there are none, and that is said.

mod order;

use std::os::fd::AsFd;

use rustix::net::SendFlags;

use crate::sys;
use crate::wire::{Verdict, send};

pub(crate) use order::{Charge, FRAMES, Given, Order};

/// Says that there is no snapshot.
pub(crate) fn run(charge: &Charge<'_>) -> ! {
    let why = "snapshots need an x86-64 processor".to_owned();
    send(charge.answer.as_fd(), &Verdict::Unfit { why }, &[], SendFlags::DONTWAIT).ok();
    sys::exit_now(0)
}
