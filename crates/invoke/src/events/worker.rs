//! Serves the events that were left with us, function by function in turn.
//!
//! Each turn takes a few events of each function that has some. No function has more than half of
//! the slots, so that a slow one never holds up the others. What the worker does not know of, it
//! finds by listing the queues: at its start, and from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use lacewing_model::usage::Ending;
use lacewing_model::{FunctionKey, Kind, Outcome, Result};
use lacewing_store::queue::Receipt;
use lacewing_store::{Key, Prefix};

use super::{VISIBILITY, envelope, function_of};
use crate::admission;
use crate::door::{Door, Finished};
use crate::journal::Position;
use crate::pool::driver::Source;

/// Most events of one function that are taken in one turn.
const TURN: usize = 4;
/// How often a queue whose events are all delayed or hidden is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often all queues are listed.
const LIST: Duration = Duration::from_secs(10);
/// How long the acknowledgement waits for the usage record and the log to be durable.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);
/// Events that may wait for that at a time; they hold no slot.
const SETTLING: usize = 4_096;
/// Longest pause before an event is tried again.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// The queues with events, and the bounds on serving them.
struct Worker<S: Source> {
    door: Arc<Door<S>>,
    slots: Arc<Semaphore>,
    settling: Arc<Semaphore>,
    queues: BTreeMap<Key, Line>,
}

/// What the worker knows of one queue.
struct Line {
    function: FunctionKey,
    slots: Arc<Semaphore>,
    next_look: Instant,
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is over once what is known of it is durable; its usage record ends here, if there is one.
    Over(Option<Position>),
    Again,
}

/// Serves events until `stop`, or until the inbox is drained.
pub(crate) async fn run<S: Source>(door: Arc<Door<S>>, stop: &CancellationToken) {
    let slots = Arc::new(Semaphore::new(door.events.slots));
    let settling = Arc::new(Semaphore::new(SETTLING));
    let mut worker = Worker { door: door.clone(), slots, settling, queues: BTreeMap::new() };
    tokio::select! {
        () = stop.cancelled() => {}
        () = door.events.stop.cancelled() => {}
        () = worker.take_turns() => {}
    }
}

// === Worker ===

impl<S: Source> Worker<S> {
    async fn take_turns(&mut self) {
        let mut next_list = Instant::now();
        loop {
            if Instant::now() >= next_list {
                next_list = Instant::now() + LIST;
                self.list().await;
            }
            let fresh = std::mem::take(&mut *self.door.events.fresh.lock());
            for key in fresh {
                self.learn(key);
            }
            if !self.turn().await {
                let wake = self.door.events.wake.notified();
                let rest = self.queues.values().map(|line| line.next_look).min();
                let until = rest.unwrap_or(next_list).min(next_list);
                // Never at once: a queue may be due whose slots are all taken.
                let until = until.max(Instant::now() + Duration::from_millis(5));
                drop(tokio::time::timeout_at(until, wake).await);
            }
        }
    }

    async fn list(&mut self) {
        match self.door.events.queue.queues(&Prefix::all()).await {
            Ok(keys) => keys.into_iter().for_each(|key| self.learn(key)),
            Err(error) => tracing::warn!(error = %error, "Event queues not listed."),
        }
    }

    fn learn(&mut self, key: Key) {
        let Some(function) = function_of(&key) else { return };
        let share = self.door.events.slots.div_ceil(2);
        let line = self.queues.entry(key).or_insert_with(|| Line {
            function,
            slots: Arc::new(Semaphore::new(share)),
            next_look: Instant::now(),
        });
        line.next_look = Instant::now();
    }

    /// Takes some events of each function that is due; says whether there were any.
    async fn turn(&mut self) -> bool {
        let mut has_progress = false;
        let due: Vec<Key> = {
            let now = Instant::now();
            let due = self.queues.iter().filter(|(_, line)| line.next_look <= now);
            due.map(|(key, _)| key.clone()).collect()
        };
        for key in due {
            match self.take_some(&key).await {
                Ok(count) => has_progress |= count > 0,
                Err(error) => {
                    tracing::warn!(queue = %key, error = %error.chain(), "Events not taken.");
                    self.look_later(&key);
                }
            }
        }
        has_progress
    }

    async fn take_some(&mut self, key: &Key) -> Result<usize> {
        let Some(line) = self.queues.get(key) else { return Ok(0) };
        let function = line.function.clone();
        let mut permits = Vec::new();
        while permits.len() < TURN {
            let all = self.slots.clone().try_acquire_owned();
            let own = line.slots.clone().try_acquire_owned();
            let (Ok(all), Ok(own)) = (all, own) else { break };
            permits.push([all, own]);
        }
        if permits.is_empty() {
            return Ok(0);
        }
        let queue = &self.door.events.queue;
        let receipts = queue.take(key, permits.len(), Duration::ZERO, VISIBILITY).await?;
        let count = receipts.len();
        for (receipt, permits) in receipts.into_iter().zip(permits) {
            let (door, settling) = (self.door.clone(), self.settling.clone());
            let work = serve(door, function.clone(), receipt, permits, settling);
            self.door.events.tasks.spawn(work);
        }
        if count == 0 {
            let depth = queue.depth(key).await?;
            if depth.ready + depth.in_flight + depth.delayed == 0 {
                self.queues.remove(key);
            } else {
                self.look_later(key);
            }
        }
        Ok(count)
    }

    fn look_later(&mut self, key: &Key) {
        if let Some(line) = self.queues.get_mut(key) {
            line.next_look = Instant::now() + LOOK;
        }
    }
}

/// Serves one event, and keeps it hidden meanwhile.
async fn serve<S: Source>(
    door: Arc<Door<S>>,
    function: FunctionKey,
    receipt: Receipt,
    permits: [OwnedSemaphorePermit; 2],
    settling: Arc<Semaphore>,
) {
    let work = verdict(&door, function, &receipt);
    let mut work = std::pin::pin!(work);
    let verdict = loop {
        match tokio::time::timeout(VISIBILITY / 3, &mut work).await {
            Ok(verdict) => break verdict,
            Err(_) => {
                if let Err(error) = door.events.queue.extend(&receipt, VISIBILITY).await {
                    tracing::warn!(error = %error, "Event not kept hidden: it may run twice.");
                }
            }
        }
    };
    let _settling = settling.acquire().await;
    drop(permits);
    door.events.wake.notify_one();
    let settled = match verdict {
        Verdict::Over(usage) => {
            make_durable(&door, usage).await;
            door.events.queue.ack(&receipt).await
        }
        Verdict::Again => door.events.queue.release(&receipt, delay(receipt.attempts)).await,
    };
    if let Err(error) = settled {
        tracing::warn!(error = %error, "Event not settled: it will run again.");
    }
    door.events.wake.notify_one();
}

/// Waits until the usage record and the log of an event are durable, within reason.
async fn make_durable<S: Source>(door: &Door<S>, usage: Option<Position>) {
    if let Some(position) = usage
        && !door.journal.synced(position, RECORD_PATIENCE).await
    {
        tracing::warn!("Usage of an event not durable yet.");
    }
    if tokio::time::timeout(RECORD_PATIENCE, door.log_rounds.kept()).await.is_err() {
        tracing::warn!("Log of an event not durable yet.");
    }
}

async fn verdict<S: Source>(door: &Door<S>, function: FunctionKey, receipt: &Receipt) -> Verdict {
    let (call, accepted) = match envelope::decode(function, &receipt.body) {
        Ok(event) => event,
        Err(error @ envelope::EnvelopeError::TooNew(_)) => {
            tracing::error!(error = %error, "Event left for a newer version of this program.");
            return Verdict::Again;
        }
        Err(error) => {
            tracing::error!(error = %error, id = receipt.id.as_u64(), "Unreadable event dropped.");
            return Verdict::Over(None);
        }
    };
    let request_id = call.request_id;
    let result = match admission::admit(&door.services.catalog, &call).await {
        Ok(function) => door.serve(function, call).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(finished) if finished.ending == Ending::PlatformFault => {
            tracing::warn!(%request_id, attempts = receipt.attempts, "Event failed by our fault.");
            Verdict::Again
        }
        Ok(finished) => {
            let waited = door.clock.now().since(accepted).as_millis();
            log_end(&finished, request_id, waited);
            Verdict::Over(finished.usage)
        }
        Err(error) if error.kind() == Kind::NotFound => {
            tracing::warn!(%request_id, "Event dropped: its function was deleted.");
            Verdict::Over(None)
        }
        Err(error) => {
            let attempts = receipt.attempts;
            tracing::debug!(%request_id, attempts, error = %error.chain(), "Event put off.");
            Verdict::Again
        }
    }
}

fn log_end(finished: &Finished, request_id: lacewing_model::RequestId, waited_ms: u128) {
    match finished.reply.as_ref().map(|reply| &reply.outcome) {
        Ok(Outcome::Returned(_)) => tracing::debug!(%request_id, waited_ms, "Event served."),
        Ok(Outcome::Failed(error)) => {
            let error_type = error.error_type.as_str();
            tracing::info!(%request_id, waited_ms, error_type, "Event's function failed.");
        }
        Err(error) => {
            let error = error.public();
            tracing::info!(%request_id, waited_ms, error, "Event's function was not called.");
        }
    }
}

/// One second, doubled with each attempt.
fn delay(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    Duration::from_secs(1 << doublings).min(LONGEST_DELAY)
}
