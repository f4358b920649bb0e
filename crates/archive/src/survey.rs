//! The first pass over an archive: everything about its entries but their contents.

use std::io::{Read, Seek, SeekFrom};

use zip::CompressionMethod;

use zip::read::{ZipFile, ZipReadOptions};
use zip::unstable::read::ZipIterable;

use crate::Caps;
use crate::error::{ArchiveError, shorten};
use crate::path;
use crate::tree::{Node, Tree};

/// The bits of a Unix mode that say what a thing is, and their values (inode(7)).
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive whose entries are known and safe by name.
pub(crate) struct Survey<R> {
    pub(crate) zip: ZipIterable<R>,
    pub(crate) tree: Tree,
    pub(crate) entries: u64,
    pub(crate) packed: u64,
}

/// Reads and checks the directory of an archive.
pub(crate) fn survey<R: Read + Seek>(
    mut reader: R,
    caps: &Caps,
) -> Result<Survey<R>, ArchiveError> {
    let packed = reader.seek(SeekFrom::End(0)).map_err(ArchiveError::reading)?;
    if packed > caps.packed {
        return Err(ArchiveError::PackedTooLarge { cap: caps.packed });
    }
    let looks_like_zip = begins_like_a_zip(&mut reader)?;
    let mut zip =
        ZipIterable::try_new(reader, zip::read::Config::default()).map_err(|error| {
            match (looks_like_zip, ArchiveError::from(error)) {
                (false, ArchiveError::Broken { .. }) => ArchiveError::NotAnArchive,
                (_, error) => error,
            }
        })?;
    let entries = u64::try_from(zip.len()).unwrap_or(u64::MAX);
    if entries == 0 {
        return Err(ArchiveError::Empty);
    }
    if entries > caps.entries {
        return Err(ArchiveError::TooManyEntries { found: entries, cap: caps.entries });
    }
    let tree = read_entries(&mut zip, caps)?;
    Ok(Survey { zip, tree, entries, packed })
}

fn begins_like_a_zip<R: Read + Seek>(reader: &mut R) -> Result<bool, ArchiveError> {
    let mut magic = Vec::with_capacity(4);
    reader.rewind().map_err(ArchiveError::reading)?;
    reader.by_ref().take(4).read_to_end(&mut magic).map_err(ArchiveError::reading)?;
    Ok(magic == b"PK\x03\x04" || magic == b"PK\x05\x06")
}

fn read_entries<R: Read + Seek>(
    zip: &mut ZipIterable<R>,
    caps: &Caps,
) -> Result<Tree, ArchiveError> {
    let mut tree = Tree::default();
    let mut ranges = Vec::new();
    let mut declared = 0_u64;
    let files = zip.files()?;
    while let Some(entry) = files.next() {
        let entry = entry?;
        let name = decoded_name(entry.name_raw(), || entry.name())?;
        if entry.encrypted() {
            return Err(ArchiveError::Encrypted { name: shorten(&name) });
        }
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return Err(ArchiveError::Unsupported { reason: entry.compression().to_string() });
        }
        declared = declared.saturating_add(entry.size());
        if declared > caps.unpacked {
            return Err(ArchiveError::TooLarge { cap: caps.unpacked });
        }
        let path = path::normal(&name, caps.depth)?;
        let start = entry.header_start();
        let mut file = entry.with_reader(files.reader_mut(), ZipReadOptions::new())?;
        let data = file.data_start().ok_or_else(|| ArchiveError::broken("no data offset"))?;
        let end = data.checked_add(file.compressed_size());
        ranges.push((start, end.ok_or_else(|| ArchiveError::broken("an offset overflows"))?));
        match node(&mut file, &name)? {
            Node::Directory if path.is_empty() => {}
            _ if path.is_empty() => return Err(ArchiveError::unsafe_path(&name, "it is the root")),
            node => tree.add(&path, node)?,
        }
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(ArchiveError::Overlapping);
    }
    tree.check()?;
    Ok(tree)
}

/// The name as UTF-8 if it is that, else as the archive says. Many tools write UTF-8 without the
/// flag for it.
pub(crate) fn decoded_name<'a>(
    raw: &[u8],
    declared: impl FnOnce() -> zip::result::ZipResult<std::borrow::Cow<'a, str>>,
) -> Result<String, ArchiveError> {
    match std::str::from_utf8(raw) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Ok(declared()?.into_owned()),
    }
}

fn node<R: Read>(file: &mut ZipFile<'_, R>, name: &str) -> Result<Node, ArchiveError> {
    let mode = file.unix_mode().unwrap_or(0);
    match mode & KIND {
        SYMLINK => Ok(Node::Link { target: link_target(file, name)? }),
        DIRECTORY => Ok(Node::Directory),
        0 | REGULAR if name.ends_with('/') => Ok(Node::Directory),
        0 | REGULAR => Ok(Node::File { executable: mode & 0o111 != 0 }),
        _ => Err(ArchiveError::SpecialFile { name: shorten(name) }),
    }
}

fn link_target<R: Read>(file: &mut ZipFile<'_, R>, name: &str) -> Result<String, ArchiveError> {
    let mut target = Vec::new();
    let most = u64::try_from(path::PATH_BYTES).unwrap_or(u64::MAX);
    file.by_ref().take(most).read_to_end(&mut target).map_err(ArchiveError::reading)?;
    let refuse = |target: &[u8]| ArchiveError::UnsafeLink {
        name: shorten(name),
        target: shorten(&String::from_utf8_lossy(target)),
    };
    if target.is_empty() || target.len() >= path::PATH_BYTES || target.contains(&0) {
        return Err(refuse(&target));
    }
    String::from_utf8(target).map_err(|error| refuse(error.as_bytes()))
}
