//! What a sandbox writes: its standard output and error through one pipe, framed log records
//! through another.
//!
//! At the end of an invocation the pipes are read until they are empty, past the event loop's idea
//! of their readiness, so that all that was written before the answer is in the log.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::Receiver;

use crate::log::LogWriter;
use crate::telemetry_frames::Decoder;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// Bytes read at most before other things get their turn: twice what a pipe holds.
const TURN: usize = 128 * 1024;

/// Our ends of a sandbox's pipes.
#[derive(Debug)]
pub(crate) struct Output {
    text: Pipe,
    records: Pipe,
    decoder: Decoder,
    /// The beginning of a record whose end has not been read yet.
    partial: BytesMut,
}

/// The sandbox's ends.
#[derive(Debug)]
pub(crate) struct Writers {
    pub(crate) text: OwnedFd,
    pub(crate) records: OwnedFd,
}

#[derive(Debug)]
struct Pipe {
    end: Receiver,
    is_closed: bool,
}

// === Output ===

impl Output {
    /// Makes the pipes.
    pub(crate) fn open() -> io::Result<(Self, Writers)> {
        let (text, text_writer) = Pipe::open()?;
        let (records, records_writer) = Pipe::open()?;
        let output = Self { text, records, decoder: Decoder::default(), partial: BytesMut::new() };
        Ok((output, Writers { text: text_writer, records: records_writer }))
    }

    /// Waits until something was written and logs a part of it; may be dropped and called again.
    pub(crate) async fn pump(&mut self, log: &mut LogWriter) {
        tokio::select! {
            () = self.text.ready() => self.read_text(log, Pipe::read_if_ready),
            () = self.records.ready() => self.read_records(log, Pipe::read_if_ready),
        }
    }

    /// Logs all that was written so far.
    pub(crate) fn drain(&mut self, log: &mut LogWriter) {
        self.read_records(log, Pipe::read);
        self.read_text(log, Pipe::read);
    }

    /// Whether something was written that has not been read.
    pub(crate) fn has_unread(&self) -> bool {
        let waits =
            |pipe: &Pipe| rustix::io::ioctl_fionread(&pipe.end).is_ok_and(|bytes| bytes > 0);
        waits(&self.text) || waits(&self.records)
    }

    fn read_text(&mut self, log: &mut LogWriter, read: ReadFn) {
        let mut chunk = [0; CHUNK];
        let mut total = 0;
        while total < TURN {
            let count = read(&mut self.text, &mut chunk);
            if count == 0 {
                return;
            }
            log.output(&chunk[..count]);
            total += count;
        }
    }

    fn read_records(&mut self, log: &mut LogWriter, read: ReadFn) {
        let mut chunk = [0; CHUNK];
        let mut total = 0;
        while total < TURN {
            let count = read(&mut self.records, &mut chunk);
            if count == 0 {
                return;
            }
            self.partial.extend_from_slice(&chunk[..count]);
            self.log_records(log);
            total += count;
        }
    }

    fn log_records(&mut self, log: &mut LogWriter) {
        loop {
            match self.decoder.decode(&mut self.partial) {
                Ok(Some(record)) => log.record(record.at, record.level, record.message),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "A function wrote something else than records.")
                }
            }
        }
    }
}

type ReadFn = fn(&mut Pipe, &mut [u8]) -> usize;

// === Pipe ===

impl Pipe {
    fn open() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self { end: Receiver::from_owned_fd(reader)?, is_closed: false }, writer))
    }

    async fn ready(&self) {
        if self.is_closed || self.end.readable().await.is_err() {
            pending().await
        }
    }

    /// Reads what the event loop says is there; 0 when that was all.
    fn read_if_ready(&mut self, into: &mut [u8]) -> usize {
        let read = self.end.try_read(into);
        self.count(read)
    }

    /// Reads what is there; 0 when there is nothing.
    fn read(&mut self, into: &mut [u8]) -> usize {
        let read = rustix::io::read(&self.end, into).map_err(io::Error::from);
        self.count(read)
    }

    fn count(&mut self, read: io::Result<usize>) -> usize {
        let would_block = |error: &io::Error| {
            let code = error.raw_os_error();
            error.kind() == io::ErrorKind::WouldBlock || code == Some(Errno::INTR.raw_os_error())
        };
        match read {
            Ok(0) => self.is_closed = true,
            Ok(count) => return count,
            Err(error) if would_block(&error) => {}
            Err(_) => self.is_closed = true,
        }
        0
    }
}

#[cfg(test)]
mod tests;
