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
use crate::{BoxFuture, Dedup, Key, Log, Offset, Prefix, Result, StoreError, Weight};

/// Entries that one transaction forgets.
const TRIM: usize = 5_000;
/// Bytes after which it forgets no more: the pages of every value are read to be freed.
const TRIM_BYTES: i64 = 16 * 1024 * 1024;
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
    /// The first ones, until no more than so many bytes are left.
    Beyond(Weight),
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

    /// Forgets step by step, so that other requests come in between; answers how many bytes.
    async fn forget(&self, stream: &Key, old: Old) -> Result<Weight> {
        let mut forgotten = 0;
        loop {
            let stream = stream.clone();
            let (bytes, is_done) =
                self.writer.write(move |batch| trim(batch, &stream, old)).await?;
            forgotten += bytes;
            if is_done {
                return Ok(forgotten);
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
        Box::pin(async move { self.forget(stream, Old::Before(before)).await.map(drop) })
    }

    fn trim_older<'a>(&'a self, stream: &'a Key, before: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.forget(stream, Old::Older(before)).await.map(drop) })
    }

    fn trim_to<'a>(&'a self, stream: &'a Key, most: Weight) -> BoxFuture<'a, Result<Weight>> {
        Box::pin(self.forget(stream, Old::Beyond(most)))
    }

    fn weigh<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<(Key, Weight)>>> {
        let prefix = prefix.clone();
        Box::pin(
            self.readers.read(move |connection| weigh(connection, &prefix).map_err(unreadable)),
        )
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

fn weigh(connection: &Connection, prefix: &Prefix) -> rusqlite::Result<Vec<(Key, Weight)>> {
    let sql = "SELECT key, bytes FROM streams WHERE key > ?1 AND key < ?2 AND bytes > 0
               ORDER BY key";
    let mut statement = connection.prepare_cached(sql)?;
    let weights = statement.query_map(params![prefix.as_str(), prefix.end()], |row| {
        Ok((Key::from_stored(&row.get::<_, String>(0)?), from_db(row.get(1)?)))
    })?;
    weights.collect()
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
    bytes: Weight,
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
    let (mut next, mut bytes) = (stream.next, stream.bytes);
    for entry in entries {
        batch
            .statement(
                "INSERT INTO entries (stream, position, at, spill, value, size)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                stream.id,
                to_db(next),
                at.as_micros(),
                entry.spill(),
                &entry.inline[..],
                to_db(entry.size)
            ])
            .map_err(failed)?;
        bytes += entry.size;
        batch.keep(entry.spilled);
        next += 1;
    }
    batch
        .statement("UPDATE streams SET next = ?2, last = ?3, bytes = ?4 WHERE id = ?1")?
        .execute(params![stream.id, to_db(next), at.as_micros(), to_db(bytes)])
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
        .statement("SELECT id, next, last, bytes FROM streams WHERE key = ?1")?
        .query_row([key.as_str()], |row| {
            Ok(Stream {
                id: row.get(0)?,
                next: from_db(row.get(1)?),
                last: Timestamp::from_micros(row.get(2)?),
                bytes: from_db(row.get(3)?),
            })
        })
        .map_err(failed)
}

/// Forgets some old entries and answers their bytes, and whether no old ones are left. The times of a
/// stream never decrease, so old entries are always its first.
fn trim(batch: &mut Batch<'_>, key: &Key, old: Old) -> Result<(Weight, bool)> {
    let stream: Option<(i64, i64)> = batch
        .statement("SELECT id, bytes FROM streams WHERE key = ?1")?
        .query_row([key.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(failed)?;
    let Some((stream, bytes)) = stream else { return Ok((0, true)) };
    let first: Vec<(i64, i64, i64, Option<String>)> = batch
        .statement(
            "SELECT position, at, size, spill FROM entries WHERE stream = ?1
             ORDER BY position LIMIT ?2",
        )?
        .query_map(params![stream, limit(TRIM)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let (mut left, mut last, mut is_done) = (bytes, None, first.len() < TRIM);
    for (position, at, size, spill) in first {
        let is_old = match old {
            Old::Before(offset) => position < to_db(offset.as_u64()),
            Old::Older(moment) => at < moment.as_micros(),
            Old::Beyond(most) => left > to_db(most),
        };
        if !is_old || bytes - left >= TRIM_BYTES {
            is_done = !is_old;
            break;
        }
        batch.discard(spill);
        (left, last) = (left - size, Some(position));
    }
    if let Some(last) = last {
        batch
            .statement("DELETE FROM entries WHERE stream = ?1 AND position <= ?2")?
            .execute([stream, last])
            .map_err(failed)?;
        batch
            .statement("UPDATE streams SET bytes = ?2 WHERE id = ?1")?
            .execute([stream, left])
            .map_err(failed)?;
    }
    Ok((from_db(bytes - left), is_done))
}
