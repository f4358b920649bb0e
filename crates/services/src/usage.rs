//! What invocations cost: one stream of usage records for each account and region,
//! kept for a time.
//!
//! Bills, budgets and metrics read these records and nothing else, so that they cannot disagree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::usage::{Ending, UsageRecord};
use lacewing_model::{AccountId, Error, FunctionName, Region, Result, Timestamp};
use lacewing_store::{Dedup, Key, Log, Offset};
use serde::Serialize;

use crate::since;

/// The last segment of the streams.
pub(crate) const KIND: &str = "usage";
/// Records appended at once.
const APPEND: usize = 1_000;
/// Records read at once.
const READ: usize = 1_000;
/// Most records that one call looks at.
const SCAN: usize = 20_000;
/// Most records of a page.
const PAGE: usize = 10_000;
/// How long a batch that is appended again is recognised.
const WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct UsageQuery {
    /// Only those of this function.
    pub function: Option<FunctionName>,
    /// None of an invocation that ended before.
    pub since: Option<Timestamp>,
    /// Where an earlier page ended; `since` then says only what is left out.
    pub cursor: Option<u64>,
    /// Most records, at least one.
    pub limit: usize,
}

/// Some records, and where to go on.
#[derive(Clone, Debug, Serialize)]
pub struct UsagePage {
    /// The records, oldest first; none is no end.
    pub records: Vec<UsageRecord>,
    /// Where the next page begins.
    pub cursor: u64,
    /// Whether there may be more at once.
    pub more: bool,
}

/// Sums of some records, and where to go on.
#[derive(Clone, Debug, Serialize)]
pub struct TotalsPage {
    /// The sums by function.
    pub totals: BTreeMap<FunctionName, UsageTotals>,
    /// Where the next part begins.
    pub cursor: u64,
    /// Whether there may be more at once.
    pub more: bool,
}

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
    pub memory_mb_ms: u64,
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
        let memory = u64::from(record.memory_mb).saturating_mul(record.billed_ms);
        self.memory_mb_ms = self.memory_mb_ms.saturating_add(memory);
        self.bytes_in = self.bytes_in.saturating_add(record.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(record.bytes_out);
        self.network_in = self.network_in.saturating_add(record.network_in);
        self.network_out = self.network_out.saturating_add(record.network_out);
    }
}

/// A record with its JSON form, which is kept as it was written down first.
#[derive(Clone, Debug)]
pub struct Written {
    /// The record.
    pub record: UsageRecord,
    /// What it was read from.
    pub json: Bytes,
}

impl TryFrom<UsageRecord> for Written {
    type Error = Error;

    fn try_from(record: UsageRecord) -> Result<Self> {
        let json = serde_json::to_vec(&record)
            .map_err(|error| Error::internal("A usage record could not be written.", error))?;
        Ok(Self { record, json: json.into() })
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
    pub async fn append(&self, records: &[Written], dedup: Option<&str>) -> Result<()> {
        let mut streams: BTreeMap<(&AccountId, &Region), Vec<Bytes>> = BTreeMap::new();
        for Written { record, json } in records {
            streams.entry((&record.account, &record.region)).or_default().push(json.clone());
        }
        for ((account, region), entries) in streams {
            let stream = stream(account, region);
            for (number, part) in entries.chunks(APPEND).enumerate() {
                let dedup = dedup.map(|id| Dedup { id: format!("{id}/{number}"), window: WINDOW });
                self.log.append(&stream, part.to_vec(), dedup).await?;
            }
        }
        Ok(())
    }

    /// A page of records, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(
        &self,
        account: &AccountId,
        region: &Region,
        query: &UsageQuery,
    ) -> Result<UsagePage> {
        let mut records = Vec::new();
        let limit = query.limit.clamp(1, PAGE);
        let take = |record| {
            records.push(record);
            records.len() < limit
        };
        let (cursor, more) = self.scan(&stream(account, region), query, take).await?;
        Ok(UsagePage { records, cursor, more })
    }

    /// Sums of a part of the records, by function: more records than a page has, but not all.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn totals(
        &self,
        account: &AccountId,
        region: &Region,
        query: &UsageQuery,
    ) -> Result<TotalsPage> {
        let mut totals: BTreeMap<FunctionName, UsageTotals> = BTreeMap::new();
        let take = |record: UsageRecord| {
            totals.entry(record.function.clone()).or_default().add(&record);
            true
        };
        let (cursor, more) = self.scan(&stream(account, region), query, take).await?;
        Ok(TotalsPage { totals, cursor, more })
    }

    /// Gives the wanted records to `take` until that wants no more, there are none, or [`SCAN`] were
    /// looked at. Answers the place behind the last one, and whether there is more.
    async fn scan(
        &self,
        stream: &Key,
        query: &UsageQuery,
        mut take: impl FnMut(UsageRecord) -> bool,
    ) -> Result<(u64, bool)> {
        let mut next = match (query.cursor, query.since) {
            (Some(cursor), _) => cursor,
            (None, Some(since)) => since::first(&*self.log, stream, since).await?,
            (None, None) => 0,
        };
        for _ in 0..SCAN / READ {
            let entries = self.log.read(stream, Offset::new(next), READ, Duration::ZERO).await?;
            if entries.is_empty() {
                return Ok((next, false));
            }
            for (offset, _, bytes) in entries {
                next = offset.next().as_u64();
                let record: UsageRecord = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::internal("A usage record is unreadable.", error))?;
                if query.wants(&record) && !take(record) {
                    return Ok((next, true));
                }
            }
        }
        Ok((next, true))
    }
}

impl UsageQuery {
    fn wants(&self, record: &UsageRecord) -> bool {
        self.since.is_none_or(|since| record.at >= since)
            && self.function.as_ref().is_none_or(|function| *function == record.function)
    }
}

fn stream(account: &AccountId, region: &Region) -> Key {
    Key::new(account, region, &[KIND])
}
