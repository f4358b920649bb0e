//! Wakes those who wait for something under a key: a new entry of a stream, a message of a queue.
//! A wake-up is a hint to look again, never the news itself.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Key;

/// Who waits for which key.
#[derive(Debug, Default)]
pub(crate) struct Signals(Mutex<HashMap<Key, watch::Sender<()>>>);

/// One who waits. It is made before the first look, so that nothing falls between looking and
/// waiting.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    signals: &'a Signals,
    key: &'a Key,
    woken: watch::Receiver<()>,
}

impl Signals {
    pub(crate) fn waiter<'a>(&'a self, key: &'a Key) -> Waiter<'a> {
        let woken = self.0.lock().entry(key.clone()).or_default().subscribe();
        Waiter { signals: self, key, woken }
    }

    /// Wakes all who wait for `key`.
    pub(crate) fn wake(&self, key: &Key) {
        if let Some(waiting) = self.0.lock().get(key) {
            waiting.send_replace(());
        }
    }
}

impl Waiter<'_> {
    /// Waits for a wake-up, at most for `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) {
        tokio::time::timeout(limit, self.woken.changed()).await.ok();
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.signals.0.lock();
        if waiting.get(self.key).is_some_and(|waiting| waiting.receiver_count() <= 1) {
            waiting.remove(self.key);
        }
    }
}
