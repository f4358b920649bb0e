//! The readers: a few threads, each with a connection, that take questions from one line.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::embedded::database;
use crate::embedded::writer::join;
use crate::{Result, StoreError};

const THREADS: usize = 4;
/// Questions that may wait; more wait outside.
const WAITING: usize = 256;

type Question = Box<dyn FnOnce(&Connection) + Send>;
/// What stands in the line; `None` sends one reader home.
type Line = mpsc::Receiver<Option<Question>>;

/// A handle to the readers.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    questions: mpsc::Sender<Option<Question>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Readers {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let (questions, line) = mpsc::channel(WAITING);
        let line = Arc::new(Mutex::new(line));
        let mut threads = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            let connection = database::open_reader(dir)?;
            let line = Arc::clone(&line);
            let thread = thread::Builder::new()
                .name(format!("store-reader-{number}"))
                .spawn(move || run(&connection, &line))
                .map_err(|error| StoreError::io("start a reader", error))?;
            threads.push(thread);
        }
        Ok(Self { questions, threads: Arc::new(Mutex::new(threads)) })
    }

    /// Has `ask` answered by the next free reader.
    pub(super) async fn read<T, F>(&self, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            // Whoever asked may have stopped waiting.
            reply.send(ask(connection)).ok();
        });
        self.questions.send(Some(question)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Answers what was asked, then ends the threads.
    pub(super) async fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for _ in &threads {
            self.questions.send(None).await.ok();
        }
        join(threads).await;
    }
}

fn run(connection: &Connection, line: &Mutex<Line>) {
    loop {
        // One reader waits at the head of the line, the others for the lock.
        let question = line.lock().blocking_recv();
        match question.flatten() {
            Some(question) => question(connection),
            None => return,
        }
    }
}
