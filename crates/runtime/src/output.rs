//! What a sandbox writes: its standard output and error through one pipe, framed log records
//! through another.
//!
//! Who writes faster than it may log is not read for a while: then it waits for its pipe, as it would
//! for a slow disk, and costs nobody any processor time.
//!
//! At the end of an invocation the pipes are read until they are empty, past the event loop's idea
//! of their readiness, so that all that was written before the answer is in the log.

use std::future::pending;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::Receiver;
use tokio::time::sleep;

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
        let is_text = tokio::select! {
            () = self.text.ready() => true,
            () = self.records.ready() => false,
        };
        while let Some(wait) = log.wait(TURN) {
            sleep(wait).await;
        }
        match is_text {
            true => self.read_text(log, Pipe::read_if_ready),
            false => self.read_records(log, Pipe::read_if_ready),
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
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut total = 0;
        while total < TURN {
            let text = read(&mut self.text, &mut chunk);
            if text.is_empty() {
                return;
            }
            log.output(text);
            total += text.len();
        }
    }

    fn read_records(&mut self, log: &mut LogWriter, read: ReadFn) {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut total = 0;
        while total < TURN {
            let records = read(&mut self.records, &mut chunk);
            if records.is_empty() {
                return;
            }
            total += records.len();
            self.partial.extend_from_slice(records);
            self.log_records(log);
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

type ReadFn = for<'a> fn(&mut Pipe, &'a mut Chunk) -> &'a [u8];
/// Filled by the kernel: to clear it for each of two reads would cost more than they do.
type Chunk = [MaybeUninit<u8>; CHUNK];

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

    /// Reads what the event loop says is there; nothing when that was all.
    fn read_if_ready<'a>(&mut self, into: &'a mut Chunk) -> &'a [u8] {
        let read = self.end.try_io(|| Ok(rustix::io::read(&self.end, into)?.0));
        self.taken(read)
    }

    /// Reads what is there; nothing when there is nothing.
    fn read<'a>(&mut self, into: &'a mut Chunk) -> &'a [u8] {
        let read = rustix::io::read(&self.end, into).map(|(read, _)| read);
        self.taken(read.map_err(io::Error::from))
    }

    fn taken<'a>(&mut self, read: io::Result<&'a mut [u8]>) -> &'a [u8] {
        let would_block = |error: &io::Error| {
            let code = error.raw_os_error();
            error.kind() == io::ErrorKind::WouldBlock || code == Some(Errno::INTR.raw_os_error())
        };
        match read {
            Ok([]) => self.is_closed = true,
            Ok(read) => return read,
            Err(error) if would_block(&error) => {}
            Err(_) => self.is_closed = true,
        }
        &[]
    }
}

#[cfg(test)]
mod tests;
