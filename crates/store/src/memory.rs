//! The store in memory: for tests, and for what need not outlive the process.
//!
//! Each part is a map behind a lock, held for moments and never across an await. It keeps every
//! sentence of the contract but durability.

use std::sync::Arc;

use lacewing_model::Clock;

use crate::Store;

mod blobs;
mod leases;
mod log;
mod queue;
mod records;

/// Makes an empty store.
pub fn open(clock: Arc<dyn Clock>) -> Store {
    Store {
        records: Arc::new(records::MemoryRecords::default()),
        blobs: Arc::new(blobs::MemoryBlobs::default()),
        log: Arc::new(log::MemoryLog::new(Arc::clone(&clock))),
        queue: Arc::new(queue::MemoryQueue::new(Arc::clone(&clock))),
        leases: Arc::new(leases::MemoryLeases::new(clock)),
        closer: None,
    }
}
