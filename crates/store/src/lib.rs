//! The storage seam: five small traits, and the two sides of it that live in one process.
//!
//! Everything above works on [`Store`], a bundle of `dyn` traits, and does not know which side it
//! is on:
//!
//! ```text
//!   Records  Blobs  Log  Queue  Leases      traits, in plain data types
//!      |       |     |     |      |
//!      +-------+--+--+-----+------+
//!                 |
//!     embedded: one SQLite database and files        memory: maps behind locks
//! ```
//!
//! A caller may rely on this and on nothing more: one record is atomic; a watch is ordered for each
//! key and never silent about a gap; whatever `put` and `append` answered is on the disk; a lease's
//! token only grows. No transaction spans two keys. One contract suite holds every side to it.
//!
//! Nothing here knows what is stored. Secrets are sealed with [`seal`] before they come here.

use std::pin::Pin;
use std::sync::Arc;

pub mod blobs;
pub mod embedded;
pub mod error;
pub mod key;
pub mod leases;
pub mod log;
pub mod memory;
pub mod queue;
pub mod records;
pub mod seal;
mod signals;

pub use blobs::{BlobAddress, Blobs, ByteStream};
pub use error::{Result, StoreError};
pub use key::{Key, Prefix};
pub use leases::{Lease, Leases};
pub use log::{Log, Offset, Weight};
pub use queue::{Dedup, Depth, Load, Message, MessageId, Peeked, Queue, Receipt};
pub use records::{Change, Expect, Record, Records, Revision, Watch};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The five parts of one store; a clone is another handle of the same store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Small values under keys.
    pub records: Arc<dyn Records>,
    /// Large immutable values under their digest.
    pub blobs: Arc<dyn Blobs>,
    /// Append-only streams.
    pub log: Arc<dyn Log>,
    /// Work to be done at least once.
    pub queue: Arc<dyn Queue>,
    /// Names that one holder has at a time.
    pub leases: Arc<dyn Leases>,
    closer: Option<Arc<embedded::Closer>>,
}

impl Store {
    /// Finishes what was begun, then ends the store's threads and gives up its lock; every handle
    /// answers [`StoreError::Closed`] from then on.
    pub async fn close(self) {
        if let Some(closer) = &self.closer {
            closer.close().await;
        }
    }
}
