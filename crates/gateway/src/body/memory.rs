//! The memory for large bodies: who may hold how much of it, and in which order.
//!
//! ```text
//!   a body --> its peer's line (a share of the pool) --> the pool's line --> memory
//! ```
//!
//! Both lines are first come, first served. A peer has no more than its share, the part that waits
//! in the pool's line included, so that however many bodies one peer announces, another's wait
//! behind one share at most. It counts promises; it never holds a byte.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lacewing_model::ByteSize;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted.
const UNIT: u64 = 1024;
/// The part of an IPv6 address that names a network: what one party usually has to itself.
const NETWORK: u128 = !0 << 64;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// An address of a network of the host.
    Address(IpAddr),
    /// The sandbox whose endpoint has this number.
    Sandbox(u64),
}

impl Peer {
    /// The peer at an address; the addresses of one IPv6 network are one peer.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// Whether it is a program of this host that connected over the loopback.
    pub(crate) fn is_local(self) -> bool {
        match self {
            Self::Address(IpAddr::V4(address)) => address.is_loopback(),
            // The network of ::1, in which nobody else can be.
            Self::Address(IpAddr::V6(network)) => network.is_unspecified(),
            Self::Sandbox(_) => false,
        }
    }
}

/// Memory of which every peer may have a share.
#[derive(Debug)]
pub(super) struct Pool {
    whole: Line,
    size: u32,
    share: u32,
    peers: Mutex<HashMap<Peer, Weak<Line>>>,
}

/// The right to hold a body, until dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    pool: Arc<Pool>,
    own: Arc<Line>,
    _permits: [OwnedSemaphorePermit; 2],
}

#[derive(Debug)]
struct Line {
    units: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Pool {
    pub(super) fn new(size: ByteSize, share: ByteSize) -> Self {
        let (size, share) = (units(size.as_bytes()), units(share.as_bytes()));
        Self { whole: Line::new(size), size, share, peers: Mutex::default() }
    }

    /// Waits for memory for a body. What is larger than the peer's share takes all of that, and what
    /// is larger than the pool all of the pool: it can always come to pass.
    pub(super) async fn reserve(self: &Arc<Self>, peer: Peer, bytes: u64) -> Reservation {
        let wanted = units(bytes);
        let own = self.line_of(peer);
        let first = own.take(wanted.min(self.share)).await;
        let second = self.whole.take(wanted.min(self.size)).await;
        Reservation { pool: Arc::clone(self), own, _permits: [first, second] }
    }

    fn line_of(&self, peer: Peer) -> Arc<Line> {
        let mut peers = self.peers.lock();
        if let Some(line) = peers.get(&peer).and_then(Weak::upgrade) {
            return line;
        }
        peers.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line::new(self.share));
        peers.insert(peer, Arc::downgrade(&line));
        line
    }
}

impl Reservation {
    /// Whether somebody waits for what this holds.
    pub(super) fn is_wanted(&self) -> bool {
        [&*self.own, &self.pool.whole].iter().any(|line| line.waiting.load(Ordering::Relaxed) > 0)
    }
}

impl Line {
    fn new(units: u32) -> Self {
        Self { units: Arc::new(Semaphore::new(units as usize)), waiting: AtomicUsize::new(0) }
    }

    async fn take(&self, wanted: u32) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(wanted) {
            return permit;
        }
        let _counted = Counted::new(&self.waiting);
        Arc::clone(&self.units).acquire_many_owned(wanted).await.expect("it is never closed")
    }
}

/// One who waits, for as long as this lives: also when it gives up.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const KB: u64 = 1024;

    fn pool() -> Arc<Pool> {
        Arc::new(Pool::new(ByteSize::bytes(12 * KB), ByteSize::bytes(8 * KB)))
    }

    fn peer(last: u8) -> Peer {
        Peer::at(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn one_peer_leaves_room_for_another() {
        let pool = pool();
        let mut held = Vec::new();
        held.push(pool.reserve(peer(1), 8 * KB).now_or_never().expect("its share"));
        let mut late: Vec<_> = (0..100).map(|_| Box::pin(pool.reserve(peer(1), 8 * KB))).collect();
        assert!(late.iter_mut().all(|wait| wait.now_or_never().is_none()), "one share, not more");
        held.push(pool.reserve(peer(2), 4 * KB).now_or_never().expect("not in that line"));
        assert!(held[0].is_wanted() && !held[1].is_wanted());
        drop((late, held));
        let all = pool.reserve(peer(3), 8 * KB).now_or_never().expect("all came back");
        assert!(!all.is_wanted(), "who gave up is not counted");
        assert_eq!(pool.peers.lock().len(), 1, "who is gone is forgotten");
    }

    #[test]
    fn the_pool_is_given_in_turn_and_whoever_holds_it_knows() {
        let pool = pool();
        let first = pool.reserve(peer(1), 8 * KB).now_or_never().expect("there is room");
        let mut second = Box::pin(pool.reserve(peer(2), 6 * KB));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(pool.reserve(peer(3), KB));
        assert!(third.as_mut().now_or_never().is_none(), "the small do not push in");
        assert!(first.is_wanted());
        drop(first);
        let second = second.now_or_never().expect("its turn");
        let third = third.now_or_never().expect("there is room");
        assert!(!second.is_wanted() && !third.is_wanted());
    }

    #[test]
    fn what_is_larger_than_all_takes_all() {
        let pool = pool();
        let _all = pool.reserve(peer(1), 1 << 40).now_or_never().expect("as much as there is");
        assert!(pool.reserve(peer(2), 1).now_or_never().is_none());
    }

    #[test]
    fn a_network_is_one_peer() {
        let at = |text: &str| Peer::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
