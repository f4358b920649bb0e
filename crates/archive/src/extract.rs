//! The second pass: decompressing, counting, and writing beneath one directory.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2, symlinkat};
use rustix::io::Errno;
use zip::read::ZipReadOptions;

use crate::error::{ArchiveError, shorten};
use crate::survey::{Survey, decoded_name, survey};
use crate::tree::{Node, Tree};
use crate::{Caps, Summary, path};

/// Every path is resolved beneath a directory and through no link (openat2(2)).
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;
/// Below this the ratio says nothing: small archives of regular text compress very well.
const RATIO_FROM: u64 = 1 << 20;

/// Checks a whole archive, contents included, without writing anything.
///
/// # Errors
/// Any [`ArchiveError`] but `Io` means that the archive itself is at fault.
pub fn inspect<R: Read + Seek>(reader: R, caps: &Caps) -> Result<Summary, ArchiveError> {
    let mut archive = survey(reader, caps)?;
    let unpacked = unpack(&mut archive, caps, |_, _| Ok(std::io::sink()))?;
    Ok(summary(&archive, unpacked))
}

/// Unpacks an archive into an existing, empty directory that nobody else writes to.
///
/// Directories get mode 0755, files 0644, or 0755 if any x bit was set; everything belongs to the
/// calling user. What was written before an error stays: remove the directory then.
///
/// # Errors
/// Any [`ArchiveError`] but `Io` means that the archive itself is at fault.
pub fn extract<R: Read + Seek>(
    reader: R,
    into: &Path,
    caps: &Caps,
) -> Result<Summary, ArchiveError> {
    let mut archive = survey(reader, caps)?;
    let mut target = Target::open(into)?;
    for (path, node) in archive.tree.iter() {
        if *node == Node::Directory {
            target.directory(path)?;
        }
    }
    let unpacked = unpack(&mut archive, caps, |path, executable| target.file(path, executable))?;
    // Links last: no file is ever written through one.
    for (path, node) in archive.tree.iter() {
        if let Node::Link { target: to } = node {
            target.link(path, to)?;
        }
    }
    Ok(summary(&archive, unpacked))
}

fn summary<R>(archive: &Survey<R>, unpacked: u64) -> Summary {
    let is_leaf = |entry: &(&str, &Node)| *entry.1 != Node::Directory;
    let names = archive.tree.iter().filter(is_leaf).map(|(path, _)| path.to_owned()).collect();
    Summary { entries: archive.entries, unpacked, names }
}

/// Decompresses every file into what `sink` gives for it; answers the bytes it counted.
fn unpack<R: Read + Seek, W: Write>(
    archive: &mut Survey<R>,
    caps: &Caps,
    mut sink: impl FnMut(&str, bool) -> Result<W, ArchiveError>,
) -> Result<u64, ArchiveError> {
    let by_ratio = archive.packed.saturating_mul(caps.ratio).max(RATIO_FROM);
    let mut total = 0_u64;
    let files = archive.zip.files()?;
    while let Some(entry) = files.next() {
        let entry = entry?;
        let name = decoded_name(entry.name_raw(), || entry.name())?;
        let path = path::normal(&name, caps.depth)?;
        let executable = match known(&archive.tree, &path)? {
            Node::File { executable } => *executable,
            Node::Link { .. } | Node::Directory => continue,
        };
        let declared = entry.size();
        let mut file = entry.with_reader(files.reader_mut(), ZipReadOptions::new())?;
        let mut to = sink(&path, executable)?;
        let room = caps.unpacked.min(by_ratio).saturating_sub(total);
        let written = copy(&mut file, &mut to, declared.min(room))?;
        total = total.saturating_add(written);
        if total > caps.unpacked {
            return Err(ArchiveError::TooLarge { cap: caps.unpacked });
        }
        if total > by_ratio {
            return Err(ArchiveError::RatioTooHigh { cap: caps.ratio });
        }
        if written != declared {
            let reason = format!("{:?} has another size than its header says", shorten(&path));
            return Err(ArchiveError::Broken { reason });
        }
    }
    Ok(total)
}

/// What the survey found at `path`; the archive changed under us if that is nothing.
fn known<'a>(tree: &'a Tree, path: &str) -> Result<&'a Node, ArchiveError> {
    match tree.get(path) {
        Some(node) => Ok(node),
        None if path.is_empty() => Ok(&Node::Directory),
        None => Err(ArchiveError::broken("its directory changed while it was read")),
    }
}

/// Copies all of `from`, giving up one chunk after `most` bytes were exceeded.
fn copy(from: &mut impl Read, to: &mut impl Write, most: u64) -> Result<u64, ArchiveError> {
    let mut chunk = vec![0; CHUNK];
    let mut copied = 0_u64;
    loop {
        let got = match from.read(&mut chunk) {
            Ok(0) => return Ok(copied),
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ArchiveError::reading(error)),
        };
        copied = copied.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        if copied > most {
            return Ok(copied);
        }
        let chunk = chunk.get(..got).unwrap_or_default();
        to.write_all(chunk).map_err(|error| ArchiveError::io("writing a file", error))?;
    }
}

/// The directory that is written to, with the directory of the last file kept open.
struct Target {
    root: OwnedFd,
    last: Option<(String, OwnedFd)>,
}

impl Target {
    fn open(path: &Path) -> Result<Self, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| ArchiveError::io("opening the target directory", error))?;
        Ok(Self { root, last: None })
    }

    /// Makes a directory and all above it.
    fn directory(&mut self, path: &str) -> Result<(), ArchiveError> {
        self.within(path)?;
        Ok(())
    }

    fn file(&mut self, path: &str, executable: bool) -> Result<File, ArchiveError> {
        let (parent, name) = split(path);
        let directory = self.within(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
        let file = openat2(directory, name, flags | OFlags::NOFOLLOW, mode, BENEATH)
            .map_err(|error| ArchiveError::io("making a file", error))?;
        // The mode given to open is narrowed by the umask.
        rustix::fs::fchmod(&file, mode)
            .map_err(|error| ArchiveError::io("setting a file's mode", error))?;
        Ok(File::from(file))
    }

    fn link(&mut self, path: &str, target: &str) -> Result<(), ArchiveError> {
        let (parent, name) = split(path);
        let directory = self.within(parent)?;
        symlinkat(target, directory, name).map_err(|error| ArchiveError::io("making a link", error))
    }

    /// The directory `path`, made if it is not there.
    fn within(&mut self, path: &str) -> Result<&OwnedFd, ArchiveError> {
        if path.is_empty() {
            return Ok(&self.root);
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let mut directory = None;
            for part in path.split('/') {
                let above = directory.as_ref().unwrap_or(&self.root);
                directory = Some(enter(above, part)?);
            }
            self.last = directory.map(|directory| (path.to_owned(), directory));
        }
        Ok(self.last.as_ref().map_or(&self.root, |(_, directory)| directory))
    }
}

/// Opens one directory beneath another, making it first if need be.
fn enter(above: impl AsFd, name: &str) -> Result<OwnedFd, ArchiveError> {
    let mode = Mode::from_raw_mode(0o755);
    let made = match mkdirat(above.as_fd(), name, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(ArchiveError::io("making a directory", error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat2(above, name, flags, Mode::empty(), BENEATH)
        .map_err(|error| ArchiveError::io("opening a directory", error))?;
    if made {
        rustix::fs::fchmod(&directory, mode)
            .map_err(|error| ArchiveError::io("setting a directory's mode", error))?;
    }
    Ok(directory)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
