//! Forgetting: entries of the store's log that are older than their kind is kept.
//!
//! It knows the streams by the first segment of their names, and never what their entries mean.

use std::sync::Arc;
use std::time::Duration;

use lacewing_model::{Clock, Result, Timestamp};
use lacewing_store::{Log, Prefix};
use tokio_util::sync::CancellationToken;

use crate::{Options, logs, usage};

/// Time between two looks for entries that are too old.
const PERIOD: Duration = Duration::from_secs(3_600);

/// How long each kind of stream is kept; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    kept: [(&'static str, Duration); 2],
}

impl Retention {
    pub(crate) fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, options: &Options) -> Self {
        let kept = [(logs::KIND, options.log_retention), (usage::KIND, options.usage_retention)];
        Self { log, clock, kept }
    }

    /// Forgets, until `stop`, what is too old.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        loop {
            if let Err(error) = self.forget_old().await {
                tracing::warn!(error = %error.chain(), "Old logs and usage were not forgotten.");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Forgets everything that is too old.
    pub(crate) async fn forget_old(&self) -> Result<()> {
        let now = self.clock.now().as_micros();
        for stream in self.log.streams(&Prefix::all()).await? {
            let segments = stream.segments();
            let found =
                self.kept.iter().find(|(kind, _)| segments.first().is_some_and(|s| s == kind));
            let Some((_, age)) = found.filter(|_| stream.account().is_some()) else { continue };
            let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            let before = Timestamp::from_micros(now.saturating_sub(age));
            self.log.trim_older(&stream, before).await?;
        }
        Ok(())
    }
}
