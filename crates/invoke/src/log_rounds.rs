//! Tells when log records that were written before now have been kept.
//!
//! Records are gathered and kept in rounds. Who must not go on before his are safe, waits for the
//! end of the round that begins after the one that may be under way. It keeps nothing itself.

use tokio::sync::{Notify, watch};

/// Counts the rounds; none before the first begins, for then nobody keeps records at all.
#[derive(Debug)]
pub(crate) struct LogRounds {
    done: watch::Sender<Option<u64>>,
    wanted: Notify,
}

impl LogRounds {
    /// Before the first round.
    pub(crate) fn new() -> Self {
        Self { done: watch::Sender::new(None), wanted: Notify::new() }
    }

    /// Rounds take place from now on.
    pub(crate) fn begin(&self) {
        self.done.send_replace(Some(0));
    }

    /// A round is over.
    pub(crate) fn end_round(&self) {
        self.done.send_modify(|done| *done = done.map(|count| count + 1));
    }

    /// Waits until somebody wants a round although no record may have come.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until all records that have been sent before are kept.
    pub(crate) async fn kept(&self) {
        let mut done = self.done.subscribe();
        let Some(now) = *done.borrow_and_update() else { return };
        // The round under way may have taken its records already.
        while done.borrow_and_update().is_some_and(|count| count < now + 2) {
            self.wanted.notify_one();
            if done.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_round_under_way_is_not_enough() {
        let rounds = LogRounds::new();
        rounds.begin();
        let mut kept = std::pin::pin!(rounds.kept());
        assert!(timeout(Duration::from_millis(50), &mut kept).await.is_err());
        rounds.end_round();
        assert!(timeout(Duration::from_millis(50), &mut kept).await.is_err());
        rounds.wanted().await;
        rounds.end_round();
        kept.await;
    }

    #[tokio::test]
    async fn nobody_waits_where_nothing_is_kept() {
        LogRounds::new().kept().await;
    }
}
