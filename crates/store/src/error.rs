//! What can go wrong at the seam. Variants name what the caller can act upon; causes are sources.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lacewing_model::{Error, Kind};

use crate::Revision;

/// The result of a storage operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a storage operation failed. It is cheap to clone: one failed commit fails many requests.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The record is not at the revision that the caller expected.
    #[error("the record has changed")]
    Conflict {
        /// The revision it is at; `None` if there is no such record.
        current: Option<Revision>,
    },
    /// There is no such thing, or the receipt or lease does not hold any more.
    #[error("there is no such thing in the store")]
    NotFound,
    /// The watch has missed deletions and cannot say which: list again.
    #[error("the watch fell behind")]
    Gap,
    /// The queues of the message's account hold as much as the caller allows. Nothing was put.
    #[error("the account's queues are full")]
    OverLoad,
    /// The operating system or the database failed.
    #[error("could not {operation}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The cause.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The disk is full. Nothing of the refused operation was kept.
    #[error("the disk is full")]
    Full,
    /// What was read is not what was written.
    #[error("the store is damaged: {detail}")]
    Corrupt {
        /// What is wrong.
        detail: String,
    },
    /// The store was closed, or its writer died.
    #[error("the store is closed")]
    Closed,
    /// A newer program has written the data directory.
    #[error("the data directory has format {found}, this program knows formats up to {known}")]
    FormatTooNew {
        /// The directory's format.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// Another process uses the data directory.
    #[error("the data directory {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A sealed value does not belong to this account and key, was changed, or has another master.
    #[error("the sealed value cannot be opened")]
    Unsealable,
    /// The master key's file is missing, is not the store's key, or others may read it.
    #[error("the master key {} is unusable: {reason}", path.display())]
    MasterKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl StoreError {
    /// Whether the same operation may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full | Self::Io { .. } | Self::Gap)
    }

    pub(crate) fn io(operation: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { operation, source: Arc::new(source) },
        }
    }

    pub(crate) fn database(operation: &'static str, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Corrupt { detail: source.to_string() }
            }
            _ => Self::Io { operation, source: Arc::new(source) },
        }
    }

    pub(crate) fn corrupt(detail: impl Into<String>) -> Self {
        Self::Corrupt { detail: detail.into() }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound => Kind::NotFound,
            StoreError::Conflict { .. } => Kind::PreconditionFailed,
            StoreError::OverLoad => Kind::Unavailable,
            StoreError::Full | StoreError::Closed | StoreError::Gap => Kind::Unavailable,
            _ => return Self::internal("The store failed.", error),
        };
        let public = match kind {
            Kind::NotFound => "The resource does not exist.",
            Kind::PreconditionFailed => "The resource was changed by another request.",
            _ => "The service cannot store data at the moment.",
        };
        Self::new(kind, public).with_internal("The store failed.").with_source(error)
    }
}
