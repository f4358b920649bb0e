//! Keeps the node's long-lived tasks in sight: when one ends that nobody asked to end, the node is
//! told and stops. A node is never silently half alive.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A part of the node that ended although it should run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node's part '{part}' {reason}")]
pub struct Fault {
    /// Which part.
    pub part: &'static str,
    /// How it ended.
    pub reason: String,
}

/// Starts tasks and watches how they end; clones share what they know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Supervisor {
    tracker: TaskTracker,
    failed: CancellationToken,
    first: Arc<Mutex<Option<Fault>>>,
}

impl Supervisor {
    /// Runs a part that must live until the token that it is given is cancelled.
    pub(crate) fn start<F>(
        &self,
        part: &'static str,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Part
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let task = self.tracker.spawn(work(stop.clone()));
        let abort = task.abort_handle();
        let (this, asked, signal) = (self.clone(), stop.clone(), ended.clone());
        self.tracker.spawn(async move {
            let outcome = task.await;
            match outcome {
                Err(error) if error.is_cancelled() => {}
                Err(error) => this.fail(Fault { part, reason: panicked(error) }),
                Ok(()) if asked.is_cancelled() => {}
                Ok(()) => this.fail(Fault { part, reason: "ended by itself".to_owned() }),
            }
            signal.cancel();
        });
        Part { name: part, stop, ended, abort }
    }

    /// Runs something whose end is its own matter; only a panic is worth a word.
    pub(crate) fn run_aside(
        &self,
        part: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tracker.spawn(work);
        self.tracker.spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(part, error = %panicked(error), "A task failed.");
            }
        });
    }

    /// Notes that a part failed; the first one that did is the reason for stopping.
    pub(crate) fn fail(&self, fault: Fault) {
        tracing::error!(part = fault.part, error = %fault, "A part of the node failed.");
        self.first.lock().get_or_insert(fault);
        self.failed.cancel();
    }

    /// Waits until a part has failed.
    pub(crate) async fn fault(&self) -> Fault {
        self.failed.cancelled().await;
        let fault = self.first.lock().clone();
        fault.expect("the reason is noted before the token is cancelled")
    }

    /// Waits for all tasks; whether they ended in time.
    pub(crate) async fn finish(&self, within: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(within, self.tracker.wait()).await.is_ok()
    }
}

/// A part that was started.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    stop: CancellationToken,
    ended: CancellationToken,
    abort: tokio::task::AbortHandle,
}

impl Part {
    /// Asks it to stop, waits for its end, and aborts it when it takes too long.
    pub(crate) async fn stop(self, within: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(within, self.ended.cancelled()).await.is_err() {
            tracing::warn!(part = self.name, "A part did not stop in time; it is aborted.");
            self.abort.abort();
        }
    }
}

fn panicked(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "was aborted".to_owned() };
    let payload = AssertUnwindSafe(payload);
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_reported_with_its_part() {
        let supervisor = Supervisor::default();
        let _part = supervisor.start("left wing", |_| async { panic!("feather {}", 7) });
        let fault = supervisor.fault().await;
        assert_eq!(fault.to_string(), "the node's part 'left wing' panicked: feather 7");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_by_itself_is_a_fault() {
        let supervisor = Supervisor::default();
        let _part = supervisor.start("left wing", |_| async {});
        assert_eq!(supervisor.fault().await.reason, "ended by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_was_asked_to_stop_is_no_fault() {
        let supervisor = Supervisor::default();
        let part = supervisor.start("left wing", CancellationToken::cancelled_owned);
        part.stop(Duration::from_secs(1)).await;
        assert!(supervisor.finish(Duration::from_secs(1)).await);
        assert!(!supervisor.failed.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_stop_is_aborted() {
        let supervisor = Supervisor::default();
        let part = supervisor.start("left wing", |_| std::future::pending());
        part.stop(Duration::from_secs(5)).await;
        assert!(supervisor.finish(Duration::from_secs(1)).await);
        assert!(!supervisor.failed.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_aside_does_not_stop_the_node() {
        let supervisor = Supervisor::default();
        supervisor.run_aside("visitor", async { panic!("oops") });
        assert!(supervisor.finish(Duration::from_secs(1)).await);
        assert!(!supervisor.failed.is_cancelled());
    }
}
