//! A stream whose events come to the event loop of whoever uses it.
//!
//! Instances wait in one pool for callers on any thread. If a stream stayed with the loop that it was
//! opened on, each answer would wake that loop's thread only to wake the caller's. Moving costs two
//! system calls, and only where the caller is on another loop than the last one.
//!
//! It listens for what comes, and for room to write only while it has to wait for that: the kernel
//! tells of room each time the other side has read, which would wake us in every invocation.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use bytes::BufMut;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::runtime::{Handle, Id};

/// A stream socket and where its events come.
#[derive(Debug)]
pub(super) struct Homed {
    /// What tokio calls a pipe's end is a descriptor with one direction of events. Absent once
    /// moving it has failed, as without descriptors or memory: as if closed.
    stream: Option<Receiver>,
    home: Id,
}

impl Homed {
    /// Takes a stream, for the present event loop.
    pub(super) fn open(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = Receiver::from_owned_fd_unchecked(OwnedFd::from(stream))?;
        Ok(Self { stream: Some(stream), home: Handle::current().id() })
    }

    /// Lets its events come to the present event loop.
    pub(super) fn move_here(&mut self) {
        let here = Handle::current().id();
        if self.home == here {
            return;
        }
        let moved = |stream: Receiver| -> io::Result<Receiver> {
            Receiver::from_owned_fd_unchecked(stream.into_nonblocking_fd()?)
        };
        match self.stream.take().map(moved) {
            Some(Ok(stream)) => self.stream = Some(stream),
            Some(Err(error)) => tracing::error!(%error, "The stream of an Instance is lost."),
            None => {}
        }
        self.home = here;
    }

    pub(super) fn try_read_buf(&self, into: &mut impl BufMut) -> io::Result<usize> {
        self.get()?.try_read_buf(into)
    }

    pub(super) fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.get()?, parts)?)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.get()?.readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        let other = self.get()?.as_fd().try_clone_to_owned()?;
        Sender::from_owned_fd_unchecked(other)?.writable().await
    }

    fn get(&self) -> io::Result<&Receiver> {
        self.stream.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use bytes::BytesMut;

    use super::*;

    #[test]
    fn it_goes_on_after_its_first_loop_has_ended() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (ours, mut theirs) = StdStream::pair().unwrap();
        let first = runtime().unwrap();
        let mut homed = first.block_on(async { Homed::open(ours).unwrap() });
        let second = runtime().unwrap();
        second.block_on(async { homed.move_here() });
        drop(first);
        theirs.write_all(b"word").unwrap();
        let mut read = BytesMut::new();
        second.block_on(async {
            homed.readable().await.unwrap();
            homed.try_read_buf(&mut read).unwrap();
        });
        assert_eq!(&read[..], b"word");
    }

    #[tokio::test]
    async fn it_waits_for_room_and_writes_all() {
        const LENGTH: usize = 3 << 20;
        let (ours, mut theirs) = StdStream::pair().unwrap();
        let homed = Homed::open(ours).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let sent: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (mut at, mut waits) = (0, 0);
        while at < LENGTH {
            match homed.try_write_vectored(&[IoSlice::new(&sent[at..])]) {
                Ok(written) => at += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    waits += 1;
                    homed.writable().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        drop(homed);
        assert!(reader.join().unwrap() == sent);
        assert!(waits > 0);
    }
}
