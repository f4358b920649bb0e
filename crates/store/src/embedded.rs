//! The store of one process: an SQLite database and files, in one data directory.
//!
//! ```text
//!   requests ----> writer thread: one transaction for all that wait, one fsync, then the answers
//!   questions ---> reader threads, each with a connection of its own
//!   blobs -------> files: written aside, fsync, rename, fsync of the directory
//! ```
//!
//! ```text
//!   <dir>/lock      held while the store is open
//!   <dir>/format    version of everything here
//!   <dir>/store.db  records, log, queues, leases (WAL mode, synchronous=FULL)
//!   <dir>/values/   values that are too large for a row
//!   <dir>/blobs/    <account>/<digest>
//!   <dir>/tmp/      files that are being written; emptied at start
//! ```
//!
//! An answer is given only after its transaction is on the disk. When the disk is full, requests
//! fail with [`StoreError::Full`] and what was answered before stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use lacewing_model::Clock;

use crate::signals::Signals;
use crate::{Result, Revision, Store, StoreError};

mod blobs;
mod calls;
mod database;
mod directory;
mod files;
mod leases;
mod log;
mod queue;
mod readers;
mod records;
mod values;
mod writer;

/// What the parts of one open store have in common.
#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    lock: Mutex<Option<directory::Lock>>,
    streams: Signals,
    queues: Signals,
    values: values::Values,
}

impl Shared {
    fn ensure_open(&self) -> Result<()> {
        if self.lock.lock().is_some() { Ok(()) } else { Err(StoreError::Closed) }
    }
}

/// Ends the threads of an open store and gives up its lock.
#[derive(Debug)]
pub(crate) struct Closer {
    shared: Arc<Shared>,
    readers: readers::Readers,
    writer: writer::Writer,
}

impl Closer {
    pub(crate) async fn close(&self) {
        // The writer's connection goes last: it folds the write-ahead log into the database.
        self.readers.stop().await;
        self.writer.stop().await;
        self.shared.lock.lock().take();
    }
}

/// A data directory that this process alone may use, with a format that it knows. Nothing of it is
/// open yet, and no thread runs.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    lock: directory::Lock,
}

/// Claims `dir`, which is made if it does not exist.
///
/// # Errors
/// [`StoreError::Locked`] if another process has it, [`StoreError::FormatTooNew`] if a newer program
/// has written it.
pub fn claim(dir: &Path) -> Result<Claim> {
    Ok(Claim { lock: directory::prepare(dir)?, dir: dir.to_owned() })
}

/// Claims `dir` and opens the store in it.
///
/// # Errors
/// Those of [`claim`] and [`Claim::open`].
pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Store> {
    claim(dir)?.open(clock)
}

impl Claim {
    /// Whether no store was ever opened here.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn is_new(&self) -> Result<bool> {
        database::exists(&self.dir).map(|exists| !exists)
    }

    /// Opens the store and starts its threads.
    ///
    /// # Errors
    /// If its files cannot be read or written.
    pub fn open(self, clock: Arc<dyn Clock>) -> Result<Store> {
        start(&self.dir, self.lock, clock)
    }
}

fn start(dir: &Path, lock: directory::Lock, clock: Arc<dyn Clock>) -> Result<Store> {
    let mut connection = database::open(dir)?;
    database::migrate(&mut connection, database::MIGRATIONS)?;
    directory::write_format(dir)?;
    let values = values::Values::open(dir)?;
    values.sweep(&connection)?;
    let shared = Arc::new(Shared {
        clock,
        lock: Mutex::new(Some(lock)),
        streams: Signals::default(),
        queues: Signals::default(),
        values,
    });
    let committed = watch::Sender::new(Revision::ZERO);
    let seen = committed.subscribe();
    let readers = readers::Readers::start(dir)?;
    let writer = writer::Writer::start(connection, Arc::clone(&shared), committed)?;
    Ok(Store {
        records: Arc::new(records::EmbeddedRecords::new(
            Arc::clone(&shared),
            writer.clone(),
            readers.clone(),
            seen,
        )),
        blobs: Arc::new(blobs::EmbeddedBlobs::open(dir, Arc::clone(&shared))?),
        log: Arc::new(log::EmbeddedLog::new(Arc::clone(&shared), writer.clone(), readers.clone())),
        queue: Arc::new(queue::EmbeddedQueue::new(
            Arc::clone(&shared),
            writer.clone(),
            readers.clone(),
        )),
        leases: Arc::new(leases::EmbeddedLeases::new(Arc::clone(&shared), writer.clone())),
        closer: Some(Arc::new(Closer { shared, readers, writer })),
    })
}
