//! Unpacked code, by digest: fetched once, unpacked once, shared by all Instances that run it.
//!
//! A package is fetched and unpacked under a temporary name and renamed when it is whole, so that
//! a directory named by a digest is always complete. Callers that want the same one wait for the
//! one who unpacks it. The directory is emptied at start: what a crash or a power loss left there
//! cannot be told from good code.
//!
//! Every file is written and closed by this process before it is renamed, and only the launcher
//! forks: no program is executed while somebody still holds it open for writing.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;

use lacewing_archive::Caps;
use lacewing_model::function::Code;
use lacewing_model::{AccountId, ByteSize, Digest, Error, Result, limits};
use lacewing_store::{BlobAddress, Blobs, StoreError};

/// Unpacked packages that no Instance uses are removed when all together exceed this.
const CAPACITY: ByteSize = ByteSize::mebibytes(8 * 1024);
/// Bytes that are fetched at a time.
const CHUNK: u64 = 8 << 20;
/// Begins the names of what is not whole yet, or not any more.
const TEMPORARY: &str = ".tmp-";
/// Code was inspected when it came; these caps only bound what a broken disk may do to us.
const CAPS: Caps = Caps {
    packed: limits::UNZIPPED.as_bytes(),
    unpacked: limits::UNZIPPED.as_bytes(),
    entries: limits::ZIP_ENTRIES,
    depth: 128,
    ratio: 2_000,
};

/// Name of a custom runtime's program.
const ENTRYPOINT: &str = "bootstrap";

/// The unpacked code of a function; it stays while somebody holds this.
#[derive(Debug)]
pub struct Package {
    directory: PathBuf,
    unpacked: u64,
}

/// All packages of a server.
#[derive(Debug)]
pub struct Packages {
    directory: PathBuf,
    blobs: Arc<dyn Blobs>,
    capacity: u64,
    entries: Mutex<HashMap<Digest, Entry>>,
    /// Counts uses and temporary names.
    counter: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    package: Arc<OnceCell<Arc<Package>>>,
    last_use: u64,
}

/// A directory that is removed unless it was renamed before.
#[derive(Debug)]
struct Temporary(PathBuf);

// === Package ===

impl Package {
    /// Where the code is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A custom runtime must bring a program of a certain name; otherwise says what is wrong.
    pub(crate) fn check_entrypoint(&self) -> Result<(), &'static str> {
        match fs::metadata(self.directory.join(ENTRYPOINT)) {
            Ok(metadata) if metadata.is_file() => {
                let is_executable = metadata.permissions().mode() & 0o111 != 0;
                let denied = "fork/exec /var/task/bootstrap: permission denied";
                is_executable.then_some(()).ok_or(denied)
            }
            Ok(_) | Err(_) => {
                Err("Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")
            }
        }
    }
}

// === Packages ===

impl Packages {
    /// Prepares `directory`, which belongs to this server alone, and empties it.
    ///
    /// # Errors
    /// If the directory cannot be made or emptied.
    pub fn open(directory: PathBuf, blobs: Arc<dyn Blobs>) -> io::Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let capacity = CAPACITY.as_bytes();
        Ok(Self {
            directory,
            blobs,
            capacity,
            entries: Mutex::default(),
            counter: AtomicU64::new(0),
        })
    }

    /// The package of `code`, unpacked now if it is not there.
    ///
    /// # Errors
    /// If the archive cannot be read or unpacked; the next caller tries again.
    pub async fn get(&self, account: &AccountId, code: Code) -> Result<Arc<Package>> {
        let cell = {
            let mut entries = self.entries.lock();
            let entry = entries.entry(code.digest).or_default();
            entry.last_use = self.counter.fetch_add(1, Ordering::Relaxed);
            Arc::clone(&entry.package)
        };
        if let Some(package) = cell.get() {
            return Ok(Arc::clone(package));
        }
        let package = cell.get_or_try_init(|| self.unpack(account, code)).await.map(Arc::clone)?;
        self.evict().await;
        Ok(package)
    }

    async fn unpack(&self, account: &AccountId, code: Code) -> Result<Arc<Package>> {
        let temporary = self.temporary().map_err(|error| failed("make a directory", error))?;
        let archive = temporary.0.join("archive.zip");
        self.fetch(account, code, &archive).await?;
        let directory = self.directory.join(code.digest.to_string());
        let work = move || extract(&temporary, &archive, directory);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| failed("unpack a package", error))?.map(Arc::new)
    }

    /// Copies the archive out of the store.
    async fn fetch(&self, account: &AccountId, code: Code, to: &Path) -> Result<()> {
        let write = |error: io::Error| failed("write a package's archive", error);
        let address = BlobAddress { account: account.clone(), digest: code.digest };
        let mut file = tokio::fs::File::create(to).await.map_err(write)?;
        let mut offset = 0;
        while offset < code.size {
            let end = code.size.min(offset + CHUNK);
            let bytes =
                self.blobs.get(&address, offset..end).await.map_err(|error| match error {
                    // For the caller it is a fault of ours, and no resource that he could have named.
                    StoreError::NotFound => failed(&lost(&address), error),
                    other => other.into(),
                })?;
            if bytes.is_empty() {
                return Err(failed(
                    "read a package's archive",
                    io::Error::from(io::ErrorKind::UnexpectedEof),
                ));
            }
            file.write_all(&bytes).await.map_err(write)?;
            offset += bytes.len() as u64;
        }
        file.flush().await.map_err(write)
    }

    /// Removes the least recently used packages that nobody holds while all exceed the capacity.
    async fn evict(&self) {
        let victims = self.take_victims();
        if victims.is_empty() {
            return;
        }
        let removal = tokio::task::spawn_blocking(move || drop(victims));
        if let Err(error) = removal.await {
            tracing::warn!(%error, "Removing unused packages failed.");
        }
    }

    /// Renamed while the lock is held: a caller that comes later finds the name free.
    fn take_victims(&self) -> Vec<Temporary> {
        let mut entries = self.entries.lock();
        let size = |entry: &Entry| entry.package.get().map_or(0, |package| package.unpacked);
        let mut total: u64 = entries.values().map(size).sum();
        let mut unused: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| entry.is_unused())
            .map(|(digest, entry)| (entry.last_use, *digest))
            .collect();
        unused.sort_unstable();
        let mut victims = Vec::new();
        for (_, digest) in unused {
            if total <= self.capacity {
                break;
            }
            let Some(entry) = entries.remove(&digest) else { continue };
            let Some(package) = entry.package.get() else { continue };
            total -= package.unpacked;
            let away = self.temporary_name();
            if fs::rename(&package.directory, &away).is_ok() {
                victims.push(Temporary(away));
            }
        }
        victims
    }

    fn temporary(&self) -> io::Result<Temporary> {
        let path = self.temporary_name();
        fs::create_dir(&path)?;
        Ok(Temporary(path))
    }

    fn temporary_name(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{TEMPORARY}{number}"))
    }
}

impl Entry {
    /// Whether neither an Instance nor a caller that is about to start one holds the package.
    fn is_unused(&self) -> bool {
        let held = |package: &Arc<Package>| Arc::strong_count(package) > 1;
        Arc::strong_count(&self.package) == 1 && !self.package.get().is_some_and(held)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            let path = self.0.display().to_string();
            tracing::warn!(path, %error, "A temporary directory could not be removed.");
        }
    }
}

/// Unpacks beside the archive and renames what is whole.
fn extract(temporary: &Temporary, archive: &Path, directory: PathBuf) -> Result<Package> {
    let tree = temporary.0.join("tree");
    let unpack = |error: io::Error| failed("unpack a package", error);
    fs::create_dir(&tree).map_err(unpack)?;
    // Sandboxes run as other users than the server, whose umask may keep those out.
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).map_err(unpack)?;
    let file = io::BufReader::new(fs::File::open(archive).map_err(unpack)?);
    let summary = lacewing_archive::extract(file, &tree, &CAPS)
        .map_err(|error| failed("unpack a package", error))?;
    fs::rename(&tree, &directory).map_err(unpack)?;
    Ok(Package { directory, unpacked: summary.unpacked })
}

fn lost(BlobAddress { account, digest }: &BlobAddress) -> String {
    format!("The code {digest} of account {account} is lost.")
}

fn failed(operation: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(operation, source)
}

#[cfg(test)]
mod tests;
