//! Finds where in a stream of the log a time begins, without reading what is before.

use std::time::Duration;

use lacewing_model::{Result, Timestamp};
use lacewing_store::{Key, Log, Offset};

/// The place of the first entry that was appended at `since` or later: what an entry tells is never
/// newer than the entry, and entries are in the order of time, so that halving finds it.
pub(crate) async fn first(log: &dyn Log, stream: &Key, since: Timestamp) -> Result<u64> {
    let (mut low, mut step) = (0_u64, 1_u64);
    let mut high = loop {
        let probed = low.saturating_add(step);
        match older(log, stream, probed, since).await? {
            Some(older) => low = older.saturating_add(1),
            None => break probed,
        }
        step = step.saturating_mul(2);
    };
    while low < high {
        let middle = low + (high - low) / 2;
        match older(log, stream, middle, since).await? {
            Some(older) => low = older.saturating_add(1),
            None => high = middle,
        }
    }
    Ok(low)
}

/// The offset of the first entry from `from` on, if it is older than `since`.
async fn older(log: &dyn Log, stream: &Key, from: u64, since: Timestamp) -> Result<Option<u64>> {
    let found = log.read(stream, Offset::new(from), 1, Duration::ZERO).await?;
    Ok(found.first().filter(|(_, at, _)| *at < since).map(|(offset, _, _)| offset.as_u64()))
}
