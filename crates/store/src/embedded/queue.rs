//! Queue as rows. Only the first message of a group is not `blocked`; what is due and not blocked
//! is found by one index, however long the queue.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use lacewing_model::{AccountId, Timestamp};

use crate::embedded::Shared;
use crate::embedded::calls::Call;
use crate::embedded::database::{from_db, limit, to_db};
use crate::embedded::log::keys;
use crate::embedded::readers::Readers;
use crate::embedded::values::{Loaded, Stored};
use crate::embedded::writer::{Batch, Writer, failed};
use crate::queue::{LARGEST_TAKE, next_look};
use crate::{
    BoxFuture, Dedup, Depth, Key, Load, Message, MessageId, Peeked, Prefix, Queue, Receipt, Result,
    StoreError,
};

/// Messages that one transaction purges.
const PURGE: usize = 5_000;

#[derive(Debug)]
pub(super) struct EmbeddedQueue {
    shared: Arc<Shared>,
    writer: Writer,
    readers: Readers,
}

/// A message without its body, on its way into the queue.
struct Envelope {
    not_before: Option<Timestamp>,
    group: Option<String>,
    dedup: Option<Dedup>,
    within: Option<Load>,
}

/// A message that was taken; its body may still be in its file.
struct Taken {
    id: u64,
    attempts: u32,
    token: u64,
    body: Loaded,
}

/// What one look into a queue found.
#[derive(Default)]
struct Look {
    taken: Vec<Taken>,
    next_due: Option<Timestamp>,
}

/// What is done with a message whose receipt holds.
#[derive(Clone, Copy)]
enum Finish {
    Extend(Duration),
    Release(Duration),
    Ack,
}

impl EmbeddedQueue {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer, readers: Readers) -> Self {
        Self { shared, writer, readers }
    }

    async fn look(&self, queue: &Key, max: usize, visibility: Duration) -> Result<Look> {
        let queue = queue.clone();
        let max = max.min(LARGEST_TAKE);
        self.writer.write(move |batch| take(batch, &queue, max, visibility)).await
    }

    /// Reads the bodies that are in files. One that is gone belongs to a message that is gone.
    async fn receipts(&self, queue: &Key, taken: Vec<Taken>) -> Result<Vec<Receipt>> {
        if taken.iter().all(|taken| taken.body.is_inline()) {
            return load(&self.shared, queue, taken);
        }
        let (queue, shared) = (queue.clone(), Arc::clone(&self.shared));
        self.readers.read(move |_| load(&shared, &queue, taken)).await
    }

    fn finish(&self, receipt: &Receipt, finish: Finish) -> BoxFuture<'_, Result<()>> {
        let (queue, id, token) = (receipt.queue.clone(), receipt.id, receipt.token);
        Box::pin(self.writer.write(move |batch| act(batch, queue, id, token, finish)))
    }
}

impl Queue for EmbeddedQueue {
    fn put<'a>(&'a self, queue: &'a Key, message: Message) -> BoxFuture<'a, Result<MessageId>> {
        let queue = queue.clone();
        Box::pin(async move {
            let Message { body, not_before, group, dedup, within } = message;
            let body = self.shared.values.store(body).await?;
            let envelope = Envelope { not_before, group, dedup, within };
            self.writer.write(move |batch| put(batch, queue, body, envelope)).await
        })
    }

    fn take<'a>(
        &'a self,
        queue: &'a Key,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> BoxFuture<'a, Result<Vec<Receipt>>> {
        Box::pin(async move {
            let start = Instant::now();
            let mut waiter = self.shared.queues.waiter(queue);
            loop {
                let look = self.look(queue, max, visibility).await?;
                let left = wait.saturating_sub(start.elapsed());
                if !look.taken.is_empty() || max == 0 || left.is_zero() {
                    return self.receipts(queue, look.taken).await;
                }
                let now = self.shared.clock.now();
                waiter.wait(next_look(left, look.next_due, now)).await;
            }
        })
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt, by: Duration) -> BoxFuture<'a, Result<()>> {
        self.finish(receipt, Finish::Extend(by))
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<()>> {
        self.finish(receipt, Finish::Ack)
    }

    fn release<'a>(&'a self, receipt: &'a Receipt, delay: Duration) -> BoxFuture<'a, Result<()>> {
        self.finish(receipt, Finish::Release(delay))
    }

    fn depth<'a>(&'a self, queue: &'a Key) -> BoxFuture<'a, Result<Depth>> {
        let (queue, now) = (queue.clone(), self.shared.clock.now());
        Box::pin(
            self.readers.read(move |connection| depth(connection, &queue, now).map_err(unreadable)),
        )
    }

    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Load>> {
        let account = account.clone();
        Box::pin(
            self.readers
                .read(move |connection| load_of(connection, account.as_str()).map_err(unreadable)),
        )
    }

    fn purge<'a>(&'a self, queue: &'a Key) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let mut purged = 0;
            loop {
                let queue = queue.clone();
                let some = self.writer.write(move |batch| purge(batch, &queue)).await?;
                purged += some as u64;
                if some < PURGE {
                    return Ok(purged);
                }
            }
        })
    }

    fn peek<'a>(&'a self, queue: &'a Key, max: usize) -> BoxFuture<'a, Result<Vec<Peeked>>> {
        let (queue, shared) = (queue.clone(), Arc::clone(&self.shared));
        let max = max.min(LARGEST_TAKE);
        Box::pin(self.readers.read(move |connection| peek(connection, &shared, &queue, max)))
    }

    fn queues<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<Key>>> {
        let prefix = prefix.clone();
        Box::pin(self.readers.read(move |connection| {
            let sql = "SELECT key FROM queues WHERE key > ?1 AND key < ?2
                       AND EXISTS (SELECT 1 FROM messages WHERE queue = queues.id) ORDER BY key";
            keys(connection, sql, &prefix).map_err(unreadable)
        }))
    }
}

fn load(shared: &Shared, queue: &Key, taken: Vec<Taken>) -> Result<Vec<Receipt>> {
    let receipt = |taken: Taken| {
        let Taken { id, attempts, token, body } = taken;
        let (id, queue) = (MessageId::new(id), queue.clone());
        let body = shared.values.load(body).transpose()?;
        Some(body.map(|body| Receipt { queue, id, body, attempts, token }))
    };
    taken.into_iter().filter_map(receipt).collect()
}

fn unreadable(error: rusqlite::Error) -> StoreError {
    StoreError::database("read a queue", error)
}

// === Writing ===

fn put(batch: &mut Batch<'_>, key: Key, body: Stored, envelope: Envelope) -> Result<MessageId> {
    let Envelope { not_before, group, dedup, within } = envelope;
    let queue = queue_id(batch, &key)?;
    if let (Some(queue), Some(dedup)) = (queue, &dedup)
        && let Some(first) = Call::Put(queue).recall(batch, dedup)?
    {
        return Ok(MessageId::new(first));
    }
    let load = load_of(batch.connection(), key.owner()).map_err(failed)?;
    let load = load.admit(Load { messages: 1, bytes: body.size }, within)?;
    set_load(batch, &key, load)?;
    let queue = match queue {
        Some(queue) => queue,
        None => make_queue(batch, &key)?,
    };
    let id = batch.next_message();
    if let Some(dedup) = &dedup {
        Call::Put(queue).remember(batch, dedup, id)?;
    }
    let now = batch.now();
    let due = not_before.unwrap_or(now).max(now);
    let blocked = match &group {
        Some(group) => first_of_group(batch, queue, group)?.is_some(),
        None => false,
    };
    batch
        .statement(
            "INSERT INTO messages
                 (id, queue, lane, due, attempts, token, blocked, spill, body, size)
             VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            to_db(id),
            queue,
            group,
            due.as_micros(),
            blocked,
            body.spill(),
            &body.inline[..],
            to_db(body.size)
        ])
        .map_err(failed)?;
    batch.keep(body.spilled);
    batch.wake_queue(key);
    Ok(MessageId::new(id))
}

fn queue_id(batch: &Batch<'_>, key: &Key) -> Result<Option<i64>> {
    batch
        .statement("SELECT id FROM queues WHERE key = ?1")?
        .query_row([key.as_str()], |row| row.get(0))
        .optional()
        .map_err(failed)
}

fn make_queue(batch: &Batch<'_>, key: &Key) -> Result<i64> {
    batch.statement("INSERT INTO queues (key) VALUES (?1)")?.insert([key.as_str()]).map_err(failed)
}

fn first_of_group(batch: &Batch<'_>, queue: i64, group: &str) -> Result<Option<i64>> {
    batch
        .statement("SELECT min(id) FROM messages WHERE queue = ?1 AND lane = ?2")?
        .query_row(params![queue, group], |row| row.get(0))
        .map_err(failed)
}

fn take(batch: &mut Batch<'_>, key: &Key, max: usize, visibility: Duration) -> Result<Look> {
    let Some(queue) = queue_id(batch, key)? else { return Ok(Look::default()) };
    let now = batch.now();
    let due: Vec<(i64, u32, Loaded)> = batch
        .statement(
            "SELECT id, attempts, spill, body FROM messages
             WHERE queue = ?1 AND blocked = 0 AND due <= ?2 ORDER BY due, id LIMIT ?3",
        )?
        .query_map(params![queue, now.as_micros(), limit(max)], |row| {
            Ok((row.get(0)?, row.get(1)?, Loaded::from_row(row, 2)?))
        })
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let hidden = now.plus(visibility).as_micros();
    let mut taken = Vec::with_capacity(due.len());
    for (id, attempts, body) in due {
        let token = batch.next_token();
        let attempts = attempts.saturating_add(1);
        batch
            .statement("UPDATE messages SET attempts = ?2, token = ?3, due = ?4 WHERE id = ?1")?
            .execute(params![id, attempts, to_db(token), hidden])
            .map_err(failed)?;
        taken.push(Taken { id: from_db(id), attempts, token, body });
    }
    let next_due: Option<i64> = match taken.is_empty() {
        true => batch
            .statement(
                "SELECT min(due) FROM messages WHERE queue = ?1 AND blocked = 0 AND due > ?2",
            )?
            .query_row([queue, now.as_micros()], |row| row.get(0))
            .map_err(failed)?,
        false => None,
    };
    Ok(Look { taken, next_due: next_due.map(Timestamp::from_micros) })
}

fn act(batch: &mut Batch<'_>, key: Key, id: MessageId, token: u64, finish: Finish) -> Result<()> {
    let id = to_db(id.as_u64());
    let held: Option<(i64, Option<String>, Option<String>, i64)> = batch
        .statement(
            "SELECT queue, lane, spill, size FROM messages
             WHERE id = ?1 AND token = ?2 AND token > 0",
        )?
        .query_row([id, to_db(token)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()
        .map_err(failed)?;
    let (queue, group, spill, size) = held.ok_or(StoreError::NotFound)?;
    let (due, token) = match finish {
        Finish::Extend(by) => (batch.now().plus(by), to_db(token)),
        Finish::Release(delay) => (batch.now().plus(delay), 0),
        Finish::Ack => {
            remove(batch, id)?;
            unblock(batch, queue, group.as_deref())?;
            unload(batch, &key, Load { messages: 1, bytes: from_db(size) })?;
            batch.discard(spill);
            batch.wake_queue(key);
            return Ok(());
        }
    };
    batch
        .statement("UPDATE messages SET due = ?2, token = ?3 WHERE id = ?1")?
        .execute([id, due.as_micros(), token])
        .map_err(failed)?;
    batch.wake_queue(key);
    Ok(())
}

fn remove(batch: &Batch<'_>, id: i64) -> Result<()> {
    batch.statement("DELETE FROM messages WHERE id = ?1")?.execute([id]).map(drop).map_err(failed)
}

/// Lets the next message of the group come forward.
fn unblock(batch: &Batch<'_>, queue: i64, group: Option<&str>) -> Result<()> {
    let Some(group) = group else { return Ok(()) };
    if let Some(next) = first_of_group(batch, queue, group)? {
        batch
            .statement("UPDATE messages SET blocked = 0 WHERE id = ?1")?
            .execute([next])
            .map_err(failed)?;
    }
    Ok(())
}

/// Removes the oldest messages, so that what is left of a group keeps its order; the next step
/// removes that too, but a crash may come between.
fn purge(batch: &mut Batch<'_>, key: &Key) -> Result<usize> {
    let Some(queue) = queue_id(batch, key)? else { return Ok(0) };
    let oldest: Vec<(i64, Option<String>, Option<String>, i64)> = batch
        .statement(
            "SELECT id, lane, spill, size FROM messages WHERE queue = ?1 ORDER BY id LIMIT ?2",
        )?
        .query_map([queue, limit(PURGE)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let count = oldest.len();
    let mut groups = std::collections::BTreeSet::new();
    let mut gone = Load::default();
    for (id, group, spill, size) in oldest {
        gone = gone.plus(Load { messages: 1, bytes: from_db(size) });
        remove(batch, id)?;
        groups.extend(group);
        batch.discard(spill);
    }
    for group in groups {
        unblock(batch, queue, Some(&group))?;
    }
    unload(batch, key, gone)?;
    Ok(count)
}

/// The queues of the key's account hold so much less.
fn unload(batch: &Batch<'_>, key: &Key, gone: Load) -> Result<()> {
    let load = load_of(batch.connection(), key.owner()).map_err(failed)?;
    set_load(batch, key, load.minus(gone))
}

fn set_load(batch: &Batch<'_>, key: &Key, load: Load) -> Result<()> {
    batch
        .statement(
            "INSERT INTO loads (owner, messages, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (owner) DO UPDATE SET messages = ?2, bytes = ?3",
        )?
        .execute(params![key.owner(), to_db(load.messages), to_db(load.bytes)])
        .map(drop)
        .map_err(failed)
}

// === Reading ===

fn load_of(connection: &Connection, owner: &str) -> rusqlite::Result<Load> {
    let sql = "SELECT messages, bytes FROM loads WHERE owner = ?1";
    let load = connection.prepare_cached(sql)?.query_row([owner], |row| {
        Ok(Load { messages: from_db(row.get(0)?), bytes: from_db(row.get(1)?) })
    });
    load.optional().map(Option::unwrap_or_default)
}

fn depth(connection: &Connection, key: &Key, now: Timestamp) -> rusqlite::Result<Depth> {
    let sql = "SELECT count(*) FILTER (WHERE due <= ?2),
                      count(*) FILTER (WHERE due > ?2 AND token > 0),
                      count(*) FILTER (WHERE due > ?2 AND token = 0)
               FROM messages WHERE queue = (SELECT id FROM queues WHERE key = ?1)";
    connection.prepare_cached(sql)?.query_row(params![key.as_str(), now.as_micros()], |row| {
        Ok(Depth {
            ready: from_db(row.get(0)?),
            in_flight: from_db(row.get(1)?),
            delayed: from_db(row.get(2)?),
        })
    })
}

fn peek(connection: &Connection, shared: &Shared, key: &Key, max: usize) -> Result<Vec<Peeked>> {
    let sql = "SELECT id, attempts, lane, due, spill, body FROM messages
               WHERE queue = (SELECT id FROM queues WHERE key = ?1) ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(unreadable)?;
    let mut rows = statement.query(params![key.as_str(), limit(max)]).map_err(unreadable)?;
    let mut peeked = Vec::new();
    while let Some(row) = rows.next().map_err(unreadable)? {
        let body = Loaded::from_row(row, 4).map_err(unreadable)?;
        // A file that is gone belongs to a message that is gone.
        let Some(body) = shared.values.load(body)? else { continue };
        peeked.push(Peeked {
            id: MessageId::new(row.get(0).map(from_db).map_err(unreadable)?),
            body,
            attempts: row.get(1).map_err(unreadable)?,
            group: row.get(2).map_err(unreadable)?,
            due: Timestamp::from_micros(row.get(3).map_err(unreadable)?),
        });
    }
    Ok(peeked)
}
