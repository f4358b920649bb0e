//! Hands out the listeners on which sandboxes reach the platform's own API.
//!
//! Each sandbox has one listening socket inside its own network namespace; whoever serves the
//! platform's API takes it from here. Nothing here accepts a connection.

use std::net::TcpListener;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Listeners that may wait to be taken; a sandbox that starts while so many wait, waits too.
const WAITING: usize = 64;

/// The platform's address inside one sandbox.
#[derive(Debug)]
pub struct EndpointListener {
    /// Accepts the connections of the code inside; non-blocking.
    pub listener: TcpListener,
    /// Cancelled when the sandbox is gone.
    pub closed: CancellationToken,
}

/// Gives the endpoint listener of every sandbox that starts.
#[derive(Debug)]
pub struct EndpointListeners(mpsc::Receiver<EndpointListener>);

impl EndpointListeners {
    /// Waits for the next sandbox; `None` when no further sandbox can start.
    pub async fn next(&mut self) -> Option<EndpointListener> {
        self.0.recv().await
    }
}

/// Makes the two ends.
pub(crate) fn channel() -> (mpsc::Sender<EndpointListener>, EndpointListeners) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, EndpointListeners(receiver))
}
