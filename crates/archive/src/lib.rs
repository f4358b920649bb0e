//! Reading, extracting and packing zip archives that come from strangers.
//!
//! An archive is surveyed first: names, kinds, links and byte ranges of all entries, within
//! [`Caps`], before anything is decompressed. Then every entry is decompressed while its bytes are
//! counted, because headers lie. Extraction goes through `openat2` beneath one directory and follows
//! no symbolic link.
//!
//! What it never does: trust a size from a header, leave the target directory, make anything but
//! files, directories and links that stay inside, keep a set-id bit, or panic on hostile input.

mod error;
mod extract;
mod pack;
mod path;
mod survey;
mod tree;

#[cfg(test)]
mod tests;

pub use error::ArchiveError;
pub use extract::{extract, inspect};
pub use pack::pack;

/// The bounds of one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Most bytes of the archive itself.
    pub packed: u64,
    /// Most bytes of all entries together, decompressed.
    pub unpacked: u64,
    /// Most entries.
    pub entries: u64,
    /// Most components of one path.
    pub depth: usize,
    /// Most decompressed bytes for each byte of the archive, once 1 MiB was decompressed.
    pub ratio: u64,
}

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of all entries, decompressed, as they were counted.
    pub unpacked: u64,
    /// Paths of the files and links, relative, sorted.
    pub names: Vec<String>,
}
