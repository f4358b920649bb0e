//! One process that serves several invocations at a time.
//!
//! A task of its own owns the process: it reads what is printed, hears of the end and clears up. Whoever
//! brings an invocation waits for three things: the answer to its own id, the end of the process, its
//! own deadline. Nobody here decides how many come: that is counted above.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lacewing_model::ByteSize;
use lacewing_sandbox::{Freezer, Sandbox, Traffic};

use crate::channel::{Answer, Call, Custom};
use crate::log::LogWriter;
use crate::process::{End, First, LAST_WORD, Process};

/// A process and those who use it together.
#[derive(Debug)]
pub(crate) struct Crowd {
    sandbox: Arc<AsyncFd<Sandbox>>,
    api: Custom,
    /// How the process ended; nobody can say any more when nothing is left of it.
    end: watch::Receiver<Option<End>>,
    stop: CancellationToken,
    /// It takes no other invocation.
    is_spent: AtomicBool,
    peak: AtomicU64,
    /// Bytes of the network that a record has told, or is about to.
    told: Mutex<Traffic>,
}

impl Crowd {
    /// Has a process that waits for invocations serve several at a time.
    ///
    /// # Errors
    /// Gives it back if its runtime is one of ours.
    pub(crate) fn open(
        process: Box<Process>,
        log: LogWriter,
        tasks: &TaskTracker,
    ) -> Result<Self, Box<Process>> {
        let Some((sandbox, api)) = process.shared() else { return Err(process) };
        let (ended, end) = watch::channel(None);
        let stop = CancellationToken::new();
        tasks.spawn(attend(process, log, ended, stop.clone()));
        let (is_spent, peak, told) = Default::default();
        Ok(Self { sandbox, api, end, stop, is_spent, peak, told })
    }

    /// Serves one invocation, beside whatever else is served.
    pub(crate) async fn run(&self, call: &Call<'_>, deadline: Instant) -> First<Answer> {
        self.api.begin(call);
        let first = tokio::select! {
            biased;
            answer = self.api.answer(call) => First::Came(answer),
            end = self.ended() => First::Ended(end),
            () = sleep_until(deadline) => First::Deadline,
        };
        match first {
            // An answer ends early, too, when its process does: then that is what happened.
            First::Came(Answer::Truncated) => match timeout(LAST_WORD, self.ended()).await {
                Ok(end) => First::Ended(end),
                Err(_) => first,
            },
            First::Came(_) => first,
            First::Ended(_) | First::Deadline => {
                self.api.withdraw(call);
                first
            }
        }
    }

    /// From here on it takes no other invocation.
    pub(crate) fn spend(&self) {
        self.is_spent.store(true, Ordering::Relaxed);
    }

    /// Whether it takes another invocation.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_spent.load(Ordering::Relaxed) && self.is_alive()
    }

    /// Whether the process has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// Memory it uses now.
    pub(crate) fn memory(&self) -> ByteSize {
        ByteSize::bytes(self.sandbox.get_ref().memory().unwrap_or_default().current)
    }

    /// The most memory it has used, as a part of what it may use; the last that was known once its
    /// cgroup has gone.
    pub(crate) fn peak(&self, limit: ByteSize) -> ByteSize {
        if let Ok(peak) = self.sandbox.get_ref().memory_peak() {
            self.peak.fetch_max(peak, Ordering::Relaxed);
        }
        ByteSize::bytes(self.peak.load(Ordering::Relaxed)).min(limit)
    }

    /// Bytes of the network that nobody was told of yet; they are told now.
    pub(crate) fn untold(&self) -> Traffic {
        let mut told = self.told.lock();
        let now = self.sandbox.get_ref().traffic().unwrap_or_default();
        let received = now.received.saturating_sub(told.received);
        let sent = now.sent.saturating_sub(told.sent);
        told.received += received;
        told.sent += sent;
        Traffic { received, sent }
    }

    /// What stops and continues its processes.
    pub(crate) fn freezer(&self) -> Option<Freezer> {
        self.sandbox.get_ref().freezer()
    }

    /// Ends it and waits until nothing is left of it.
    pub(crate) async fn finish(&self) {
        self.stop.cancel();
        let mut end = self.end.clone();
        while end.changed().await.is_ok() {}
    }

    /// Waits for the end of the process.
    async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or(End::Signaled(9))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Whoever drops it without waiting for the end.
        self.stop.cancel();
    }
}

/// Reads what a process prints until it ends or is not wanted any more, then clears up.
async fn attend(
    mut process: Box<Process>,
    mut log: LogWriter,
    ended: watch::Sender<Option<End>>,
    stop: CancellationToken,
) {
    let end = tokio::select! {
        end = process.attend(&mut log) => Some(end),
        () = stop.cancelled() => None,
    };
    ended.send_replace(end);
    process.kill(&mut log).await;
    log.finish();
}
