//! The data directory itself: who may use it, and what format it has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::embedded::{database, files};
use crate::{Result, StoreError};

const LOCK: &str = "lock";
const FORMAT: &str = "format";

/// The open, locked file: closing it gives up the lock, as does the end of the process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Makes the directory if need be, locks it, and refuses a format that is too new.
pub(super) fn prepare(dir: &Path) -> Result<Lock> {
    make(dir).map_err(|error| StoreError::io("make the data directory", error))?;
    let lock = lock(dir)?;
    let found = read_format(dir)?;
    if found > database::FORMAT {
        return Err(StoreError::FormatTooNew { found, known: database::FORMAT });
    }
    Ok(lock)
}

/// Notes that the directory now has the format that this program writes.
pub(super) fn write_format(dir: &Path) -> Result<()> {
    if read_format(dir)? == database::FORMAT {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        let temporary = dir.join("format.new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{}", database::FORMAT)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(FORMAT))?;
        files::sync_directory(dir)
    };
    write().map_err(|error| StoreError::io("write the format of the data directory", error))
}

/// Makes the directory and what leads to it, so that all of it survives a loss of power.
fn make(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        files::sync_directory(parent)?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<Lock> {
    let failed = |error| StoreError::io("lock the data directory", error);
    let options = OpenOptions::new().create(true).truncate(false).write(true).to_owned();
    let file = options.open(dir.join(LOCK)).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { path: dir.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// The directory's format, 0 for a new one.
fn read_format(dir: &Path) -> Result<u32> {
    let text = match fs::read_to_string(dir.join(FORMAT)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        other => other.map_err(|error| StoreError::io("read the format file", error))?,
    };
    text.trim().parse().map_err(|_| StoreError::corrupt("the format file holds no number"))
}
