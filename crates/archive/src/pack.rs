//! Packing files into a zip archive whose bytes depend on the files alone.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::error::ArchiveError;
use crate::{Summary, path};

/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;
/// Deepest path that is packed.
const DEPTH: usize = 256;

/// Packs `files`, relative to `dir`, in the order of their names: fixed times, x bit kept, links
/// kept as links. `progress` hears the bytes read so far.
///
/// # Errors
/// `UnsafePath` if a name could not be unpacked again, `Io` if a file cannot be read.
pub fn pack(
    dir: &Path,
    files: &[PathBuf],
    to: impl Write + Seek,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, ArchiveError> {
    let mut names = Vec::with_capacity(files.len());
    for file in files {
        let name = file.to_str().ok_or_else(|| {
            ArchiveError::unsafe_path(&file.to_string_lossy(), "it is not valid UTF-8")
        })?;
        names.push((path::normal(name, DEPTH)?, dir.join(file)));
    }
    names.sort();
    names.dedup();
    let mut zip = ZipWriter::new(to);
    let mut summary = Summary::default();
    for (name, source) in names {
        summary.unpacked += add(&mut zip, &name, &source, summary.unpacked, progress)?;
        summary.entries += 1;
        summary.names.push(name);
    }
    let mut to = zip.finish().map_err(writing)?;
    to.flush().map_err(|error| ArchiveError::io("writing the archive", error))?;
    Ok(summary)
}

fn add<W: Write + Seek>(
    zip: &mut ZipWriter<W>,
    name: &str,
    source: &Path,
    before: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ArchiveError> {
    let reading = |error| ArchiveError::io("reading a file", error);
    let about = fs::symlink_metadata(source).map_err(reading)?;
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    if about.is_symlink() {
        let target = fs::read_link(source).map_err(reading)?;
        let target = target.to_str().ok_or_else(|| {
            ArchiveError::unsafe_path(&target.to_string_lossy(), "it is not valid UTF-8")
        })?;
        zip.add_symlink(name, target, options).map_err(writing)?;
        return Ok(0);
    }
    if !about.is_file() {
        return Err(ArchiveError::SpecialFile { name: name.to_owned() });
    }
    let mode = if about.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    let options = options.unix_permissions(mode).large_file(about.len() >= u64::from(u32::MAX));
    zip.start_file(name, options).map_err(writing)?;
    let mut file = File::open(source).map_err(reading)?;
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let got = match file.read(&mut chunk) {
            Ok(0) => return Ok(done),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading(error)),
        };
        let read = chunk.get(..got).unwrap_or_default();
        zip.write_all(read).map_err(|error| ArchiveError::io("writing the archive", error))?;
        done += u64::try_from(got).unwrap_or(0);
        progress(before + done);
    }
}

fn writing(error: zip::result::ZipError) -> ArchiveError {
    ArchiveError::io("writing the archive", io::Error::other(error))
}
