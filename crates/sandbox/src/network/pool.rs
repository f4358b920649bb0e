//! Network namespaces that are made ahead, so that a new sandbox finds its own ready.
//!
//! Each is given away once and is destroyed with its sandbox. They are made while the launcher has
//! nothing else to do; a start that finds none makes its own and pays for it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::wire::Gauge;

use rustix::process::Pid;

use super::namespace::Namespace;
use super::netlink::{Batch, Socket};
use super::{Network, Router, addresses, route};

/// Kept ready of what most sandboxes want, and of the other.
const READY: usize = 8;
const READY_OTHER: usize = 2;
/// Numbers that are tried when one is still in use.
const ATTEMPTS: u32 = 16;

/// How often it is looked whether a link can send, and the time between.
const SETTLING: (u32, Duration) = (100, Duration::from_micros(100));

/// A namespace that waits for its sandbox.
#[derive(Debug)]
pub(crate) struct Pooled {
    pub(crate) namespace: Namespace,
    /// What counts its bytes.
    pub(crate) gauges: Vec<(Gauge, OwnedFd)>,
}

/// The namespaces that wait.
#[derive(Debug)]
pub(crate) struct Pool {
    home: Namespace,
    router: Option<Router>,
    plain: Vec<Pooled>,
    egress: Vec<Pooled>,
    next: u32,
    /// Set by a failure, so that it is not repeated before somebody asks.
    resting: bool,
}

impl Pool {
    /// Begins empty; without a router there is no way out for anybody.
    pub(crate) fn new(home: Namespace, router: Option<Router>) -> Self {
        let (plain, egress) = (Vec::new(), Vec::new());
        Self { home, router, plain, egress, next: 0, resting: false }
    }

    /// The launcher's own namespace.
    pub(crate) fn home(&self) -> &Namespace {
        &self.home
    }

    /// Takes a namespace out for good.
    pub(crate) fn take(&mut self, wanted: Network) -> io::Result<Pooled> {
        self.resting = false;
        let ready = match wanted {
            Network::Egress if self.router.is_some() => self.egress.pop(),
            Network::Egress | Network::None => self.plain.pop(),
        };
        ready.map_or_else(|| self.make(wanted, true), Ok)
    }

    /// Whether there is something to make.
    pub(crate) fn is_short(&self) -> bool {
        !self.resting && self.lacking().is_some()
    }

    /// Whether few are left.
    pub(crate) fn is_low(&self) -> bool {
        let used = if self.router.is_some() { &self.egress } else { &self.plain };
        !self.resting && used.len() < READY / 2
    }

    /// Makes one of those that are lacking.
    pub(crate) fn refill(&mut self) {
        let Some(wanted) = self.lacking() else { return };
        match (self.make(wanted, false), wanted) {
            (Ok(pooled), Network::Egress) => self.egress.push(pooled),
            (Ok(pooled), Network::None) => self.plain.push(pooled),
            // The next sandbox that needs one tries again, and is told why.
            (Err(_), _) => self.resting = true,
        }
    }

    /// What can be read when [`Pool::host_changed`] is to be called.
    pub(crate) fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.router.as_ref().and_then(Router::watched)
    }

    /// Takes note of what the host has become.
    pub(crate) fn host_changed(&mut self) {
        if let Some(router) = &mut self.router {
            router.host_changed();
        }
    }

    /// Takes back what does not go by itself.
    pub(crate) fn close(&mut self) {
        self.plain.clear();
        self.egress.clear();
        if let Some(router) = self.router.take() {
            router.close();
        }
    }

    fn lacking(&self) -> Option<Network> {
        let (egress, plain) = if self.router.is_some() { (READY, READY_OTHER) } else { (0, READY) };
        if self.egress.len() < egress {
            return Some(Network::Egress);
        }
        (self.plain.len() < plain).then_some(Network::None)
    }

    /// Connects the namespace of a process, which has made it for itself; returns what counts its bytes.
    pub(crate) fn plug(&mut self, pid: Pid, wanted: Network) -> io::Result<Vec<(Gauge, OwnedFd)>> {
        if wanted == Network::None || self.router.is_none() {
            return Ok(Vec::new());
        }
        let theirs = Namespace::of(pid)?;
        let (_, gauges) = self.connect(true, |home, work| {
            let socket = theirs.visit(home, || work(&theirs))?;
            Ok(((), socket))
        })?;
        Ok(gauges)
    }

    /// Makes one; one that is used `at_once` has to be able to send before it is given away.
    fn make(&mut self, wanted: Network, at_once: bool) -> io::Result<Pooled> {
        if self.router.is_none() || wanted == Network::None {
            let up = |_: &Namespace| Socket::route()?.ask(Batch::default().loopback()).map(drop);
            let (namespace, _) = Namespace::make(&self.home, up)?;
            return Ok(Pooled { namespace, gauges: Vec::new() });
        }
        let made = self.connect(at_once, |home, work| Namespace::make(home, work));
        made.map(|(namespace, gauges)| Pooled { namespace, gauges })
    }

    /// Connects a namespace with the router; `inside` does a work in it.
    fn connect<T>(
        &mut self,
        at_once: bool,
        inside: impl Fn(
            &Namespace,
            &dyn Fn(&Namespace) -> io::Result<Socket>,
        ) -> io::Result<(T, Socket)>,
    ) -> io::Result<(T, Vec<(Gauge, OwnedFd)>)> {
        let router = self.router.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        for _ in 0..ATTEMPTS {
            let number = self.next;
            self.next = (self.next + 1) % addresses::SANDBOXES;
            let mut batch = Batch::default();
            batch.loopback();
            router.plug(&mut batch, number);
            let plugged = inside(&self.home, &|_| {
                let socket = Socket::route()?;
                socket.ask(&batch).map(|_| socket)
            });
            match plugged {
                Ok((namespace, socket)) => {
                    let gauges = router.attach(number)?;
                    if at_once {
                        settle(&socket);
                    }
                    return Ok((namespace, gauges));
                }
                // A sandbox of long ago still lives under this number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Waits until the end of a link that came up first can send: the kernel sees to that aside, and a
/// first packet that is lost would cost a function a second.
fn settle(inside: &Socket) {
    for _ in 0..SETTLING.0 {
        let found = inside.ask(Batch::default().find("eth0"));
        if found.is_ok_and(|answers| route::is_operational(&answers)) {
            return;
        }
        std::thread::sleep(SETTLING.1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::thread::UnshareFlags;

    use super::*;
    use crate::{NetworkOptions, sys};

    #[test]
    #[ignore = "a bench, run by make bench"]
    fn bench_pool() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: it needs root");
            return;
        }
        // The thread of this test leaves the host's network.
        sys::unshare(UnshareFlags::NEWNET).unwrap();
        let home = Namespace::current().unwrap();
        let (router, _names) = Router::open(&home, "benchbench01", &NetworkOptions::egress())
            .unwrap_or_else(|lack| panic!("{}", lack.why));
        let mut pool = Pool::new(home, Some(router));
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        for wanted in [Network::None, Network::Egress] {
            let (mut made, mut taken) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let began = Instant::now();
                let one = pool.make(wanted, false).unwrap();
                made.push(began.elapsed());
                match wanted {
                    Network::None => pool.plain.push(one),
                    Network::Egress => pool.egress.push(one),
                }
                let began = Instant::now();
                let one = pool.take(wanted).unwrap();
                one.namespace.enter().unwrap();
                pool.home().enter().unwrap();
                taken.push(began.elapsed());
            }
            println!(
                "a namespace for {wanted:?}: made in {:?}, taken, entered and left in {:?} (p50)",
                median(made),
                median(taken)
            );
        }
        pool.close();
    }
}
