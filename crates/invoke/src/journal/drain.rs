//! Moves the records of closed segments to where everybody reads them.
//!
//! A segment is unlinked only after all its records were taken. A failure leaves it for the next
//! round.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lacewing_model::{Error, Result};
use lacewing_services::Usage;

use super::{Journal, JournalError, Segment, unusable};
use crate::metrics::Metrics;

/// Records that are handed over at a time.
const BATCH: usize = 500;

impl Journal {
    /// Hands all records over to `usage`, and has `metrics` count them; gives their number.
    ///
    /// # Errors
    /// If a segment cannot be read or `usage` does not take its records; nothing is lost.
    pub(crate) async fn drain(self: &Arc<Self>, usage: &Usage, metrics: &Metrics) -> Result<u64> {
        let _one_at_a_time = self.draining.lock().await;
        let journal = self.clone();
        let closed = off_thread(move || journal.rotate()).await?;
        let mut records = 0;
        for path in closed {
            records += drain_segment(path, usage, metrics).await?;
        }
        Ok(records)
    }
}

async fn drain_segment(path: PathBuf, usage: &Usage, metrics: &Metrics) -> Result<u64> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let opened = path.clone();
    let mut segment = off_thread(move || read(&opened, Segment::open(&opened))).await?;
    let mut total = 0;
    for number in 0_u64.. {
        let place = path.clone();
        let (rest, records) = off_thread(move || {
            let records = read(&place, segment.next(BATCH))?;
            Ok((segment, records))
        })
        .await?;
        segment = rest;
        if records.is_empty() {
            break;
        }
        usage.append(&records, Some(&format!("{name}/{number}"))).await?;
        metrics.take(&name, number, records.iter().map(|written| &written.record));
        total += u64::try_from(records.len()).unwrap_or(u64::MAX);
    }
    if let Some(torn) = segment.torn() {
        let (offset, bytes) = (torn.offset, torn.bytes);
        tracing::warn!(segment = name, offset, bytes, "Torn end of a usage journal cut off.");
    }
    off_thread(move || read(&path, std::fs::remove_file(&path))).await?;
    Ok(total)
}

fn read<T>(path: &Path, result: std::io::Result<T>) -> Result<T, JournalError> {
    result.map_err(|source| unusable(path, source))
}

/// Runs what may wait for the disk where that holds up nobody.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let result = done.map_err(|error| Error::internal("usage journal", error))?;
    result.map_err(|error| Error::internal("usage journal", error))
}
