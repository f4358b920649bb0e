//! Having an Instance, and giving it back whatever happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use lacewing_model::Invocation;
use lacewing_runtime::Completion;
use lacewing_runtime::stream::Outlet;

use super::{Born, Serve, Shared, Source, Wait};
use crate::pool::core::{Event, InstanceId, WaiterId};

/// One Instance, for one invocation.
#[derive(Debug)]
pub(crate) struct Lease<S: Source> {
    shared: Arc<Shared<S>>,
    /// Which Instance, and for whom.
    id: (InstanceId, WaiterId),
    /// Absent only after `drop` took it.
    born: Option<Box<Born<S::Instance>>>,
    /// False while an invocation is under way.
    is_whole: bool,
    wait: Wait,
}

/// Tells the core of an event when it is dropped, so that a task that is given up or panics does
/// not leave the core waiting for it.
pub(super) struct AtEnd<S: Source> {
    shared: Arc<Shared<S>>,
    event: Option<Event>,
}

/// A future that is polled in place, and moves to a tracked task when its owner drops it early.
#[derive(Debug)]
#[must_use = "it does nothing before it is polled or dropped"]
pub(crate) struct RunOn<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Boxed so that it can move into a task after it was polled; absent when it is over.
    work: Option<Pin<Box<F>>>,
    tasks: TaskTracker,
    runtime: Handle,
}

// === Lease ===

impl<S: Source> Lease<S> {
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        id: (InstanceId, WaiterId),
        born: Box<Born<S::Instance>>,
        wait: Wait,
    ) -> Self {
        Self { shared, id, born: Some(born), is_whole: true, wait }
    }

    /// What its caller waited for.
    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    /// Serves the invocation; a response that is streamed goes to the outlet, if there is one.
    pub(crate) async fn invoke(
        &mut self,
        call: &Invocation,
        outlet: Option<&Outlet>,
    ) -> Completion {
        let born = self.born.as_mut().expect("only `drop` takes it out");
        self.is_whole = false;
        let completion = born.instance.invoke(call, outlet).await;
        self.is_whole = true;
        completion
    }
}

impl<S: Source> Drop for Lease<S> {
    fn drop(&mut self) {
        let Some(born) = self.born.take() else { return };
        give_back(&self.shared, self.id, born, self.is_whole);
    }
}

/// Gives an Instance back; it is ended unless it is whole.
pub(super) fn give_back<S: Source>(
    shared: &Arc<Shared<S>>,
    (instance, waiter): (InstanceId, WaiterId),
    born: Box<Born<S::Instance>>,
    is_whole: bool,
) {
    let reusable = is_whole && born.instance.is_reusable();
    let event = Event::Done { instance, waiter, memory: born.instance.last_memory(), reusable };
    // The Instance of a seat is where it was.
    let parked = if born.instance.is_seat() { None } else { Some((instance, born)) };
    shared.clone().note_with(event, parked, None);
}

// === AtEnd ===

impl<S: Source> AtEnd<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, event: Event) -> Self {
        Self { shared, event: Some(event) }
    }

    /// The end is reported otherwise.
    pub(super) fn disarm(mut self) {
        self.event = None;
    }
}

impl<S: Source> Drop for AtEnd<S> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.shared.clone().note(event);
        }
    }
}

// === RunOn ===

impl<F> RunOn<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    pub(super) fn new(work: F, tasks: TaskTracker, runtime: Handle) -> Self {
        Self { work: Some(Box::pin(work)), tasks, runtime }
    }
}

impl<F> Future for RunOn<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out while it is polled: work that panics is never polled again.
        let mut work = self.work.take().expect("not polled again after it was ready");
        let progress = work.as_mut().poll(context);
        if progress.is_pending() {
            self.work = Some(work);
        }
        progress
    }
}

impl<F> Drop for RunOn<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        let rest = async move { drop(work.await) };
        drop(self.tasks.spawn_on(rest, &self.runtime));
    }
}
