//! Log as rows: streams, and entries by stream and position.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use lacewing_model::Timestamp;

use crate::embedded::Shared;
use crate::embedded::calls::Call;
use crate::embedded::database::{from_db, limit, to_db};
use crate::embedded::readers::Readers;
use crate::embedded::values::{Loaded, Stored};
use crate::embedded::writer::{Batch, Writer, failed};
use crate::log::LARGEST_READ;
use crate::{BoxFuture, Dedup, Key, Log, Offset, Prefix, Result, StoreError};

/// Entries that one transaction forgets.
const TRIM: usize = 5_000;
/// Bytes after which a page ends.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

type Entry = (Offset, Timestamp, Bytes);

#[derive(Debug)]
pub(super) struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Writer,
    readers: Readers,
}

/// Which entries to forget.
#[derive(Clone, Copy)]
enum Old {
    Before(Offset),
    Older(Timestamp),
}

impl EmbeddedLog {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer, readers: Readers) -> Self {
        Self { shared, writer, readers }
    }

    async fn look(&self, stream: &Key, from: Offset, max: usize) -> Result<Vec<Entry>> {
        let shared = Arc::clone(&self.shared);
        let stream = stream.clone();
        let max = max.min(LARGEST_READ);
        self.readers.read(move |connection| look(connection, &shared, &stream, from, max)).await
    }

    /// Forgets step by step, so that other requests come in between.
    async fn forget(&self, stream: &Key, old: Old) -> Result<()> {
        loop {
            let stream = stream.clone();
            if self.writer.write(move |batch| trim(batch, &stream, old)).await? < TRIM {
                return Ok(());
            }
        }
    }
}

impl Log for EmbeddedLog {
    fn append<'a>(
        &'a self,
        stream: &'a Key,
        entries: Vec<Bytes>,
        dedup: Option<Dedup>,
    ) -> BoxFuture<'a, Result<Offset>> {
        Box::pin(async move {
            let mut stored = Vec::with_capacity(entries.len());
            for entry in entries {
                stored.push(self.shared.values.store(entry).await?);
            }
            let stream = stream.clone();
            self.writer.write(move |batch| append(batch, stream, stored, dedup.as_ref())).await
        })
    }

    fn read<'a>(
        &'a self,
        stream: &'a Key,
        from: Offset,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            let start = Instant::now();
            let mut waiter = self.shared.streams.waiter(stream);
            loop {
                let found = self.look(stream, from, max).await?;
                let left = wait.saturating_sub(start.elapsed());
                if !found.is_empty() || max == 0 || left.is_zero() {
                    return Ok(found);
                }
                waiter.wait(left).await;
            }
        })
    }

    fn trim<'a>(&'a self, stream: &'a Key, before: Offset) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.forget(stream, Old::Before(before)))
    }

    fn trim_older<'a>(&'a self, stream: &'a Key, before: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.forget(stream, Old::Older(before)))
    }

    fn streams<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<Key>>> {
        let prefix = prefix.clone();
        Box::pin(self.readers.read(move |connection| {
            let sql = "SELECT key FROM streams WHERE key > ?1 AND key < ?2
                       AND EXISTS (SELECT 1 FROM entries WHERE stream = streams.id) ORDER BY key";
            keys(connection, sql, &prefix).map_err(unreadable)
        }))
    }
}

/// The keys under a prefix that a query with its two ends gives.
pub(super) fn keys(
    connection: &Connection,
    sql: &str,
    prefix: &Prefix,
) -> rusqlite::Result<Vec<Key>> {
    let mut statement = connection.prepare_cached(sql)?;
    let keys = statement.query_map(params![prefix.as_str(), prefix.end()], |row| {
        row.get(0).map(|key: String| Key::from_stored(&key))
    })?;
    keys.collect()
}

fn unreadable(error: rusqlite::Error) -> StoreError {
    StoreError::database("read a stream", error)
}

fn look(
    connection: &Connection,
    shared: &Shared,
    stream: &Key,
    from: Offset,
    max: usize,
) -> Result<Vec<Entry>> {
    let sql = "SELECT position, at, spill, value FROM entries
               WHERE stream = (SELECT id FROM streams WHERE key = ?1) AND position >= ?2
               ORDER BY position LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(unreadable)?;
    let mut rows = statement
        .query(params![stream.as_str(), to_db(from.as_u64()), limit(max)])
        .map_err(unreadable)?;
    let (mut entries, mut weight) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(unreadable)? {
        let position = row.get(0).map(from_db).map_err(unreadable)?;
        let at = row.get(1).map(Timestamp::from_micros).map_err(unreadable)?;
        let value = Loaded::from_row(row, 2).map_err(unreadable)?;
        // A file that is gone belongs to an entry that was trimmed meanwhile.
        let Some(value) = shared.values.load(value)? else { continue };
        weight += value.len();
        entries.push((Offset::new(position), at, value));
        if weight >= PAGE_BYTES {
            break;
        }
    }
    Ok(entries)
}

struct Stream {
    id: i64,
    next: u64,
    last: Timestamp,
}

fn append(
    batch: &mut Batch<'_>,
    key: Key,
    entries: Vec<Stored>,
    dedup: Option<&Dedup>,
) -> Result<Offset> {
    let stream = stream(batch, &key)?;
    if let Some(dedup) = dedup {
        if let Some(first) = Call::Append(stream.id).recall(batch, dedup)? {
            return Ok(Offset::new(first));
        }
        Call::Append(stream.id).remember(batch, dedup, stream.next)?;
    }
    let at = stream.last.max(batch.now());
    let mut next = stream.next;
    for entry in entries {
        batch
            .statement(
                "INSERT INTO entries (stream, position, at, spill, value)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                stream.id,
                to_db(next),
                at.as_micros(),
                entry.spill(),
                &entry.inline[..]
            ])
            .map_err(failed)?;
        batch.keep(entry.spilled);
        next += 1;
    }
    batch
        .statement("UPDATE streams SET next = ?2, last = ?3 WHERE id = ?1")?
        .execute(params![stream.id, to_db(next), at.as_micros()])
        .map_err(failed)?;
    batch.wake_stream(key);
    Ok(Offset::new(stream.next))
}

/// The stream's row, made if need be.
fn stream(batch: &Batch<'_>, key: &Key) -> Result<Stream> {
    batch
        .statement(
            "INSERT INTO streams (key, next, last) VALUES (?1, 0, 0)
             ON CONFLICT (key) DO NOTHING",
        )?
        .execute([key.as_str()])
        .map_err(failed)?;
    batch
        .statement("SELECT id, next, last FROM streams WHERE key = ?1")?
        .query_row([key.as_str()], |row| {
            Ok(Stream {
                id: row.get(0)?,
                next: from_db(row.get(1)?),
                last: Timestamp::from_micros(row.get(2)?),
            })
        })
        .map_err(failed)
}

/// Forgets some old entries and answers how many. The times of a stream never decrease, so old
/// entries are always its first.
fn trim(batch: &mut Batch<'_>, key: &Key, old: Old) -> Result<usize> {
    let stream: Option<i64> = batch
        .statement("SELECT id FROM streams WHERE key = ?1")?
        .query_row([key.as_str()], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let (before, since) = match old {
        Old::Before(offset) => (to_db(offset.as_u64()), i64::MAX),
        Old::Older(moment) => (i64::MAX, moment.as_micros()),
    };
    let Some(stream) = stream else { return Ok(0) };
    let first: Vec<(i64, i64, Option<String>)> = batch
        .statement(
            "SELECT position, at, spill FROM entries WHERE stream = ?1
             ORDER BY position LIMIT ?2",
        )?
        .query_map(params![stream, limit(TRIM)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let gone = first.into_iter().take_while(|(position, at, _)| *position < before && *at < since);
    let (mut count, mut last) = (0, None);
    for (position, _, spill) in gone {
        batch.discard(spill);
        (count, last) = (count + 1, Some(position));
    }
    if let Some(last) = last {
        batch
            .statement("DELETE FROM entries WHERE stream = ?1 AND position <= ?2")?
            .execute([stream, last])
            .map_err(failed)?;
    }
    Ok(count)
}
