//! Files that are there completely or not at all, and for good once they are there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::seal;

/// Makes a directory that survives a loss of power.
pub(super) fn ensure_directory(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let path = parent.join(name);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Also when it was there: whoever made it may not have come this far.
    sync_directory(parent)?;
    Ok(path)
}

/// Puts the names in a directory on the disk.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A directory for files that are being written.
#[derive(Clone, Debug)]
pub(super) struct Staging(PathBuf);

/// A file that is being written; it is removed unless it is published.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    published: bool,
}

impl Staging {
    /// Opens the staging directory and empties it.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = ensure_directory(dir, "tmp")?;
        for entry in fs::read_dir(&path)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self(path))
    }

    /// The staging directory as it is.
    pub(super) fn of(dir: &Path) -> Self {
        Self(dir.join("tmp"))
    }

    /// Makes an empty file with a name of its own.
    pub(super) fn create(&self) -> io::Result<(Staged, File)> {
        let path = self.0.join(unique_name());
        let file = File::create_new(&path)?;
        Ok((Staged { path, published: false }, file))
    }

    /// Writes a whole file and publishes it as `directory/name`.
    pub(super) fn write(&self, directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        let (staged, mut file) = self.create()?;
        file.write_all(content)?;
        staged.publish(&file, directory, name)
    }
}

impl Staged {
    /// Moves the file to its final name. When this returns, name and content are on the disk.
    pub(super) fn publish(mut self, file: &File, directory: &Path, name: &str) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(&self.path, directory.join(name))?;
        self.published = true;
        sync_directory(directory)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is removed at the next start.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A file name that nobody has used.
pub(super) fn unique_name() -> String {
    format!("{:032x}", u128::from_ne_bytes(seal::random()))
}
