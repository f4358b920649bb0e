//! The threads on which the host's connections are served, each with an event loop of its own.
//!
//! A connection stays on the lane that it was given. Its request, what the function answers and its
//! response are events of that one loop, so a warm call wakes no other thread, as it does on a pool
//! of threads that steal from each other. What takes long never runs here: starts, documents of
//! megabytes and files have threads of their own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// All lanes; they end when this is dropped, and what is still served on them is given up.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    /// Connections that it serves.
    load: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// A place on a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

// === Lanes ===

impl Lanes {
    /// Starts one lane for each processor that this process may use.
    ///
    /// # Errors
    /// If a thread or its event loop cannot be made.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let stop = CancellationToken::new();
        let lanes = (0..count).map(|number| Lane::start(number, stop.clone()));
        Ok(Self { lanes: lanes.collect::<io::Result<_>>()?, stop })
    }

    /// A place on the lane that serves the fewest.
    pub(crate) fn place(&self) -> Place {
        let least = self.lanes.iter().min_by_key(|lane| lane.load.load(Ordering::Relaxed));
        let lane = least.expect("there is at least one processor");
        lane.load.fetch_add(1, Ordering::Relaxed);
        Place { handle: lane.handle.clone(), load: Arc::clone(&lane.load) }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.lanes.iter_mut().filter_map(|lane| lane.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("A thread of connections panicked.");
            }
        }
    }
}

// === Lane ===

impl Lane {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new()
            .name(format!("lane-{number}"))
            .spawn(move || runtime.block_on(stop.cancelled()))?;
        Ok(Self { handle, load: Arc::default(), thread: Some(thread) })
    }
}

// === Place ===

impl Place {
    /// The event loop.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_where_the_fewest_are() {
        let stop = CancellationToken::new();
        let lanes = (0..2).map(|number| Lane::start(number, stop.clone()).unwrap());
        let lanes = Lanes { lanes: lanes.collect(), stop };
        let (first, second, third) = (lanes.place(), lanes.place(), lanes.place());
        assert_ne!(first.handle().id(), second.handle().id());
        let of_second = second.handle().id();
        drop((first, second));
        assert_eq!(lanes.place().handle().id(), of_second, "the other has one still");
        drop(third);
        // Dropping joins threads, which an event loop must not wait for.
        tokio::task::spawn_blocking(move || drop(lanes)).await.unwrap();
    }

    #[tokio::test]
    async fn what_runs_on_a_lane_stays_on_its_thread() {
        let lanes = Lanes::start().unwrap();
        let place = lanes.place();
        let threads = place.handle().spawn(async {
            let before = thread::current().id();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            (before, thread::current().id())
        });
        let (before, after) = threads.await.unwrap();
        assert_eq!(before, after);
        assert_ne!(before, thread::current().id());
        tokio::task::spawn_blocking(move || drop(lanes)).await.unwrap();
    }
}
