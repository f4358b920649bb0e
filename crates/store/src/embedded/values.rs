//! Values that are too large for a row: each is a file of its own, and the row names it.
//!
//! The file is on the disk before the row is, and goes after the row has gone; what a crash leaves
//! between is swept at the next start. A file is never changed and its name never used again, so a
//! reader that finds it missing has read a row that is gone by now, and asks again.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, Row};

use crate::embedded::files::{self, Staging};
use crate::{Result, StoreError};

/// Largest value that is kept in its row.
const INLINE: usize = 256 * 1024;

/// The directory of the large values.
#[derive(Clone, Debug)]
pub(super) struct Values {
    directory: PathBuf,
    staging: Staging,
}

/// A value on its way into a row.
#[derive(Debug)]
pub(super) struct Stored {
    /// Bytes of the value, wherever it lies.
    pub(super) size: u64,
    pub(super) inline: Bytes,
    pub(super) spilled: Option<Spilled>,
}

/// A file that no row names yet; it is removed unless it is kept.
#[derive(Debug)]
pub(super) struct Spilled {
    path: PathBuf,
    name: String,
    kept: bool,
}

/// A value as a row has it.
#[derive(Debug)]
pub(super) struct Loaded {
    inline: Vec<u8>,
    spill: Option<String>,
}

impl Values {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let failed = |error| StoreError::io("open the large values", error);
        let directory = files::ensure_directory(dir, "values").map_err(failed)?;
        Ok(Self { directory, staging: Staging::open(dir).map_err(failed)? })
    }

    /// Removes the files that no row names.
    pub(super) fn sweep(&self, connection: &Connection) -> Result<()> {
        let failed = |error| StoreError::database("list the large values", error);
        let sql = "SELECT spill FROM records WHERE spill IS NOT NULL
                   UNION SELECT spill FROM entries WHERE spill IS NOT NULL
                   UNION SELECT spill FROM messages WHERE spill IS NOT NULL";
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let names = statement.query_map([], |row| row.get(0)).map_err(failed)?;
        let named: HashSet<String> = names.collect::<Result<_, _>>().map_err(failed)?;
        let failed = |error| StoreError::io("sweep the large values", error);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes a value ready for its row: a large one is on the disk when this returns.
    pub(super) async fn store(&self, value: Bytes) -> Result<Stored> {
        let size = value.len() as u64;
        if value.len() <= INLINE {
            return Ok(Stored { size, inline: value, spilled: None });
        }
        let values = self.clone();
        let spilled = tokio::task::spawn_blocking(move || values.write(&value)).await;
        let spilled = spilled.map_err(|_| StoreError::Closed)??;
        Ok(Stored { size, inline: Bytes::new(), spilled: Some(spilled) })
    }

    /// The value that a row stands for; `None` if its file has gone since the row was read.
    pub(super) fn load(&self, loaded: Loaded) -> Result<Option<Bytes>> {
        let Some(name) = loaded.spill else {
            return Ok(Some(loaded.inline.into()));
        };
        match fs::read(self.directory.join(name)) {
            Ok(value) => Ok(Some(value.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read a large value", error)),
        }
    }

    /// Removes the file of a row that is gone. If that fails, the next start sweeps it.
    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.directory.join(name)) {
            tracing::warn!(%error, "A large value could not be removed.");
        }
    }

    fn write(&self, value: &[u8]) -> Result<Spilled> {
        let name = files::unique_name();
        self.staging
            .write(&self.directory, &name, value)
            .map_err(|error| StoreError::io("write a large value", error))?;
        Ok(Spilled { path: self.directory.join(&name), name, kept: false })
    }
}

impl Stored {
    /// The name of the value's file, for its row.
    pub(super) fn spill(&self) -> Option<&str> {
        self.spilled.as_ref().map(|spilled| spilled.name.as_str())
    }
}

impl Spilled {
    /// Leaves the file where it is: a row names it now.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is swept at the next start.
            fs::remove_file(&self.path).ok();
        }
    }
}

impl Loaded {
    /// Takes a value from two columns of a row: the file's name, then the value itself.
    pub(super) fn from_row(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self { spill: row.get(at)?, inline: row.get(at + 1)? })
    }

    /// Whether the value is at hand.
    pub(super) fn is_inline(&self) -> bool {
        self.spill.is_none()
    }

    /// Bytes that this takes in memory now.
    pub(super) fn weight(&self) -> usize {
        self.inline.len()
    }
}
