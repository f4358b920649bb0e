//! The Lambda Runtime API as a channel.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lacewing_model::Credentials;

use super::{Answer, Call, Readiness};
use crate::runtime_api::{self, Counts, Event, Shared, SnapStart};

/// The way to a custom runtime.
#[derive(Clone, Debug)]
pub(crate) struct Custom(Arc<Shared>);

impl Custom {
    /// Serves the API on `listener` until `closed`, to a runtime with so many invocations at a time, with
    /// SnapStart or not.
    pub(crate) fn open(
        listener: TcpListener,
        most: usize,
        snap_start: Option<SnapStart>,
        tasks: &TaskTracker,
        closed: CancellationToken,
    ) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared::new(most, snap_start));
        let serving = runtime_api::serve(listener, Arc::clone(&shared));
        tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = serving => {}
            }
        });
        Ok(Self(shared))
    }

    /// The terms of what is copied from a runtime that stands.
    pub(crate) fn of_copy(&self, credentials: Credentials) -> Option<SnapStart> {
        self.0.of_copy(credentials)
    }

    /// Calls of a runtime with SnapStart.
    pub(crate) fn counts(&self) -> Counts {
        self.0.counts()
    }

    pub(super) async fn readiness(&self) -> Readiness {
        self.0.readiness().await
    }

    pub(crate) fn begin(&self, call: &Call<'_>) {
        let invocation = call.invocation;
        let event = Event {
            request_id: invocation.request_id.to_string(),
            deadline_ms: call.deadline.as_millis(),
            arn: call.arn(),
            trace: invocation.trace.clone(),
            client_context: invocation.client_context.clone(),
            payload: invocation.payload.clone(),
        };
        self.0.offer(event, call.outlet.cloned());
    }

    pub(crate) async fn answer(&self, call: &Call<'_>) -> Answer {
        let mut id = uuid::Uuid::encode_buffer();
        self.0.answer(id_of(call, &mut id)).await
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn withdraw(&self, call: &Call<'_>) {
        let mut id = uuid::Uuid::encode_buffer();
        self.0.withdraw(id_of(call, &mut id));
    }
}

/// As the runtime is told of it.
fn id_of<'a>(call: &Call<'_>, buffer: &'a mut [u8]) -> &'a str {
    call.invocation.request_id.as_uuid().hyphenated().encode_lower(buffer)
}
