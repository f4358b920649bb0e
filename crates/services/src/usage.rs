//! What invocations cost: one stream of usage records for each account and region,
//! kept for a time.
//!
//! Bills, budgets and metrics read these records and nothing else, so that they cannot disagree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::usage::{Ending, UsageRecord};
use lacewing_model::{AccountId, Error, Region, Result};
use lacewing_store::{Dedup, Key, Log, Offset};
use serde::Serialize;

/// The last segment of the streams.
pub(crate) const KIND: &str = "usage";
/// Records appended at once.
const APPEND: usize = 1_000;
/// Records read at once.
const READ: usize = 1_000;
/// How long a batch that is appended again is recognised.
const WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// Sums over usage records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsageTotals {
    /// Invocations.
    pub invocations: u64,
    /// Invocations that did not return.
    pub errors: u64,
    /// Invocations that began with an init phase.
    pub cold_starts: u64,
    /// Billed milliseconds.
    pub billed_ms: u64,
    /// Billed milliseconds times configured MB.
    pub memory_mb_ms: u128,
    /// Bytes of all events.
    pub bytes_in: u64,
    /// Bytes of all answers.
    pub bytes_out: u64,
    /// Bytes received from the network.
    pub network_in: u64,
    /// Bytes sent to the network.
    pub network_out: u64,
}

impl UsageTotals {
    fn add(&mut self, record: &UsageRecord) {
        self.invocations += 1;
        self.errors += u64::from(record.ending != Ending::Returned);
        self.cold_starts += u64::from(record.init_us.is_some());
        self.billed_ms = self.billed_ms.saturating_add(record.billed_ms);
        let memory = u128::from(record.memory_mb) * u128::from(record.billed_ms);
        self.memory_mb_ms = self.memory_mb_ms.saturating_add(memory);
        self.bytes_in = self.bytes_in.saturating_add(record.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(record.bytes_out);
        self.network_in = self.network_in.saturating_add(record.network_in);
        self.network_out = self.network_out.saturating_add(record.network_out);
    }
}

/// What invocations cost; cheap to clone.
#[derive(Clone, Debug)]
pub struct Usage {
    log: Arc<dyn Log>,
}

impl Usage {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log }
    }

    /// Appends a batch; the same batch with the same `dedup` counts once, also if the first try
    /// was cut short.
    ///
    /// # Errors
    /// When the store cannot be written; trying again is safe with a `dedup`.
    pub async fn append(&self, records: &[UsageRecord], dedup: Option<&str>) -> Result<()> {
        let mut streams: BTreeMap<Key, Vec<Bytes>> = BTreeMap::new();
        for record in records {
            let bytes = serde_json::to_vec(record)
                .map_err(|error| Error::internal("A usage record could not be written.", error))?;
            streams.entry(stream(&record.account, &record.region)).or_default().push(bytes.into());
        }
        for (stream, entries) in streams {
            for (number, part) in entries.chunks(APPEND).enumerate() {
                let dedup = dedup.map(|id| Dedup { id: format!("{id}/{number}"), window: WINDOW });
                self.log.append(&stream, part.to_vec(), dedup).await?;
            }
        }
        Ok(())
    }

    /// At most `max` records from place `from` on, and the place behind them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(
        &self,
        account: &AccountId,
        region: &Region,
        from: u64,
        max: usize,
    ) -> Result<(Vec<UsageRecord>, u64)> {
        let stream = stream(account, region);
        let max = max.min(READ);
        let entries = self.log.read(&stream, Offset::new(from), max, Duration::ZERO).await?;
        let mut records = Vec::with_capacity(entries.len());
        let mut next = from;
        for (offset, _, bytes) in entries {
            let record = serde_json::from_slice(&bytes)
                .map_err(|error| Error::internal("A usage record is unreadable.", error))?;
            records.push(record);
            next = offset.next().as_u64();
        }
        Ok((records, next))
    }

    /// The sums of all records that are kept; it reads them all.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn totals(&self, account: &AccountId, region: &Region) -> Result<UsageTotals> {
        let mut totals = UsageTotals::default();
        let mut from = 0;
        loop {
            let (records, next) = self.read(account, region, from, READ).await?;
            if records.is_empty() {
                return Ok(totals);
            }
            records.iter().for_each(|record| totals.add(record));
            from = next;
        }
    }
}

fn stream(account: &AccountId, region: &Region) -> Key {
    Key::new(account, region, &[KIND])
}
