//! Connections: accepting them within bounds, and ending them when it is time.
//!
//! HTTP/1.0, 1.1 and 2 (prior knowledge) on one port. A connection that sends nothing, or its headers
//! too slowly, is closed, as is one whose client does not read ([`crate::patience`]). When the server stops, connections finish the request they serve and
//! accept no further one; after the grace period they are cut.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Peer;
use crate::gateway::{Gateway, Origin};
use crate::lanes::{Lanes, Place};
use crate::patience::Patient;

/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// Most bytes of a request's headers.
const HEADER_BYTES: usize = 128 * 1024;
/// Most bytes of a request's headers in HTTP/2.
const HEADER_BYTES_H2: u32 = 64 * 1024;
/// Most concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Bytes a client may send ahead on one HTTP/2 stream.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// How often an HTTP/2 client must show that it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// The pause after a failed accept, for example when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections of `listener` until `stop`, then gives them `grace`; on `lanes`, or where it
/// runs itself.
pub(crate) async fn serve(
    gateway: Gateway,
    origin: Origin,
    listener: TcpListener,
    lanes: Option<Arc<Lanes>>,
    stop: CancellationToken,
    grace: Duration,
) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let slots = Arc::new(Semaphore::new(gateway.max_connections(origin)));
    let builder = Arc::new(builder(&gateway));
    while let Some((stream, address, slot)) = accept(&listener, &slots, &stop).await {
        let peer = match origin {
            Origin::Host => Peer::at(address.ip()),
            Origin::Sandbox(number) => Peer::Sandbox(number),
        };
        let place = lanes.as_ref().map(|lanes| lanes.place());
        let handle = place.as_ref().map_or_else(Handle::current, |place| place.handle().clone());
        let (stop, cut) = (stop.clone(), cut.clone());
        let connection = Connection { peer, stop, cut, _slot: slot, _place: place };
        let run = connection.run(Arc::clone(&builder), gateway.clone(), stream);
        connections.spawn_on(run, &handle);
    }
    drop(listener);
    connections.close();
    if timeout(grace, connections.wait()).await.is_err() {
        tracing::debug!(connections = connections.len(), "Cutting connections.");
        cut.cancel();
        connections.wait().await;
    }
}

/// The next connection and its place, or nothing when it is time to stop.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.expect("it is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, address)) => return (stream, address, slot),
                Err(error) => {
                    tracing::warn!(%error, "Cannot accept a connection.");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        accepted = next => Some(accepted),
    }
}

fn builder(gateway: &Gateway) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(gateway.header_patience())
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_H2)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

/// One connection's ends.
struct Connection {
    peer: Peer,
    stop: CancellationToken,
    cut: CancellationToken,
    _slot: OwnedSemaphorePermit,
    _place: Option<Place>,
}

impl Connection {
    async fn run(
        self,
        builder: Arc<auto::Builder<TokioExecutor>>,
        gateway: Gateway,
        stream: TcpStream,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "Cannot turn off Nagle's algorithm.");
        }
        // Its events come to the loop that it is served on, not to the one that accepted it.
        let moved = stream.into_std().and_then(TcpStream::from_std);
        let stream = match moved {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "Cannot serve a connection."),
        };
        let patience = gateway.header_patience();
        let spoke = AtomicBool::new(false);
        let service = service_fn(|request| {
            spoke.store(true, Ordering::Relaxed);
            gateway.clone().handle(self.peer, request)
        });
        let mut connection =
            pin!(builder.serve_connection(TokioIo::new(Patient::new(stream)), service));
        // The version of HTTP is found out before hyper's own timeout for headers begins.
        let mut silence = pin!(sleep(patience));
        let (mut stopping, mut waiting) = (false, true);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "Connection failed.");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = silence.as_mut(), if waiting => {
                    waiting = false;
                    if !spoke.load(Ordering::Relaxed) {
                        return;
                    }
                }
                () = self.cut.cancelled() => return,
            }
        }
    }
}
