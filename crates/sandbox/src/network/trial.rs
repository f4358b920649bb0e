//! Tries once whether the host forwards: the strongest evidence there is.
//!
//! For a moment there is another namespace behind another link of the host; the router sends a
//! datagram to it and waits for its answer. Rules of others that would stop a function stop this.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use super::addresses::Link;
use super::host;
use super::namespace::Namespace;
use super::netlink::{Batch, Socket};
use super::route::End;
use super::router::LINK;

/// The port of `discard`, which nobody has a reason to redirect.
const PORT: u16 = 9;
/// It takes microseconds when it works, but an interface may need a moment before it sends.
const PATIENCE: Duration = Duration::from_millis(60);
const ATTEMPTS: usize = 10;

/// What came of it, for each family.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) v4: io::Result<()>,
    pub(super) v6: io::Result<()>,
}

/// Tries both families.
pub(super) fn run(
    home: &Namespace,
    router: &Namespace,
    host: &Socket,
    interface: &str,
    link: Link,
    has_v6: bool,
) -> Tried {
    let made = Namespace::make(home, |_| {
        let here = End { name: "eth0", index: Some(LINK), namespace: None };
        let there = End { name: interface, index: None, namespace: Some(home.as_fd()) };
        let mut batch = Batch::default();
        batch.pair(here, there).up(LINK).address(LINK, link.ours.only(has_v6));
        batch.default_route(LINK, has_v6);
        Socket::route()?.ask(&batch)
    });
    let ready = made.and_then(|(far, _)| {
        host::host_end(host, interface, &link, has_v6)?;
        Ok(far)
    });
    let tried = match ready {
        Ok(far) => {
            let one = |address: IpAddr| exchange(home, router, &far, address);
            let v6 = match link.ours.v6.filter(|_| has_v6) {
                Some(address) => one(address.into()),
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            Tried { v4: one(link.ours.v4.into()), v6 }
        }
        Err(error) => Tried { v6: Err(io::Error::from(error.kind())), v4: Err(error) },
    };
    host.ask(Batch::default().remove(interface)).ok();
    tried
}

fn exchange(
    home: &Namespace,
    router: &Namespace,
    far: &Namespace,
    address: IpAddr,
) -> io::Result<()> {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let there = far.visit(home, || UdpSocket::bind((address, PORT)))?;
    let here = router.visit(home, || UdpSocket::bind(any))?;
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let once = || {
        here.send_to(b"?", (address, PORT))?;
        let (_, from) = there.recv_from(&mut [0; 1])?;
        there.send_to(b"!", from)?;
        here.recv_from(&mut [0; 1]).map(|_| ())
    };
    let mut tried = once();
    for _ in 1..ATTEMPTS {
        tried = tried.or_else(|_| once());
    }
    tried
}
