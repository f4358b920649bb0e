//! The writer: one thread, one connection, one transaction for all requests that wait.
//!
//! A request answers after the transaction that holds it is on the disk: under load many share one
//! fsync. A request that is refused (a conflict, something that is not there) has written nothing;
//! any other failure undoes the whole transaction, and all its requests fail.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::embedded::Shared;
use crate::embedded::database::{from_db, to_db};
use crate::embedded::values::Spilled;
use crate::{Key, Result, Revision, StoreError};

/// Requests that may wait; more wait outside.
const WAITING: usize = 1_024;
/// Most requests of one transaction.
const BATCH: usize = 512;

/// A handle to the writer.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What one transaction has done so far, for its requests to read and add to.
pub(super) struct Batch<'a> {
    connection: &'a Connection,
    counters: Counters,
    shared: &'a Shared,
    effects: Effects,
}

/// Numbers that only grow, kept in memory and written with each transaction that moves them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counters {
    revision: u64,
    message: u64,
    token: u64,
    forgotten: u64,
}

/// What is to happen once the transaction is on the disk.
#[derive(Default)]
struct Effects {
    streams: Vec<Key>,
    queues: Vec<Key>,
    written: Vec<Spilled>,
    discarded: Vec<String>,
}

enum Order {
    Work(Box<dyn Work>),
    Stop,
}

trait Work: Send {
    /// Acts within the transaction; fails only if the whole transaction must be undone.
    fn act(&mut self, batch: &mut Batch<'_>) -> Result<()>;
    /// Answers, now that the transaction is on the disk or undone.
    fn answer(self: Box<Self>, committed: &Result<()>);
}

struct Request<F, T> {
    act: Option<F>,
    outcome: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        shared: Arc<Shared>,
        committed: watch::Sender<Revision>,
    ) -> Result<Self> {
        let counters = Counters::load(&connection)?;
        committed.send_replace(Revision::new(counters.revision));
        let (orders, received) = mpsc::channel(WAITING);
        let thread = Thread { connection, counters, shared, committed, received };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| StoreError::io("start the writer", error))?;
        Ok(Self { orders, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Has `act` done in the next transaction, and answers when that is on the disk. Once it was
    /// handed over, the request is carried out even if nobody waits for the answer any more.
    pub(super) async fn write<T, F>(&self, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Request { act: Some(act), outcome: Err(StoreError::Closed), reply };
        let order = Order::Work(Box::new(request));
        self.orders.send(order).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Has everything done that was handed over, then ends the thread.
    pub(super) async fn stop(&self) {
        // It fails only if the thread has ended already.
        self.orders.send(Order::Stop).await.ok();
        let thread = self.thread.lock().take();
        join(thread).await;
    }
}

/// Waits for a thread without holding up the runtime.
pub(super) async fn join(thread: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in thread {
        if !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(()))) {
            tracing::error!("A thread of the store has panicked.");
        }
    }
}

// === Batch ===

impl Batch<'_> {
    /// A prepared statement, kept for the next time.
    pub(super) fn statement(&self, sql: &'static str) -> Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql).map_err(failed)
    }

    /// The transaction's connection, for what reads the same way outside of one.
    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn now(&self) -> lacewing_model::Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn next_revision(&mut self) -> Revision {
        self.counters.revision += 1;
        Revision::new(self.counters.revision)
    }

    pub(super) fn next_message(&mut self) -> u64 {
        self.counters.message += 1;
        self.counters.message
    }

    pub(super) fn next_token(&mut self) -> u64 {
        self.counters.token += 1;
        self.counters.token
    }

    pub(super) fn forget_until(&mut self, revision: Revision) {
        self.counters.forgotten = self.counters.forgotten.max(revision.as_u64());
    }

    pub(super) fn wake_stream(&mut self, stream: Key) {
        self.effects.streams.push(stream);
    }

    pub(super) fn wake_queue(&mut self, queue: Key) {
        self.effects.queues.push(queue);
    }

    /// Keeps a file that a row of this transaction names.
    pub(super) fn keep(&mut self, file: Option<Spilled>) {
        self.effects.written.extend(file);
    }

    /// Removes a file that no row names any more, after the commit.
    pub(super) fn discard(&mut self, file: Option<String>) {
        self.effects.discarded.extend(file);
    }
}

/// How a failed statement is reported.
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::database("write to the database", error)
}

impl Counters {
    fn load(connection: &Connection) -> Result<Self> {
        let sql = "SELECT revision, message, token, forgotten FROM counters";
        let number = |row: &rusqlite::Row<'_>, at| row.get(at).map(from_db);
        connection
            .query_row(sql, [], |row| {
                Ok(Self {
                    revision: number(row, 0)?,
                    message: number(row, 1)?,
                    token: number(row, 2)?,
                    forgotten: number(row, 3)?,
                })
            })
            .map_err(|error| StoreError::database("read the counters", error))
    }

    fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE counters SET revision = ?1, message = ?2, token = ?3, forgotten = ?4";
        let Self { revision, message, token, forgotten } = *self;
        connection
            .prepare_cached(sql)?
            .execute(params![to_db(revision), to_db(message), to_db(token), to_db(forgotten)])
            .map(drop)
    }
}

// === Request ===

impl<F, T> Work for Request<F, T>
where
    T: Send + 'static,
    F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
{
    fn act(&mut self, batch: &mut Batch<'_>) -> Result<()> {
        if let Some(act) = self.act.take() {
            self.outcome = act(batch);
        }
        match &self.outcome {
            Ok(_)
            | Err(StoreError::Conflict { .. } | StoreError::NotFound | StoreError::OverLoad) => {
                Ok(())
            }
            Err(error) => Err(error.clone()),
        }
    }

    fn answer(self: Box<Self>, committed: &Result<()>) {
        let outcome = match committed {
            Ok(()) => self.outcome,
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may have stopped waiting.
        self.reply.send(outcome).ok();
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Work(_) => "Work",
            Self::Stop => "Stop",
        })
    }
}

// === Thread ===

struct Thread {
    connection: Connection,
    counters: Counters,
    shared: Arc<Shared>,
    committed: watch::Sender<Revision>,
    received: mpsc::Receiver<Order>,
}

impl Thread {
    fn run(mut self) {
        let mut orders = Vec::with_capacity(BATCH);
        let mut work = Vec::with_capacity(BATCH);
        while self.received.blocking_recv_many(&mut orders, BATCH) > 0 {
            for order in orders.drain(..) {
                match order {
                    Order::Work(request) => work.push(request),
                    Order::Stop => self.received.close(),
                }
            }
            let committed = self.commit(&mut work);
            if let Err(error) = &committed {
                tracing::error!(error = %chain(error), "A transaction of the store failed.");
            }
            work.drain(..).for_each(|request| request.answer(&committed));
        }
    }

    /// Has all requests done in one transaction, and what follows from it.
    fn commit(&mut self, work: &mut [Box<dyn Work>]) -> Result<()> {
        let mut batch = Batch {
            connection: &self.connection,
            counters: self.counters,
            shared: &self.shared,
            effects: Effects::default(),
        };
        let outcome = batch.transact(work, &self.counters);
        let Batch { counters, mut effects, .. } = batch;
        if let Err(error) = outcome {
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK").map_err(failed)?;
            }
            if !matches!(error, StoreError::Full) {
                // The disk may hold the commit all the same; the next start sweeps the files.
                mem::take(&mut effects.written).into_iter().for_each(Spilled::keep);
            }
            return Err(error);
        }
        if counters.revision > self.counters.revision {
            self.committed.send_replace(Revision::new(counters.revision));
        }
        self.counters = counters;
        self.follow(effects);
        Ok(())
    }

    fn follow(&self, effects: Effects) {
        effects.written.into_iter().for_each(Spilled::keep);
        effects.streams.iter().for_each(|stream| self.shared.streams.wake(stream));
        effects.queues.iter().for_each(|queue| self.shared.queues.wake(queue));
        effects.discarded.iter().for_each(|file| self.shared.values.remove(file));
    }
}

impl Batch<'_> {
    fn transact(&mut self, work: &mut [Box<dyn Work>], before: &Counters) -> Result<()> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]).map(drop);
        run("BEGIN IMMEDIATE").map_err(failed)?;
        for request in work {
            request.act(self)?;
        }
        if self.counters != *before {
            self.counters.save(self.connection).map_err(failed)?;
        }
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]).map(drop);
        run("COMMIT").map_err(failed)
    }
}

fn chain(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
