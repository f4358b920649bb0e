//! A stream whose events come to the event loop of whoever uses it.
//!
//! Instances wait in one pool for callers on any thread. If a stream stayed with the loop that it was
//! opened on, each answer would wake that loop's thread only to wake the caller's. Moving costs two
//! system calls, and only where the caller is on another loop than the last one.

use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::net::UnixStream as StdStream;

use bytes::BufMut;
use tokio::net::UnixStream;
use tokio::runtime::{Handle, Id};

/// A stream socket and where its events come.
#[derive(Debug)]
pub(super) struct Homed {
    /// Absent once moving it has failed, as without descriptors or memory: as if closed.
    stream: Option<UnixStream>,
    home: Id,
}

impl Homed {
    /// Takes a stream, for the present event loop.
    pub(super) fn open(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: Some(UnixStream::from_std(stream)?), home: Handle::current().id() })
    }

    /// Lets its events come to the present event loop.
    pub(super) fn move_here(&mut self) {
        let here = Handle::current().id();
        if self.home == here {
            return;
        }
        let moved = |stream: UnixStream| UnixStream::from_std(stream.into_std()?);
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
        self.get()?.try_write_vectored(parts)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.get()?.readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.get()?.writable().await
    }

    fn get(&self) -> io::Result<&UnixStream> {
        self.stream.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
}
