//! Network namespaces as descriptors, and visits to them.
//!
//! The launcher has one thread: while it visits, all of it is there. Every visit ends at home.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sys;

/// A network namespace that lives at least as long as this.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// The one in which this process is.
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// That of a process.
    pub(super) fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))?.into()))
    }

    /// Leaves this one for a new one with nothing but loopback, and not for a visit.
    pub(crate) fn leave() -> io::Result<Self> {
        sys::unshare(UnshareFlags::NEWNET)?;
        Self::current()
    }

    /// Makes one, and does something in it.
    pub(super) fn make<T>(
        home: &Self,
        work: impl FnOnce(&Self) -> io::Result<T>,
    ) -> io::Result<(Self, T)> {
        sys::unshare(UnshareFlags::NEWNET)?;
        let made = Self::current().and_then(|made| {
            let done = work(&made)?;
            Ok((made, done))
        });
        home.enter()?;
        made
    }

    /// Does something in this namespace.
    pub(super) fn visit<T>(
        &self,
        home: &Self,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.enter()?;
        let done = work();
        home.enter()?;
        done
    }

    /// Moves this process into it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(Into::into)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
