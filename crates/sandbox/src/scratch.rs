//! Private `/tmp` directories on disk: an ext4 file system of its own for each sandbox, in a sparse
//! file that has no name.
//!
//! Memory and disk are two limits on Lambda, so `/tmp` must not be charged as memory. A process
//! beside the launcher, the *maker*, keeps some file systems ready, so that a start takes one that
//! is mounted already; it alone waits for disks. Each is used once. The sandbox gets the mount, the
//! launcher holds one end of a socket, and when that closes, for whatever reason, a third process,
//! the *breaker*, throws the file system away without writing anything back. Without them the kernel
//! does the same: files without a name and devices without a user free themselves.
//!
//! This module is the launcher's side. It never waits for the maker.

mod bound;
mod breaker;
mod device;
mod image;
mod maker;
mod stock;

use std::io;
use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};

use crate::step::{Failure, Step};
use crate::wire::{receive, send};
use crate::{ScratchOptions, TmpFs, sys};

/// Largest message between launcher, maker and sandbox: a failure in words.
const MESSAGE: usize = 4096;
/// How long the maker may take to end.
const END_TIME: Duration = Duration::from_secs(5);

/// Why `/tmp` is in memory, and is charged as memory.
#[derive(Debug)]
pub(crate) enum InMemory {
    /// The options say so.
    Chosen,
    /// An ordinary user can mount nothing that is on a disk.
    NotRoot,
    /// Something is not there; how to get it.
    Lacks(&'static str),
    /// It was tried, and this came of it.
    Failed(String),
}

/// Launcher to maker; descriptor: the maker's end of the sandbox's socket.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    tmp: TmpFs,
    /// Host uid and gid to whom it shall belong.
    owner: u32,
}

/// Maker to sandbox, and to the launcher once at its start; descriptor: the mount, if there is one.
#[derive(Debug, Deserialize, Serialize)]
struct Made {
    failure: Option<String>,
}

/// The launcher's handle of the maker.
#[derive(Debug)]
pub(crate) struct Scratch {
    options: ScratchOptions,
    maker: Maker,
}

#[derive(Debug)]
struct Maker {
    socket: OwnedFd,
    pid: Pid,
    pidfd: OwnedFd,
}

impl Scratch {
    /// Starts the maker, which begins to make what is expected.
    pub(crate) fn start(options: ScratchOptions) -> Result<Self, InMemory> {
        match Maker::start(&options) {
            Ok(maker) => Ok(Self { options, maker }),
            Err(error) => Err(InMemory::Failed(format!("its maker could not be started: {error}"))),
        }
    }

    /// Waits until the maker has made one; tells why it cannot.
    pub(crate) fn proven(self) -> Result<Self, InMemory> {
        match take(&self.maker.socket) {
            Ok(_) => Ok(self),
            Err(Failure(why)) => {
                self.end();
                Err(InMemory::Failed(why))
            }
        }
    }

    /// Asks for a file system; the mount comes out of the returned end of a socket. It is thrown
    /// away when that end is closed everywhere.
    pub(crate) fn order(&mut self, tmp: TmpFs, owner: u32) -> io::Result<OwnedFd> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let order = Order { tmp, owner };
        let ask =
            |socket: &OwnedFd| send(socket.as_fd(), &order, &[theirs.as_fd()], SendFlags::DONTWAIT);
        match ask(&self.maker.socket) {
            // The latter when it died with orders unread.
            Err(error) if [BrokenPipe, ConnectionReset].contains(&error.kind()) => {
                // Somebody killed it. What it had made lives on without it.
                waitpid(Some(self.maker.pid), WaitOptions::empty())?;
                self.maker = Maker::start(&self.options)?;
                ask(&self.maker.socket)?;
            }
            asked => asked?,
        }
        Ok(ours)
    }

    /// Ends the maker, with all that it has ready.
    pub(crate) fn end(self) {
        let Maker { socket, pid, pidfd } = self.maker;
        drop(socket);
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let most = Timespec::try_from(END_TIME).ok();
        if !matches!(poll(&mut ended, most.as_ref()), Ok(1)) {
            // The kernel tidies up for it.
            pidfd_send_signal(&pidfd, Signal::KILL).ok();
        }
        waitpid(Some(pid), WaitOptions::empty()).ok();
    }
}

impl Maker {
    fn start(options: &ScratchOptions) -> io::Result<Self> {
        let (socket, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        match sys::clone_into(0, None)? {
            sys::Forked::Child => maker::run(&there, options),
            sys::Forked::Parent { pid, pidfd } => Ok(Self { socket, pid, pidfd }),
        }
    }
}

/// Takes the mount that was asked for; waits until it is there.
pub(crate) fn take(from: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    let mut buffer = [0; MESSAGE];
    let made = receive(from.as_fd(), &mut buffer, RecvFlags::empty());
    match made.step("wait for the maker of /tmp")? {
        Some((Made { failure: None }, fds)) => Ok(fds.into_iter().next()),
        Some((Made { failure: Some(why) }, _)) => Err(Failure(why)),
        None => Err(Failure("the maker of /tmp is gone".to_owned())),
    }
}

/// What must be done so that this host has what it takes.
pub(crate) fn lack() -> Option<&'static str> {
    let has = |path: &str| std::fs::exists(path).unwrap_or(false);
    match (has(device::CONTROL), image::tool()) {
        (false, _) => Some("Load the loop device: `modprobe loop`."),
        (_, None) => Some("Install mkfs.ext4 (package e2fsprogs)."),
        _ => None,
    }
}
