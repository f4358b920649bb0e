//! The usage journal: what every invocation cost, written down before its answer leaves.
//!
//! ```text
//!  append --write(2)--> active segment --rotate--> closed segment --drain--> services.usage
//!                            |                                    then unlinked
//!                   fdatasync every 100 ms
//! ```
//!
//! A record is one frame, `u32 length | u32 CRC-32 | JSON`, both numbers little-endian, and is
//! appended with one write(2). What write(2) has taken is in the page cache and survives the death
//! of the process; a background thread makes it survive a power loss within 100 ms. A memory-mapped
//! file would save the system call, but mapping a file that others can truncate is `unsafe` in
//! Rust, and `unsafe` lives in the sandbox crate only; a write of 400 bytes costs about a
//! microsecond.
//!
//! A segment's name is unique for ever, and the records of a closed one never change: a batch is
//! known by segment and number, so a drain that is repeated after a crash counts nothing twice.
//! A torn tail, left by a power loss, is cut off and reported. It never blocks an answer on the
//! disk, and never fails one: a record that cannot be written is counted as lost.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use lacewing_model::usage::UsageRecord;

mod drain;
mod frame;

pub use frame::{Segment, Torn};

/// How often what was written is made durable.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// Size at which a segment takes no more: reached only if it cannot be drained.
const LARGEST: u64 = 1 << 30;
const EXTENSION: &str = "usage";

/// What can go wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory or a segment in it cannot be made, read or removed.
    #[error("the usage journal cannot use {path}", path = path.display())]
    Use {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that makes the records durable could not be started.
    #[error("the usage journal cannot start its thread")]
    StartThread {
        /// Why.
        source: io::Error,
    },
    /// A record could not be written.
    #[error("a usage record cannot be written")]
    Append {
        /// Why.
        source: io::Error,
    },
    /// A record has no JSON form.
    #[error("a usage record cannot be encoded")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
    /// Nobody drains the journal.
    #[error("the usage journal is full")]
    Full,
}

/// The position behind a record, to wait until it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// The usage journal; ends its thread, after a last sync, when dropped.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// Held while records are handed over.
    draining: tokio::sync::Mutex<()>,
    syncer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    active: Mutex<Active>,
    synced: watch::Sender<Position>,
    lost: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Active {
    file: Arc<File>,
    path: PathBuf,
    bytes: u64,
    /// Records appended since the journal was opened, over all segments.
    position: Position,
    /// Files with writes that are not durable yet, and whether their names are.
    unsynced: Vec<Arc<File>>,
    names_synced: bool,
}

// === Journal ===

impl Journal {
    /// Opens the journal in a directory, which is made if it is missing, and begins a segment.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        std::fs::create_dir_all(directory).map_err(|source| unusable(directory, source))?;
        let active = Active::begin(directory, Position::default())?;
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            active: Mutex::new(active),
            synced: watch::Sender::new(Position::default()),
            lost: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let syncing = shared.clone();
        let syncer = std::thread::Builder::new()
            .name("usage-journal".into())
            .spawn(move || syncing.sync_until_stopped())
            .map_err(|source| JournalError::StartThread { source })?;
        Ok(Self { shared, draining: tokio::sync::Mutex::default(), syncer: Some(syncer) })
    }

    /// Writes a record down. It survives the death of the process from here on.
    ///
    /// # Errors
    /// If the disk does not take it; the record is counted as lost.
    pub fn append(&self, record: &UsageRecord) -> Result<Position, JournalError> {
        let result = frame::encode(record)
            .map_err(|source| JournalError::Encode { source })
            .and_then(|frame| self.shared.active.lock().append(&frame));
        if result.is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Waits until everything up to `position` survives a power loss, at most `patience`; says
    /// whether it does.
    pub async fn synced(&self, position: Position, patience: Duration) -> bool {
        let mut synced = self.shared.synced.subscribe();
        let reached = synced.wait_for(|synced| *synced >= position);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// How many records could not be written.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Closes the present segment, unless it is empty, and lists the closed ones, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn rotate(&self) -> Result<Vec<PathBuf>, JournalError> {
        let directory = &self.shared.directory;
        let active = {
            let mut active = self.shared.active.lock();
            if active.bytes > 0 {
                let next = Active::begin(directory, active.position)?;
                let mut before = std::mem::replace(&mut *active, next);
                active.unsynced.append(&mut before.unsynced);
            }
            active.path.clone()
        };
        let entries = std::fs::read_dir(directory).map_err(|source| unusable(directory, source))?;
        let mut closed = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| unusable(directory, source))?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) && path != active {
                closed.push(path);
            }
        }
        // The names are version 7 UUIDs: their order is that of their making.
        closed.sort_unstable();
        Ok(closed)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(syncer) = self.syncer.take() {
            syncer.thread().unpark();
            if syncer.join().is_err() {
                tracing::error!("The usage journal's thread panicked.");
            }
        }
    }
}

// === Active ===

impl Active {
    fn begin(directory: &Path, position: Position) -> Result<Self, JournalError> {
        let path = directory.join(Uuid::now_v7().to_string()).with_extension(EXTENSION);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(|source| unusable(&path, source))?;
        let (unsynced, names_synced) = (Vec::new(), false);
        Ok(Self { file: Arc::new(file), path, bytes: 0, position, unsynced, names_synced })
    }

    fn append(&mut self, frame: &[u8]) -> Result<Position, JournalError> {
        let length = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        if self.bytes.saturating_add(length) > LARGEST {
            return Err(JournalError::Full);
        }
        if let Err(source) = write_whole(&self.file, frame) {
            // A frame that was written in part would hide all that follow it.
            if let Err(error) = self.file.set_len(self.bytes) {
                tracing::error!(error = %error, "Usage journal not repaired after a failed write.");
                self.bytes = LARGEST;
            }
            return Err(JournalError::Append { source });
        }
        self.bytes += length;
        self.position.0 += 1;
        if self.unsynced.is_empty() || !Arc::ptr_eq(&self.unsynced[0], &self.file) {
            self.unsynced.insert(0, self.file.clone());
        }
        Ok(self.position)
    }
}

/// One write(2); a short one, as on a full disk, is an error.
fn write_whole(mut file: &File, frame: &[u8]) -> io::Result<()> {
    use io::Write;

    let written = file.write(frame)?;
    if written == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

// === Shared ===

impl Shared {
    fn sync_until_stopped(&self) {
        while !self.stop.load(Ordering::Acquire) {
            std::thread::park_timeout(SYNC_EVERY);
            if let Err(error) = self.sync() {
                tracing::error!(error = %error, "Usage records not made durable.");
            }
        }
    }

    /// Makes durable what was written so far, without holding up what is written meanwhile.
    fn sync(&self) -> io::Result<()> {
        let (files, names_synced, position) = {
            let mut active = self.active.lock();
            if active.unsynced.is_empty() {
                return Ok(());
            }
            (std::mem::take(&mut active.unsynced), active.names_synced, active.position)
        };
        let result = self.sync_files(&files, names_synced);
        if result.is_ok() {
            self.synced.send_replace(position);
        } else {
            self.active.lock().unsynced.extend(files);
        }
        result
    }

    fn sync_files(&self, files: &[Arc<File>], names_synced: bool) -> io::Result<()> {
        for file in files {
            file.sync_data()?;
        }
        if !names_synced {
            File::open(&self.directory)?.sync_all()?;
            let mut active = self.active.lock();
            // A segment that was begun meanwhile has a name of its own to be synced.
            if files.iter().any(|file| Arc::ptr_eq(file, &active.file)) {
                active.names_synced = true;
            }
        }
        Ok(())
    }
}

fn unusable(path: &Path, source: io::Error) -> JournalError {
    JournalError::Use { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
