//! Records as rows, in the byte order of their keys and by revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::watch;

use crate::embedded::Shared;
use crate::embedded::database::{from_db, limit as db_limit, to_db};
use crate::embedded::readers::Readers;
use crate::embedded::values::{Loaded, Stored};
use crate::embedded::writer::{Batch, Writer, failed};
use crate::records::{ChangeSource, PAGE, Stretch};
use crate::{
    BoxFuture, Change, Expect, Key, Prefix, Record, Records, Result, Revision, StoreError, Watch,
};

/// Deletions that are remembered for watches.
const TOMBSTONES: usize = 10_000;
/// Deletions between two times of forgetting old ones.
const FORGET_EVERY: u32 = 256;
/// Bytes after which a page of a watch ends.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct EmbeddedRecords {
    changes: Arc<Changes>,
    writer: Writer,
    committed: watch::Receiver<Revision>,
    deletions: Arc<AtomicU32>,
}

/// What reads need; a watch has only this, so that it ends when the writer does.
#[derive(Debug)]
struct Changes {
    shared: Arc<Shared>,
    readers: Readers,
}

/// A record whose value may still be in its file.
struct Raw {
    key: Key,
    revision: Revision,
    value: Loaded,
}

impl EmbeddedRecords {
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: Writer,
        readers: Readers,
        committed: watch::Receiver<Revision>,
    ) -> Self {
        let changes = Arc::new(Changes { shared, readers });
        Self { changes, writer, committed, deletions: Arc::default() }
    }
}

impl Records for EmbeddedRecords {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Record>>> {
        let key = key.clone();
        Box::pin(async move {
            let mut found = self.changes.read(move |connection| get(connection, &key)).await?;
            Ok(found.pop())
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        expect: Expect,
    ) -> BoxFuture<'a, Result<Revision>> {
        let key = key.clone();
        Box::pin(async move {
            let stored = self.changes.shared.values.store(value).await?;
            self.writer.write(move |batch| put(batch, &key, stored, expect)).await
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, expect: Expect) -> BoxFuture<'a, Result<Revision>> {
        let key = key.clone();
        let deletions = Arc::clone(&self.deletions);
        Box::pin(self.writer.write(move |batch| {
            let revision = delete(batch, &key, expect)?;
            if deletions.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
                forget(batch)?;
            }
            Ok(revision)
        }))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>>> {
        let start = after.map_or("", Key::as_str).max(prefix.as_str()).to_owned();
        let end = prefix.end();
        let limit = limit.min(PAGE);
        Box::pin(self.changes.read(move |connection| list(connection, &start, &end, limit)))
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move {
            self.changes.shared.ensure_open()?;
            Ok(*self.committed.borrow())
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix, from: Revision) -> BoxFuture<'a, Result<Watch>> {
        Box::pin(async move {
            self.changes.shared.ensure_open()?;
            let source: Arc<dyn ChangeSource> = Arc::<Changes>::clone(&self.changes);
            Ok(Watch::new(source, self.committed.clone(), prefix.clone(), from))
        })
    }
}

// === Reading ===

impl Changes {
    /// Reads rows and the files they name. A file that is gone means that its row has changed
    /// meanwhile: then all is read again.
    async fn read<F>(&self, query: F) -> Result<Vec<Record>>
    where
        F: Fn(&Connection) -> rusqlite::Result<Vec<Raw>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let read = move |connection: &Connection| {
            for _ in 0..100 {
                let rows = query(connection).map_err(unreadable)?;
                if let Some(records) = resolve(&shared, rows)? {
                    return Ok(records);
                }
            }
            Err(StoreError::corrupt("the file of a large value is missing"))
        };
        self.readers.read(read).await
    }
}

impl ChangeSource for Changes {
    fn changes<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Revision,
    ) -> BoxFuture<'a, Result<Stretch>> {
        let shared = Arc::clone(&self.shared);
        let prefix = prefix.clone();
        Box::pin(self.readers.read(move |connection| {
            for _ in 0..100 {
                let (rows, deleted, forgotten) =
                    changes(connection, &prefix, after).map_err(unreadable)?;
                let Some(records) = resolve(&shared, rows)? else { continue };
                let mut changes: Vec<_> =
                    records.into_iter().map(Change::Put).chain(deleted).collect();
                changes.sort_unstable_by_key(Change::revision);
                return Ok(Stretch { changes, forgotten });
            }
            Err(StoreError::corrupt("the file of a large value is missing"))
        }))
    }
}

fn resolve(shared: &Shared, rows: Vec<Raw>) -> Result<Option<Vec<Record>>> {
    let mut records = Vec::with_capacity(rows.len());
    for Raw { key, revision, value } in rows {
        let Some(value) = shared.values.load(value)? else { return Ok(None) };
        records.push(Record { key, value, revision });
    }
    Ok(Some(records))
}

fn unreadable(error: rusqlite::Error) -> StoreError {
    StoreError::database("read records", error)
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let key: String = row.get(0)?;
    let revision = Revision::new(from_db(row.get(1)?));
    Ok(Raw { key: Key::from_stored(&key), revision, value: Loaded::from_row(row, 2)? })
}

fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Vec<Raw>> {
    let sql = "SELECT key, revision, spill, value FROM records WHERE key = ?1";
    connection.prepare_cached(sql)?.query_map([key.as_str()], raw)?.collect()
}

fn list(
    connection: &Connection,
    start: &str,
    end: &str,
    limit: usize,
) -> rusqlite::Result<Vec<Raw>> {
    let sql = "SELECT key, revision, spill, value FROM records
               WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![start, end, db_limit(limit)], raw)?.collect()
}

type RawChanges = (Vec<Raw>, Vec<Change>, Revision);

/// One page of changes from one snapshot. Records and deletions are read apart, so the page ends
/// where the first of the two lists was cut off.
fn changes(
    connection: &Connection,
    prefix: &Prefix,
    after: Revision,
) -> rusqlite::Result<RawChanges> {
    let snapshot = connection.unchecked_transaction()?;
    let forgotten: i64 = snapshot
        .prepare_cached("SELECT forgotten FROM counters")?
        .query_row([], |row| row.get(0))?;
    let range = params![to_db(after.as_u64()), prefix.as_str(), prefix.end(), db_limit(PAGE)];
    // The unary plus keeps the key's index out: the order of revisions is the one that is needed.
    let sql = "SELECT key, revision, spill, value FROM records
               WHERE revision > ?1 AND +key > ?2 AND +key < ?3 ORDER BY revision LIMIT ?4";
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut found = statement.query(range)?;
    let (mut rows, mut weight, mut end) = (Vec::new(), 0, Revision::new(u64::MAX));
    while let Some(row) = found.next()? {
        let row = raw(row)?;
        weight += row.value.weight();
        let revision = row.revision;
        rows.push(row);
        if rows.len() == PAGE || weight >= PAGE_BYTES {
            end = revision;
            break;
        }
    }
    let sql = "SELECT key, revision FROM tombstones
               WHERE revision > ?1 AND +key > ?2 AND +key < ?3 ORDER BY revision LIMIT ?4";
    let mut statement = snapshot.prepare_cached(sql)?;
    let deleted = statement.query_map(range, |row| {
        let key: String = row.get(0)?;
        let revision = Revision::new(from_db(row.get(1)?));
        Ok(Change::Deleted { key: Key::from_stored(&key), revision })
    })?;
    let mut deleted: Vec<Change> = deleted.collect::<Result<_, _>>()?;
    if deleted.len() == PAGE {
        end = end.min(deleted.last().map_or(end, Change::revision));
    }
    rows.retain(|row| row.revision <= end);
    deleted.retain(|change| change.revision() <= end);
    Ok((rows, deleted, Revision::new(from_db(forgotten))))
}

// === Writing ===

struct Current {
    revision: Revision,
    spill: Option<String>,
}

/// What is there now, if it is what was expected.
fn check(batch: &Batch<'_>, key: &Key, expect: Expect) -> Result<Option<Current>> {
    let current = batch
        .statement("SELECT revision, spill FROM records WHERE key = ?1")?
        .query_row([key.as_str()], |row| {
            Ok(Current { revision: Revision::new(from_db(row.get(0)?)), spill: row.get(1)? })
        })
        .optional()
        .map_err(failed)?;
    expect.check(current.as_ref().map(|current| current.revision))?;
    Ok(current)
}

fn put(batch: &mut Batch<'_>, key: &Key, stored: Stored, expect: Expect) -> Result<Revision> {
    let current = check(batch, key, expect)?;
    let revision = batch.next_revision();
    batch
        .statement(
            "INSERT INTO records (key, revision, spill, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE
             SET revision = excluded.revision, spill = excluded.spill, value = excluded.value",
        )?
        .execute(params![
            key.as_str(),
            to_db(revision.as_u64()),
            stored.spill(),
            &stored.inline[..]
        ])
        .map_err(failed)?;
    if current.is_none() {
        batch
            .statement("DELETE FROM tombstones WHERE key = ?1")?
            .execute([key.as_str()])
            .map_err(failed)?;
    }
    batch.discard(current.and_then(|current| current.spill));
    batch.keep(stored.spilled);
    Ok(revision)
}

fn delete(batch: &mut Batch<'_>, key: &Key, expect: Expect) -> Result<Revision> {
    let current = check(batch, key, expect)?.ok_or(StoreError::NotFound)?;
    let revision = batch.next_revision();
    batch
        .statement("DELETE FROM records WHERE key = ?1")?
        .execute([key.as_str()])
        .map_err(failed)?;
    batch
        .statement("INSERT INTO tombstones (revision, key) VALUES (?1, ?2)")?
        .execute(params![to_db(revision.as_u64()), key.as_str()])
        .map_err(failed)?;
    batch.discard(current.spill);
    Ok(revision)
}

/// Forgets the oldest deletions, and remembers how far.
fn forget(batch: &mut Batch<'_>) -> Result<()> {
    let sql = "SELECT revision FROM tombstones ORDER BY revision DESC LIMIT 1 OFFSET ?1";
    let newest: Option<i64> = batch
        .statement(sql)?
        .query_row([db_limit(TOMBSTONES)], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    if let Some(revision) = newest {
        batch
            .statement("DELETE FROM tombstones WHERE revision <= ?1")?
            .execute([revision])
            .map_err(failed)?;
        batch.forget_until(Revision::new(from_db(revision)));
    }
    Ok(())
}
