//! Queue in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use lacewing_model::{AccountId, Clock, Timestamp};

use crate::queue::{LARGEST_TAKE, next_look};
use crate::signals::Signals;
use crate::{
    BoxFuture, Dedup, Depth, Key, Load, Message, MessageId, Peeked, Prefix, Queue, Receipt, Result,
    StoreError,
};

#[derive(Debug)]
pub(super) struct MemoryQueue {
    clock: Arc<dyn Clock>,
    signals: Signals,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    last_token: u64,
    queues: BTreeMap<Key, Messages>,
}

#[derive(Debug, Default)]
struct Messages {
    held: BTreeMap<MessageId, Held>,
    seen: HashMap<String, (MessageId, Timestamp)>,
}

#[derive(Debug)]
struct Held {
    body: Bytes,
    group: Option<String>,
    due: Timestamp,
    attempts: u32,
    token: Option<u64>,
}

impl State {
    fn load(&self, owner: &str) -> Load {
        let owned = self.queues.iter().filter(|(key, _)| key.owner() == owner);
        let bodies = owned.flat_map(|(_, queue)| queue.held.values()).map(|held| &held.body);
        bodies.fold(Load::default(), |load, body| load.plus(Load::of(body)))
    }
}

impl MemoryQueue {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, signals: Signals::default(), state: Mutex::default() }
    }

    fn look(&self, queue: &Key, max: usize, visibility: Duration) -> Look {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let State { last_token, queues, .. } = &mut *state;
        let Some(messages) = queues.get_mut(queue) else {
            return Look::default();
        };
        let heads = messages.heads();
        let next_due = heads.iter().map(|(due, _)| *due).find(|due| *due > now);
        let mut receipts = Vec::new();
        for (_, id) in heads.into_iter().take_while(|(due, _)| *due <= now).take(max) {
            let Some(held) = messages.held.get_mut(&id) else { continue };
            *last_token += 1;
            held.attempts += 1;
            held.token = Some(*last_token);
            held.due = now.plus(visibility);
            receipts.push(Receipt {
                queue: queue.clone(),
                id,
                body: held.body.clone(),
                attempts: held.attempts,
                token: *last_token,
            });
        }
        Look { receipts, next_due }
    }

    /// Acts on the message that the receipt stands for.
    fn with_held<T>(
        &self,
        receipt: &Receipt,
        act: impl FnOnce(&mut Messages, MessageId) -> T,
    ) -> Result<T> {
        let mut state = self.state.lock();
        let messages = state.queues.get_mut(&receipt.queue).ok_or(StoreError::NotFound)?;
        let held = messages.held.get(&receipt.id).ok_or(StoreError::NotFound)?;
        if held.token != Some(receipt.token) {
            return Err(StoreError::NotFound);
        }
        let result = act(messages, receipt.id);
        drop(state);
        self.signals.wake(&receipt.queue);
        Ok(result)
    }
}

#[derive(Debug, Default)]
struct Look {
    receipts: Vec<Receipt>,
    next_due: Option<Timestamp>,
}

impl Messages {
    /// The messages that are first of their group or have none, by the time they are due.
    fn heads(&self) -> Vec<(Timestamp, MessageId)> {
        let mut groups = HashSet::new();
        let is_head = |held: &Held| held.group.clone().is_none_or(|group| groups.insert(group));
        let mut is_head = is_head;
        let heads = self.held.iter().filter(|(_, held)| is_head(held));
        let mut heads: Vec<_> = heads.map(|(id, held)| (held.due, *id)).collect();
        heads.sort_unstable();
        heads
    }
}

impl Queue for MemoryQueue {
    fn put<'a>(&'a self, queue: &'a Key, message: Message) -> BoxFuture<'a, Result<MessageId>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut state = self.state.lock();
            let id = MessageId::new(state.last_id + 1);
            let load = state.load(queue.owner());
            let messages = state.queues.entry(queue.clone()).or_default();
            messages.seen.retain(|_, (_, until)| *until > now);
            let first = message.dedup.as_ref().and_then(|dedup| messages.seen.get(&dedup.id));
            if let Some((first, _)) = first {
                return Ok(*first);
            }
            load.admit(Load::of(&message.body), message.within)?;
            if let Some(Dedup { id: dedup, window }) = message.dedup {
                messages.seen.insert(dedup, (id, now.plus(window)));
            }
            let due = message.not_before.unwrap_or(now).max(now);
            let Message { body, group, .. } = message;
            messages.held.insert(id, Held { body, group, due, attempts: 0, token: None });
            state.last_id = id.as_u64();
            drop(state);
            self.signals.wake(queue);
            Ok(id)
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
            let mut waiter = self.signals.waiter(queue);
            loop {
                let look = self.look(queue, max.min(LARGEST_TAKE), visibility);
                let left = wait.saturating_sub(start.elapsed());
                if !look.receipts.is_empty() || max == 0 || left.is_zero() {
                    return Ok(look.receipts);
                }
                waiter.wait(next_look(left, look.next_due, self.clock.now())).await;
            }
        })
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt, by: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let due = self.clock.now().plus(by);
            self.with_held(receipt, |messages, id| {
                messages.held.entry(id).and_modify(|held| held.due = due);
            })
        })
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.with_held(receipt, |messages, id| {
                messages.held.remove(&id);
            })
        })
    }

    fn release<'a>(&'a self, receipt: &'a Receipt, delay: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let due = self.clock.now().plus(delay);
            self.with_held(receipt, |messages, id| {
                messages.held.entry(id).and_modify(|held| {
                    held.due = due;
                    held.token = None;
                });
            })
        })
    }

    fn depth<'a>(&'a self, queue: &'a Key) -> BoxFuture<'a, Result<Depth>> {
        Box::pin(async move {
            let now = self.clock.now();
            let state = self.state.lock();
            let mut depth = Depth::default();
            for held in state.queues.get(queue).into_iter().flat_map(|queue| queue.held.values()) {
                match held.token {
                    _ if held.due <= now => depth.ready += 1,
                    Some(_) => depth.in_flight += 1,
                    None => depth.delayed += 1,
                }
            }
            Ok(depth)
        })
    }

    fn load<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Load>> {
        Box::pin(async move { Ok(self.state.lock().load(account.as_str())) })
    }

    fn purge<'a>(&'a self, queue: &'a Key) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let held = state.queues.get_mut(queue).map(|queue| std::mem::take(&mut queue.held));
            Ok(held.map_or(0, |held| held.len() as u64))
        })
    }

    fn peek<'a>(&'a self, queue: &'a Key, max: usize) -> BoxFuture<'a, Result<Vec<Peeked>>> {
        Box::pin(async move {
            let state = self.state.lock();
            let held = state.queues.get(queue).into_iter().flat_map(|queue| queue.held.iter());
            let peeked = held.take(max.min(LARGEST_TAKE)).map(|(id, held)| Peeked {
                id: *id,
                body: held.body.clone(),
                attempts: held.attempts,
                group: held.group.clone(),
                due: held.due,
            });
            Ok(peeked.collect())
        })
    }

    fn queues<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Vec<Key>>> {
        Box::pin(async move {
            let state = self.state.lock();
            let filled = state.queues.iter().filter(|(_, queue)| !queue.held.is_empty());
            Ok(filled.map(|(key, _)| key).filter(|key| prefix.matches(key)).cloned().collect())
        })
    }
}
