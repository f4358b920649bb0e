//! Stopping and continuing all processes of one sandbox, by the freezer of its cgroup.
//!
//! The server writes to a file that the launcher has opened. It never waits: processes stop at
//! their next return from the kernel. See cgroup-v2.rst, `cgroup.freeze`, and freezer-subsystem.rst
//! of the kernel's documentation.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::wire::Gauge;

/// Stops and continues the processes of one sandbox; clones act on the same one.
///
/// Saying what is wanted and doing it are apart, so that the first can be done in order under a
/// lock, and the second, which takes some microseconds, outside of it by several threads.
#[derive(Clone, Debug)]
pub struct Freezer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: OwnedFd,
    words: Words,
    wanted: AtomicBool,
    frozen: Mutex<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Words {
    freeze: &'static [u8],
    thaw: &'static [u8],
}

impl Freezer {
    /// The freezer behind a gauge, if it is one.
    pub(crate) fn of(gauge: Gauge, file: OwnedFd) -> Result<Self, OwnedFd> {
        let words = match gauge {
            Gauge::FreezerState => Words { freeze: b"FROZEN", thaw: b"THAWED" },
            Gauge::Freeze => Words { freeze: b"1", thaw: b"0" },
            _ => return Err(file),
        };
        let (wanted, frozen) = (AtomicBool::new(false), Mutex::new(false));
        Ok(Self(Arc::new(Shared { file, words, wanted, frozen })))
    }

    /// Says whether the processes are to be frozen; [`Self::apply`] does it.
    pub fn want(&self, frozen: bool) {
        self.0.wanted.store(frozen, Ordering::Release);
    }

    /// Makes it as it was said last.
    ///
    /// # Errors
    /// If the kernel refuses, as it does once the sandbox is gone.
    pub fn apply(&self) -> io::Result<()> {
        let shared = &*self.0;
        let mut frozen = shared.frozen.lock();
        let wanted = shared.wanted.load(Ordering::Acquire);
        if *frozen != wanted {
            let word = if wanted { shared.words.freeze } else { shared.words.thaw };
            rustix::io::pwrite(&shared.file, word, 0)?;
            *frozen = wanted;
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody could continue it any more; on v1 it could not even be killed.
        if *self.frozen.get_mut() {
            rustix::io::pwrite(&self.file, self.words.thaw, 0).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn what_was_said_last_is_done_once() {
        let mut seen = tempfile::tempfile().unwrap();
        let freezer = Freezer::of(Gauge::FreezerState, seen.try_clone().unwrap().into()).unwrap();
        let mut written = || {
            let mut text = String::new();
            seen.rewind().unwrap();
            seen.read_to_string(&mut text).unwrap();
            seen.set_len(0).unwrap();
            text
        };
        freezer.apply().unwrap();
        assert_eq!(written(), "", "it was never frozen");
        freezer.want(true);
        freezer.apply().unwrap();
        freezer.apply().unwrap();
        assert_eq!(written(), "FROZEN");
        freezer.want(false);
        freezer.want(true);
        freezer.apply().unwrap();
        assert_eq!(written(), "", "it is frozen already");
        drop(freezer);
        assert_eq!(written(), "THAWED", "nothing stays frozen without somebody to thaw it");
    }

    #[test]
    fn other_gauges_are_no_freezers() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"1").unwrap();
        assert!(Freezer::of(Gauge::MemoryPeak, file.into()).is_err());
    }
}
