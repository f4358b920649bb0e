//! The breaker: a process beside the maker that watches over what was handed out and throws it away.
//!
//! To unmount a file system and free its device takes milliseconds, many of them spent waiting for
//! the kernel's other processors; who waits for a new one shall not wait for that. It lives as long
//! as one of its file systems does, also without the maker.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::sys;
use crate::wire::{receive, send};

use super::bound::{self, ROUND, Valve};

/// The token of the maker's socket.
const CONTROL: u64 = 0;

/// The maker's handle.
#[derive(Debug)]
pub(super) struct Breaker {
    socket: OwnedFd,
    pid: Pid,
}

impl Breaker {
    /// Starts it.
    pub(super) fn start(most_bytes: u64) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match sys::clone_into(0, None)? {
            sys::Forked::Child => {
                sys::close_all_but(&[there.as_raw_fd()]).ok();
                serve(there, most_bytes).ok();
                sys::exit_now(0)
            }
            sys::Forked::Parent { pid, .. } => Ok(Self { socket, pid }),
        }
    }

    /// Gives it a file system, by its root, to throw away when the other end of `until` is closed.
    /// If it cannot be given, the kernel frees it when its sandbox ends, and writes back what it holds.
    pub(super) fn hold(&self, until: &OwnedFd, root: &OwnedFd) -> io::Result<()> {
        send(self.socket.as_fd(), &(), &[until.as_fd(), root.as_fd()], SendFlags::empty())
    }

    /// Waits until nothing is left of what it holds.
    pub(super) fn end(self) {
        drop(self.socket);
        // It may have been killed by somebody.
        waitpid(Some(self.pid), WaitOptions::empty()).ok();
    }
}

/// One that was handed out.
struct Held {
    _until: OwnedFd,
    root: OwnedFd,
    valve: Option<Valve>,
}

impl Held {
    fn turn(&self, full: bool) {
        let Some(valve) = &self.valve else { return };
        // It may be ending just now.
        if full {
            valve.shut(self.root.as_fd()).ok()
        } else {
            valve.open().ok()
        };
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // So that nothing is written back that nobody will read; if it fails that costs only time.
        sys::disk::shut_down(self.root.as_fd()).ok();
    }
}

fn serve(control: OwnedFd, most_bytes: u64) -> io::Result<()> {
    let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(CONTROL);
    epoll::add(&events, &control, data, epoll::EventFlags::IN)?;
    let (mut control, mut held, mut next) = (Some(control), HashMap::new(), CONTROL + 1);
    let (mut buffer, mut full) = ([0; 64], false);
    let round = Timespec::try_from(ROUND).ok();
    while control.is_some() || !held.is_empty() {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let tokens: Vec<u64> =
            match epoll::wait(&events, &mut space, round.as_ref().filter(|_| !held.is_empty())) {
                Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
        for token in tokens {
            let Some(maker) = control.as_ref().filter(|_| token == CONTROL) else {
                held.remove(&token);
                continue;
            };
            let Some(((), fds)) = receive(maker.as_fd(), &mut buffer, RecvFlags::empty())? else {
                control = None;
                continue;
            };
            if let Ok([until, root]) = <[OwnedFd; 2]>::try_from(fds) {
                // The end of the other side is always told. It fails only for want of kernel
                // memory; then the file system stays until this process ends.
                let data = epoll::EventData::new_u64(next);
                epoll::add(&events, &until, data, epoll::EventFlags::empty()).ok();
                let valve = Valve::of(root.as_fd()).ok();
                let one = Held { _until: until, root, valve };
                if full {
                    one.turn(true);
                }
                held.insert(next, one);
                next += 1;
            }
        }
        let holds: u64 = held.values().map(|one| bound::held(&one.root)).sum();
        if full != (holds >= most_bytes) {
            full = !full;
            held.values().for_each(|one| one.turn(full));
        }
    }
    Ok(())
}
