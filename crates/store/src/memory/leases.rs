//! Leases in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use lacewing_model::Clock;

use crate::{BoxFuture, Key, Lease, Leases, Result, StoreError};

#[derive(Debug)]
pub(super) struct MemoryLeases {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_token: u64,
    held: HashMap<Key, Lease>,
}

impl MemoryLeases {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }
}

impl Leases for MemoryLeases {
    fn acquire<'a>(&'a self, name: &'a Key, ttl: Duration) -> BoxFuture<'a, Result<Option<Lease>>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut state = self.state.lock();
            if state.held.get(name).is_some_and(|lease| lease.expires > now) {
                return Ok(None);
            }
            state.last_token += 1;
            let lease =
                Lease { name: name.clone(), token: state.last_token, expires: now.plus(ttl) };
            state.held.insert(name.clone(), lease.clone());
            Ok(Some(lease))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut state = self.state.lock();
            let held = state.held.get_mut(&lease.name).ok_or(StoreError::NotFound)?;
            if held.token != lease.token || held.expires <= now {
                return Err(StoreError::NotFound);
            }
            held.expires = now.plus(ttl);
            Ok(held.clone())
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            if state.held.get(&lease.name).is_some_and(|held| held.token == lease.token) {
                state.held.remove(&lease.name);
            }
            Ok(())
        })
    }
}
