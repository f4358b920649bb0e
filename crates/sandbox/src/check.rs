//! Which [`Spec`]s make sense. The server asks before it sends one, to have an error at once; the
//! launcher asks again, because it cannot know what has become of the server.
//!
//! It looks at the text only; what a path leads to is decided where it is opened.

use std::os::fd::RawFd;

use crate::wire::FDS_LIMIT;
use crate::{Furnishing, Mount, Spec};

/// Numbers that a program may be given for its descriptors.
const FD_NUMBERS: std::ops::Range<RawFd> = 0..64;

impl Spec {
    /// Says what is wrong with it and with the numbers of the descriptors that come with it.
    pub(crate) fn check(&self, numbers: &[RawFd]) -> Result<(), String> {
        let invalid = |what: &str| Err(what.to_owned());
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        // It becomes the name of a directory.
        if !(1..=64).contains(&self.name.len())
            || !self.name.chars().all(good)
            || self.name.starts_with('.')
        {
            return invalid("the name must match [A-Za-z0-9_-][A-Za-z0-9._-]{0,63}");
        }
        if !self.argv.first().is_some_and(|program| program.starts_with('/')) {
            return invalid("the program must be an absolute path");
        }
        if numbers.len() + self.listeners.len() + self.mounts.len() + 16 > FDS_LIMIT {
            return invalid("too many descriptors, listeners and mounts");
        }
        let mut distinct = numbers.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != numbers.len() || distinct.iter().any(|one| !FD_NUMBERS.contains(one)) {
            return invalid("the numbers of descriptors must differ and be below 64");
        }
        Ok(())
    }
}

impl Furnishing {
    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.mounts.len() > FDS_LIMIT {
            return Err("too many mounts".to_owned());
        }
        if self.mounts.iter().any(|mount| matches!(mount, Mount::Tmpfs { .. })) {
            return Err("a blank sandbox cannot get another temporary file system".to_owned());
        }
        Ok(())
    }
}
