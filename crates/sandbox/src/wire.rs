//! Messages between server, launcher and sandboxes: one JSON document per `SOCK_SEQPACKET` message,
//! descriptors beside it by `SCM_RIGHTS`.
//!
//! Both ends of every socket belong to one version of one program, so the format has no version.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::timing::Stopwatch;
use crate::{
    CpuQuota, Furnishing, LauncherOptions, MemoryUse, Mount, Part, Report, Spec, Stance, Traffic,
};

/// Largest message; an unprivileged socket's default buffer takes it whole.
pub(crate) const MESSAGE_LIMIT: usize = 128 * 1024;
/// Most descriptors beside one message.
pub(crate) const FDS_LIMIT: usize = 64;

/// Server to launcher.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Request {
    /// The first message.
    Options(Box<LauncherOptions>),
    /// Build a sandbox; descriptors: its status socket, then one for each number in `fds`.
    Spawn { id: u64, spec: Box<Spec>, fds: Vec<RawFd> },
    /// Make an origin of one of the programs of the options; descriptor: its status socket.
    Origin { id: u64, program: usize, number: u32 },
    /// The same within a snapshot, or from an origin, which is forked instead of running a program.
    Restore { id: u64, snapshot: u64, spec: Box<Spec>, fds: Vec<RawFd> },
    /// Hold the program of a sandbox as a snapshot; descriptor: what gets the [`Verdict`].
    Hold { id: u64, stance: Stance, ports: Vec<u16> },
    /// Furnish a blank one.
    Furnish { id: u64, furnishing: Box<Furnishing> },
    /// Kill everything in it.
    Kill { id: u64 },
    /// SIGTERM to its program.
    Terminate { id: u64 },
    /// Change its hard bound on processor time.
    Quota { id: u64, quota: Option<CpuQuota> },
}

/// The launcher's only message to the server; beside it, where there is a way out, the sockets of
/// the name server: UDP, TCP.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Greeting {
    Serving(Report),
    Refused(String),
    /// Another launcher of this owner serves.
    Taken,
}

impl From<String> for Greeting {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

/// Sandbox to server, over the status socket.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Status {
    /// Descriptors: the listeners, then the gauges in this order.
    Ready {
        listeners: usize,
        gauges: Vec<Gauge>,
        took: Vec<(Part, Duration)>,
    },
    /// A blank one has its furnishing, and its init can mount no more.
    Furnished,
    Failed {
        message: String,
    },
    Ended {
        how: Ended,
        memory: Option<MemoryUse>,
        traffic: Option<Traffic>,
    },
}

/// Launcher to the init of a sandbox.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Word {
    /// The very first: the user map is written. Descriptors: gauges that it was not made with.
    Begin { gauges: Vec<Gauge> },
    /// The next: whose it is. Descriptors: the status socket, the line to the keeper of a snapshot if
    /// the program comes from one, one for each number in `fds`, one for each [`Mount::Bind`] of the
    /// `spec`.
    Fit { spec: Box<Spec>, is_restored: bool, fds: Vec<RawFd>, watch: Stopwatch },
    /// To a blank one: mount these, which come beside it in this order, and let `/dev/shm` grow so far.
    Furnish { mounts: Vec<Mount>, shm_bytes: u64 },
    /// To a blank one: it cannot be furnished.
    Failed { message: String },
}

/// Keeper of a snapshot to server.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Verdict {
    Held,
    /// It cannot be forked.
    Unfit {
        why: String,
    },
}

/// Between the init of a sandbox and the keeper of the snapshot from which its program comes.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Line {
    /// Everything is mounted; descriptor, where there is Landlock: what the program may touch.
    Fitted,
    /// The program is there, under this id, and init is its parent.
    Adopted {
        pid: i32,
    },
    Failed {
        message: String,
    },
}

/// How the program ended.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// An open file that tells what a sandbox uses.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Gauge {
    /// A single number of bytes.
    MemoryCurrent,
    /// A single number of bytes.
    MemoryPeak,
    /// `key value` lines with `oom_kill`: `memory.oom_control` of v1 and `memory.events` of v2.
    MemoryEvents,
    /// A single number of nanoseconds: `cpuacct.usage` of v1.
    CpuNanos,
    /// `key value` lines with `usage_usec`: `cpu.stat` of v2.
    CpuStat,
    /// `FROZEN` or `THAWED` of v1; it is written.
    FreezerState,
    /// 1 or 0, `cgroup.freeze` of v2; it is written.
    Freeze,
    /// A single number of bytes, of the router's end of its link.
    NetSent,
    /// A single number of bytes, of the router's end of its link.
    NetReceived,
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    send_bytes(socket, &serde_json::to_vec(message)?, fds, flags)
}

/// Sends one message that is already encoded.
pub(crate) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_LIMIT))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = flags | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return sent.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Receives one message and its descriptors (close-on-exec); `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_LIMIT))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            received => break received?,
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    match buffer.get(..received.bytes) {
        None | Some([]) => Ok(None),
        Some(bytes) => Ok(Some((serde_json::from_slice(bytes)?, fds))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (here, there) = pair();
        let null = std::fs::File::open("/dev/null").unwrap();
        let sent = Status::Failed { message: "x".repeat(100_000) };
        send(here.as_fd(), &sent, &[null.as_fd(), null.as_fd()], SendFlags::empty()).unwrap();
        let mut buffer = vec![0; MESSAGE_LIMIT];
        let (got, fds) =
            receive::<Status>(there.as_fd(), &mut buffer, RecvFlags::empty()).unwrap().unwrap();
        assert!(matches!(got, Status::Failed { message } if message.len() == 100_000));
        assert_eq!(fds.len(), 2);
    }

    #[test]
    fn the_end_of_the_peer_is_none() {
        let (here, there) = pair();
        drop(here);
        let mut buffer = vec![0; 16];
        let got = receive::<Status>(there.as_fd(), &mut buffer, RecvFlags::empty()).unwrap();
        assert!(got.is_none());
    }
}
