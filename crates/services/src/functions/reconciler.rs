//! Finishes what requests began: creations, updates, and the collection of unused code.
//!
//! It takes no input: it looks at what is stored and brings it one step further, so that it may be
//! woken at any time, run twice, or be killed between any two steps. A signal only makes it sooner.

use std::time::Duration;

use lacewing_model::function::{Before, State, StateReason, UpdateStatus};
use lacewing_model::{Function, Result, VersionKey};
use lacewing_store::{BlobAddress, Expect};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Functions, StoreFailure, claims};
use crate::catalog::INVALID_RUNTIME;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two looks without a signal, for what other nodes left.
const LOOK: Duration = Duration::from_secs(10);
/// Time between two collections of unused code.
const COLLECT: Duration = Duration::from_secs(600);

impl Functions {
    /// Reconciles until `stop`, at once at first; stopping may cut it short anywhere.
    pub(crate) async fn reconcile(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.reconcile_forever() => {}
        }
    }

    async fn reconcile_forever(&self) {
        let mut collect_at = Instant::now();
        loop {
            let is_clean = self.settle_all().await & self.sweep().await;
            if Instant::now() >= collect_at {
                collect_at = Instant::now() + COLLECT;
                if let Err(error) = self.collect_unused_code().await {
                    tracing::warn!(error = %error.chain(), "Unused code was not collected.");
                }
            }
            let pause = if is_clean { LOOK } else { RETRY };
            tokio::select! {
                () = self.0.wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes every piece of stored code that no function has one step towards its deletion.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn collect_unused_code(&self) -> Result<()> {
        claims::collect(self).await
    }

    /// Finishes all creations and updates; whether nothing was left over.
    async fn settle_all(&self) -> bool {
        let mut is_clean = true;
        for key in self.0.catalog.unsettled() {
            if let Err(error) = self.settle(&key).await {
                is_clean = false;
                tracing::warn!(function = %key.arn(), error = %error.chain(), "A function could not be settled.");
            }
        }
        is_clean
    }

    async fn settle(&self, key: &VersionKey) -> Result<()> {
        let Some((function, revision)) = self.stored(key).await? else { return Ok(()) };
        if !function.is_unsettled() {
            return Ok(());
        }
        let settled = self.settled(function).await?;
        match self.put(&settled, Expect::Revision(revision)).await {
            Ok(revision) => self.0.catalog.applied(revision).await,
            // Deleted, or settled by another node.
            Err(StoreFailure::Overtaken) => Ok(()),
            Err(StoreFailure::Other(error)) => Err(error),
        }
    }

    /// How the function stands once its change is done.
    async fn settled(&self, mut function: Function) -> Result<Function> {
        let code =
            BlobAddress { account: function.key.account.clone(), digest: function.code.digest };
        let has_code = self.0.store.blobs.stat(&code).await? == Some(function.code.size);
        let usable = match (has_code, (self.0.runtime_check)(function.config.runtime)) {
            (false, _) => Err(reason("The function's code is missing.", "InternalError")),
            (true, Err(error)) => Err(reason(error.public(), INVALID_RUNTIME)),
            (true, Ok(_)) => Ok(()),
        };
        match usable {
            Ok(()) => {
                function.state = State::Active;
                function.last_update = UpdateStatus::Successful;
                // The catalog adds what stands in for its runtime.
                function.state_reason = None;
                function.before = None;
            }
            Err(why) => {
                go_back(&mut function);
                function.last_update = UpdateStatus::Failed;
                function.state_reason = Some(why);
            }
        }
        Ok(function)
    }
}

/// A function that could be invoked before its update still can, as it was; any other cannot.
fn go_back(function: &mut Function) {
    let Some(before) = function.before.take() else {
        function.state = State::Failed;
        return;
    };
    let Before { config, code } = *before;
    (function.config, function.code) = (config, code);
    // An Instance of what failed may have been started.
    function.generation = function.generation.saturating_add(1);
}

fn reason(text: &str, code: &str) -> StateReason {
    StateReason { text: text.to_owned(), code: code.to_owned() }
}
