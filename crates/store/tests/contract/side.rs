//! The sides of the seam, each with a clock that the test moves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::time::ManualClock;
use lacewing_model::{AccountId, Region, Timestamp};
use lacewing_store::{Key, Prefix, Store, embedded, memory};
use tempfile::TempDir;

use crate::mount::Mounted;

/// A store to be tested, and what it stands on.
pub struct Bed {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    ground: Ground,
}

enum Ground {
    Air,
    Directory(TempDir),
    Mount(Mounted),
}

pub trait Side {
    /// A fresh store, or `None` where this machine cannot have one.
    fn make() -> Option<Bed>;
}

pub struct Memory;
pub struct Embedded;
pub struct Forgetful;

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000)))
}

impl Side for Memory {
    fn make() -> Option<Bed> {
        let clock = clock();
        Some(Bed { store: memory::open(clock.clone()), clock, ground: Ground::Air })
    }
}

impl Side for Embedded {
    fn make() -> Option<Bed> {
        let (clock, dir) = (clock(), tempfile::tempdir().expect("a directory"));
        let store = embedded::open(dir.path(), clock.clone()).expect("opens");
        Some(Bed { store, clock, ground: Ground::Directory(dir) })
    }
}

impl Side for Forgetful {
    fn make() -> Option<Bed> {
        let clock = clock();
        let mounted = mounted()?;
        let store = embedded::open(&data_dir(&mounted), clock.clone()).expect("opens");
        Some(Bed { store, clock, ground: Ground::Mount(mounted) })
    }
}

/// Mounts an empty disk; says so if that cannot be.
pub fn mounted() -> Option<Mounted> {
    match Mounted::new() {
        Ok(mounted) => Some(mounted),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Two levels deep, so that making it durably is tested too.
pub fn data_dir(mounted: &Mounted) -> PathBuf {
    mounted.path().join("var/lacewing")
}

impl Bed {
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub async fn end(self) {
        self.store.close().await;
        match self.ground {
            Ground::Air => {}
            Ground::Directory(dir) => dir.close().expect("removed"),
            Ground::Mount(mounted) => drop(mounted),
        }
    }
}

pub fn account() -> AccountId {
    AccountId::new("123456789012").expect("valid")
}

pub fn region() -> Region {
    Region::new("us-east-1").expect("valid")
}

pub fn key(path: &[&str]) -> Key {
    Key::new(&account(), &region(), path)
}

pub fn prefix(path: &[&str]) -> Prefix {
    Prefix::new(&account(), &region(), path)
}

/// A value that is larger than a row takes.
pub fn large(fill: u8) -> Bytes {
    vec![fill; 300 * 1024].into()
}
