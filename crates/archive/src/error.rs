//! Why an archive was refused.

use std::io;

use zip::result::ZipError;

/// Why an archive was refused, or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are no zip archive at all.
    #[error("it is not a zip archive")]
    NotAnArchive,
    /// The archive has no entries.
    #[error("the archive is empty")]
    Empty,
    /// The archive is damaged or contradicts itself.
    #[error("the archive is broken: {reason}")]
    Broken {
        /// What is wrong with it.
        reason: String,
    },
    /// The archive itself is too large.
    #[error("the archive is larger than {cap} bytes")]
    PackedTooLarge {
        /// The bound.
        cap: u64,
    },
    /// The entries are too large when decompressed.
    #[error("the archive unpacks to more than {cap} bytes")]
    TooLarge {
        /// The bound.
        cap: u64,
    },
    /// The entries expand more than any honest content does.
    #[error("the archive unpacks to more than {cap} times its size")]
    RatioTooHigh {
        /// The bound.
        cap: u64,
    },
    /// There are too many entries.
    #[error("the archive has {found} entries, more than {cap}")]
    TooManyEntries {
        /// The number of entries.
        found: u64,
        /// The bound.
        cap: u64,
    },
    /// A name leads out of the tree, through a link, or is no usable path.
    #[error("the entry {name:?} is not safe: {reason}")]
    UnsafePath {
        /// The name, cut to a readable length.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A symbolic link leads out of the tree.
    #[error("the link {name:?} to {target:?} is not safe")]
    UnsafeLink {
        /// The link.
        name: String,
        /// Where it points.
        target: String,
    },
    /// An entry is a device, a pipe or a socket.
    #[error("the entry {name:?} is neither a file, a directory nor a link")]
    SpecialFile {
        /// The entry.
        name: String,
    },
    /// Two entries have the same path.
    #[error("the path {name:?} occurs twice, which Lacewing does not accept")]
    Duplicate {
        /// The path.
        name: String,
    },
    /// Two entries share bytes of the archive.
    #[error("entries of the archive overlap")]
    Overlapping,
    /// An entry is encrypted.
    #[error("the entry {name:?} is encrypted")]
    Encrypted {
        /// The entry.
        name: String,
    },
    /// The archive uses a feature that is not supported.
    #[error("the archive is not supported: {reason}")]
    Unsupported {
        /// Which feature.
        reason: String,
    },
    /// Reading or writing failed, through no fault of the archive.
    #[error("{operation} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl ArchiveError {
    /// Whether the archive itself is at fault, and not the machine.
    pub const fn is_archives_fault(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }

    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self::Broken { reason: reason.into() }
    }

    pub(crate) fn unsafe_path(name: &str, reason: &'static str) -> Self {
        Self::UnsafePath { name: shorten(name), reason }
    }

    /// An error while reading the archive: bad data is the archive's fault.
    pub(crate) fn reading(source: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match source.kind() {
            InvalidData | InvalidInput | UnexpectedEof => Self::broken(source.to_string()),
            _ => Self::Io { operation: "reading the archive", source },
        }
    }

    pub(crate) fn io(operation: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, source: source.into() }
    }
}

impl From<ZipError> for ArchiveError {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(source) => Self::reading(source),
            ZipError::UnsupportedArchive(reason) => Self::Unsupported { reason: reason.to_owned() },
            ZipError::CompressionMethodNotSupported(method) => {
                Self::Unsupported { reason: format!("compression method {method}") }
            }
            other => Self::broken(other.to_string()),
        }
    }
}

/// Keeps hostile names from flooding messages.
pub(crate) fn shorten(name: &str) -> String {
    const SHOWN: usize = 200;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}
