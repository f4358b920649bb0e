//! A value that must not be shown: it has no `Display`, and its `Debug` prints a placeholder.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Wraps a secret so that it cannot reach a log line by accident.
///
/// Serialising a `Secret` writes the value: only types that are sealed before they are stored, or
/// that go to the secret's owner, may contain one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Gives the value itself; every call is a place to review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
