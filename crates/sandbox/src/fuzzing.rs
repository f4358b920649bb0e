//! Doors for the fuzz targets to the messages between server, launcher and sandboxes: the bytes go
//! through a real socket, as those of a program inside would that took over its sandbox's init.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, send, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{MESSAGE_LIMIT, Request, Status, receive};

/// Reads what a server sends as the launcher does; gives it written again, if it is a request.
///
/// # Errors
/// If it is no message.
pub fn request(bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    pass::<Request>(bytes, MESSAGE_LIMIT)
}

/// Reads what a sandbox sends as the server does; gives it written again, if it is a status.
///
/// # Errors
/// If it is no message.
pub fn status(bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    pass::<Status>(bytes, crate::sandbox::STATUS_LIMIT)
}

fn pass<T: DeserializeOwned + Serialize>(bytes: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    send(&here, bytes, SendFlags::DONTWAIT)?;
    let message = receive::<T>(there.as_fd(), &mut vec![0; most], RecvFlags::DONTWAIT)?;
    message.map(|(message, _)| serde_json::to_vec(&message).map_err(Into::into)).transpose()
}
