//! The uplink of root: a link from the router to the host, and the host's share of rules.
//!
//! The host gets one interface and one table, which the kernel removes when the launcher ends.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::step::{Failure, Step};

use super::addresses::{self, Link};
use super::forwarding::{self, Forwarding};
use super::namespace::Namespace;
use super::netlink::{Batch, Socket};
use super::route::{self, End};
use super::router::LINK;
use super::{Lack, NetworkOptions, ruleset, trial};

/// Connections of all sandboxes that the host tracks at a time.
pub(super) const MOST_CONNECTIONS: u32 = 65_536;
/// How many places for the uplink are tried before it is given up.
const ATTEMPTS: u32 = 64;

/// The host's end of the uplink, and what was changed for it.
#[derive(Debug)]
pub(super) struct Host {
    /// Speaks of what is in the host.
    outside: Socket,
    /// The host's table lives as long as this.
    table: Socket,
    name: String,
    interface: String,
    forwarding: Forwarding,
    forwards_v6: Result<(), String>,
}

impl Host {
    /// Finds a place for the uplink and for the trial's link, and sees to it that the host forwards.
    pub(super) fn open(
        owner: &str,
        options: &NetworkOptions,
        has_v6: bool,
    ) -> Result<(Self, Link, Link), Failure> {
        let outside = Socket::route().step("open a socket for routes")?;
        let interface = addresses::interface(owner);
        // What a dead launcher left, if its server outlives it; most often nothing is there.
        outside.ask(Batch::default().remove(&interface)).ok();
        let [link, far] = free_links(&outside, owner)?;
        let table = Socket::netfilter().step("open a socket for rules")?;
        let (forwarding, forwards_v6) = Forwarding::open(owner, options, &outside, has_v6)?;
        let name = format!("lacewing-{owner}");
        Ok((Self { outside, table, name, interface, forwarding, forwards_v6 }, link, far))
    }

    /// Makes the link; the caller is in the router, of which `inside` speaks.
    pub(super) fn plug(
        &self,
        home: &Namespace,
        inside: &Socket,
        link: &Link,
        has_v6: bool,
    ) -> io::Result<()> {
        let here = End { name: ruleset::UPLINK, index: Some(LINK), namespace: None };
        let there = End { name: &self.interface, index: None, namespace: Some(home.as_fd()) };
        let mut batch = Batch::default();
        batch.pair(here, there).up(LINK).address(LINK, link.ours.only(has_v6));
        batch.default_route(LINK, has_v6);
        inside.ask(&batch).map(|_| ())
    }

    /// Makes the host's share and tries it; the second result says why there is no IPv6.
    pub(super) fn connect(
        self,
        home: &Namespace,
        router: &Namespace,
        link: &Link,
        far: Link,
        has_v6: bool,
    ) -> Result<(Self, Option<String>), Lack> {
        host_end(&self.outside, &self.interface, link, has_v6).step("set up the uplink")?;
        self.table
            .ask(&ruleset::host(&self.name, &self.interface, link, MOST_CONNECTIONS))
            .step("make the host's table of rules")?;
        let other = format!("{}t", self.interface);
        let tried = trial::run(home, router, &self.outside, &other, far, has_v6);
        if let Err(error) = tried.v4 {
            let lack = blocked(&self.interface, "IPv4", &error);
            self.close();
            return Err(lack);
        }
        let lacks_v6 = match (has_v6, &self.forwards_v6, tried.v6) {
            (false, ..) => Some("this kernel has none".to_owned()),
            (_, Err(why), _) => Some(why.clone()),
            (.., Err(error)) => {
                let Lack { why, remedy } = blocked(&self.interface, "IPv6", &error);
                Some(format!("{why}. {remedy}"))
            }
            (true, Ok(()), Ok(())) => None,
        };
        Ok((self, lacks_v6))
    }

    /// Takes back what does not go by itself.
    pub(super) fn close(self) {
        // A server that outlives us would keep the namespace, and with it the uplink.
        self.outside.ask(Batch::default().remove(&self.interface)).ok();
        self.forwarding.close();
    }
}

/// Finds addresses for the links that nothing of the host uses.
fn free_links(host: &Socket, owner: &str) -> Result<[Link; 2], Failure> {
    let is_free = |address: IpAddr| match host.ask(Batch::default().look_up(address)) {
        Ok(answers) => !route::is_special(&answers),
        // No route at all leads there.
        Err(_) => true,
    };
    (0..ATTEMPTS)
        .map(|attempt| addresses::links(owner, attempt))
        .find(|links| {
            links.iter().all(|link| is_free(link.host.v4.into()) && is_free(link.ours.v4.into()))
        })
        .ok_or_else(|| Failure("the host routes all of 198.18.0.0/16 somewhere".to_owned()))
}

/// Sets up the host's end of a link.
pub(super) fn host_end(host: &Socket, interface: &str, link: &Link, v6: bool) -> io::Result<()> {
    if v6 {
        // Our own interface has it also where new ones are not meant to.
        fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "0").ok();
    }
    let found = host.ask(Batch::default().find(interface))?;
    let index = route::index_of(&found).ok_or(io::ErrorKind::NotFound)?;
    let mut batch = Batch::default();
    batch.up(index).address(index, link.host.only(v6)).route(link.ours.only(v6), index);
    host.ask(&batch).map(|_| ())
}

/// Says what keeps packets from being forwarded, and what to do about it.
fn blocked(interface: &str, family: &str, error: &io::Error) -> Lack {
    let closed = forwarding::closed_chains();
    let by = if closed.is_empty() {
        error.to_string()
    } else {
        format!("{} drops what it does not know", closed.join(", "))
    };
    let why = format!("the host does not forward {family} from its interface {interface}: {by}");
    let remedy = format!(
        "Allow it: with Docker `iptables -I DOCKER-USER -i {interface} -j ACCEPT; iptables -I \
         DOCKER-USER -o {interface} -j ACCEPT`; with ufw `ufw route allow in on {interface}`; with \
         firewalld `firewall-cmd --zone=trusted --add-interface={interface}`; else as with Docker \
         in the chain FORWARD, with `ip6tables` for IPv6. Then restart the server."
    );
    Lack { why, remedy }
}
