//! Sizes in bytes. Lambda counts memory and storage in units of 1,048,576 bytes and calls them MB.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in what Lambda calls one MB.
const MEBIBYTE: u64 = 1 << 20;

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(u64);

impl ByteSize {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// Exactly `bytes` bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `count` times 1,048,576 bytes.
    pub const fn mebibytes(count: u32) -> Self {
        Self(count as u64 * MEBIBYTE)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The number of whole units of 1,048,576 bytes, rounded up, as Lambda reports memory.
    pub const fn as_mebibytes_rounded_up(self) -> u64 {
        self.0.div_ceil(MEBIBYTE)
    }

    /// The sum, or the largest size if it would overflow.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= MEBIBYTE && bytes % MEBIBYTE == 0 => {
                write!(f, "{} MB", bytes / MEBIBYTE)
            }
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}
