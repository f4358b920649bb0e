//! Netlink messages and a socket that sends them: the little that routes and rules need.
//!
//! Requests are answered while they are sent: when `send` returns, every error is in the socket.
//! See netlink(7) and `linux/netlink.h`. Crates for this exist for routes only, and bring a type
//! for every message; what speaks for both families fits here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use crate::sys;

/// `NLM_F_REQUEST`; all we send are requests.
const REQUEST: u16 = 1;
/// `NLM_F_CREATE`: make what is not there.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: refuse what is there.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_APPEND`: put it at the end.
pub(super) const APPEND: u16 = 0x800;
/// `NLM_F_DUMP`: all there are.
pub(super) const DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// Messages for one `send`.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
}

/// One message that is being written.
#[derive(Debug)]
pub(super) struct Message<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Batch {
    /// Adds a message of this type with its fixed part; `write` adds the attributes.
    pub(super) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        write: impl FnOnce(&mut Message<'_>),
    ) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        write(&mut Message { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

impl Message<'_> {
    /// Adds an attribute.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad()
    }

    /// Adds a number in the host's byte order, as routes want it.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a number in the network's byte order, as rules want it.
    pub(super) fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a text with its final zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Adds an attribute of attributes.
    pub(super) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Message<'_>)) -> &mut Self {
        self.nest_after(kind, &[], write)
    }

    /// The same, behind a fixed part.
    pub(super) fn nest_after(
        &mut self,
        kind: u16,
        fixed: &[u8],
        write: impl FnOnce(&mut Message<'_>),
    ) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        self.bytes.extend(fixed);
        write(&mut Message { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) -> &mut Self {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
        self
    }
}

/// A netlink socket of the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// One answer: its type and what follows its header.
pub(super) type Answer = (u16, Vec<u8>);

impl Socket {
    /// For interfaces, addresses and routes.
    pub(super) fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is 0, which is what no protocol means.
        Self::open(None)
    }

    /// For packet filters.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// For what others change of these groups (`RTMGRP_*`): nothing is asked over it.
    pub(super) fn hear(groups: u32) -> io::Result<Self> {
        let socket = Self::route()?;
        rustix::net::bind(&socket.0, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    /// Takes the answers to be about what was asked for only, and not all there are.
    pub(super) fn strict(self) -> io::Result<Self> {
        sys::netlink_strict(self.0.as_fd())?;
        Ok(self)
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        Ok(Self(socket))
    }

    /// Sends all messages and returns the answers, or the first error.
    pub(super) fn ask(&self, batch: &Batch) -> io::Result<Vec<Answer>> {
        send(self.0.as_fd(), &batch.bytes, SendFlags::empty())?;
        self.read()
    }

    /// Reads all that is there; an overflow is an error.
    pub(super) fn read(&self) -> io::Result<Vec<Answer>> {
        let (mut answers, mut failed) = (Vec::new(), None);
        // Not touched beyond what comes: after a clone each page that is written is copied.
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            match recv(self.0.as_fd(), spare_capacity(&mut buffer), RecvFlags::DONTWAIT) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut rest = buffer.as_slice();
            while let Some((kind, body, after)) = split(rest) {
                match kind {
                    NLMSG_ERROR => failed = failed.or_else(|| error_of(body)),
                    NLMSG_DONE => {}
                    _ => answers.push((kind, body.to_vec())),
                }
                rest = after;
            }
        }
        failed.map_or(Ok(answers), Err)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes the first message off: its type, its body, the rest.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The error in an NLMSG_ERROR; 0 is none.
fn error_of(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

/// The attribute of this type among attributes.
pub(super) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) & !NESTED;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}
