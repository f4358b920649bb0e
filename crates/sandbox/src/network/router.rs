//! The router namespace: made at the launcher's start, gone with it.
//!
//! What is in it is the same for every launcher; how it gets out is its [`Uplink`]'s matter.

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::step::Step;
use crate::wire::Gauge;

use super::addresses::{self, Address, NAMESERVER, ROUTER};
use super::host::Host;
use super::namespace::Namespace;
use super::netlink::{Batch, Socket};
use super::pasta::{Begun, Pasta};
use super::route::{self, End};
use super::{Lack, NetworkOptions, ruleset};

/// Index of our end of a link in a namespace where we chose it.
pub(super) const LINK: u32 = 2;
/// Indices of the router's ends of sandboxes begin here.
const FIRST_INDEX: u32 = 16;
/// What the router's namespace is told of itself: whom it forwards, and that it believes nobody.
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
];
const SETTINGS6: &[(&str, &str)] = &[
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
];

/// Seconds after which the router forgets a connection, so that its bound counts those that are in
/// use and not those of the last two minutes.
const TIMEOUTS: &[(&str, &str)] = &[
    ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "30"),
    ("netfilter/nf_conntrack_tcp_timeout_fin_wait", "20"),
    ("netfilter/nf_conntrack_tcp_timeout_close_wait", "20"),
    ("netfilter/nf_conntrack_tcp_timeout_last_ack", "10"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "5"),
    ("netfilter/nf_conntrack_udp_timeout", "10"),
];

/// The way out for all sandboxes of a launcher.
#[derive(Debug)]
pub(crate) struct Router {
    namespace: Namespace,
    /// Speaks of what is in the router.
    inside: Socket,
    /// A file system that shows the router's interfaces; why there is none otherwise.
    statistics: io::Result<OwnedFd>,
    uplink: Uplink,
    /// Why there is no IPv6, if there is none.
    lacks_v6: Option<String>,
    bytes_per_second: Option<u64>,
}

/// How packets leave the router.
#[derive(Debug)]
enum Uplink {
    /// As root: by a link to the host, which forwards.
    Host(Host),
    /// As an ordinary user: by a program that opens the connections anew.
    Pasta(Pasta),
}

/// What is made within the router, before it has an uplink.
#[derive(Debug)]
struct Inside {
    socket: Socket,
    statistics: io::Result<OwnedFd>,
    names: NameSockets,
}

/// Where the relay of DNS listens.
#[derive(Debug)]
pub(crate) struct NameSockets {
    pub(crate) udp: OwnedFd,
    pub(crate) tcp: OwnedFd,
}

impl Router {
    /// Makes everything as root and tries it.
    pub(crate) fn open(
        home: &Namespace,
        owner: &str,
        options: &NetworkOptions,
    ) -> Result<(Self, NameSockets), Lack> {
        let has_v6 = has_v6();
        let (host, link, far) = Host::open(owner, options, has_v6)?;
        let made = Namespace::make(home, |_| {
            let made = inside(&ruleset::router(options), has_v6)?;
            host.plug(home, &made.socket, &link, has_v6)?;
            Ok(made)
        });
        let (namespace, Inside { socket, statistics, names }) = made.step("make the router")?;
        let statistics = Ok(statistics.step("count bytes")?);
        let (host, lacks_v6) = host.connect(home, &namespace, &link, far, has_v6)?;
        let bytes_per_second = options.bytes_per_second;
        let uplink = Uplink::Host(host);
        let router =
            Self { namespace, inside: socket, statistics, uplink, lacks_v6, bytes_per_second };
        Ok((router, names))
    }

    /// Makes everything as an ordinary user, who has left the host's network for `home`.
    pub(crate) fn open_by_pasta(
        home: &Namespace,
        begun: Begun,
        options: &NetworkOptions,
    ) -> Result<(Self, NameSockets), Lack> {
        let has_v6 = has_v6();
        let made = Namespace::make(home, |_| inside(&ruleset::user_router(options), has_v6));
        let (namespace, Inside { socket, statistics, names }) = made.step("make the router")?;
        let filter = namespace.visit(home, Socket::netfilter).step("open a socket for rules")?;
        let pasta = begun.connect(&namespace, &socket, filter, has_v6)?;
        let lacks_v6 = pasta.lacks_v6().map(str::to_owned);
        let bytes_per_second = options.bytes_per_second;
        let uplink = Uplink::Pasta(pasta);
        let router =
            Self { namespace, inside: socket, statistics, uplink, lacks_v6, bytes_per_second };
        Ok((router, names))
    }

    /// Says what is in force, in a few words.
    pub(crate) fn detail(&self) -> String {
        let families = match (&self.uplink, &self.lacks_v6) {
            (Uplink::Pasta(pasta), _) => pasta.detail(),
            (_, None) => "IPv4 and IPv6".to_owned(),
            (_, Some(why)) => return format!("IPv4 only, no IPv6: {why}"),
        };
        let counted = match &self.statistics {
            Ok(_) => String::new(),
            Err(error) => format!("; bytes are not counted, as sysfs cannot be mounted: {error}"),
        };
        format!("{families} to what the policy leaves, DNS through the server{counted}")
    }

    /// What can be read when the host's addresses may have changed, where that matters.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        match &self.uplink {
            Uplink::Host(_) => None,
            Uplink::Pasta(pasta) => Some(pasta.watched()),
        }
    }

    /// Refuses the addresses that the host has now.
    pub(super) fn host_changed(&mut self) {
        if let Uplink::Pasta(pasta) = &mut self.uplink {
            pasta.host_changed();
        }
    }

    /// The addresses of a sandbox, of the families that work.
    pub(super) fn address(&self, number: u32) -> Address {
        addresses::sandbox(number).only(self.lacks_v6.is_none())
    }

    /// Adds what makes a new namespace a sandbox's: its end of a pair, address and routes.
    pub(super) fn plug(&self, batch: &mut Batch, number: u32) {
        let name = end_name(number);
        let here = End { name: "eth0", index: Some(LINK), namespace: None };
        let namespace = Some(self.namespace.as_fd());
        let there = End { name: &name, index: Some(FIRST_INDEX + number), namespace };
        batch.pair(here, there).up(LINK).address(LINK, self.address(number));
        batch.default_route(LINK, self.lacks_v6.is_none());
        if let Some(most) = self.bytes_per_second {
            batch.bound(LINK, most);
        }
    }

    /// Sets up the router's end of a sandbox, and opens what counts its bytes.
    pub(super) fn attach(&self, number: u32) -> io::Result<Vec<(Gauge, OwnedFd)>> {
        let index = FIRST_INDEX + number;
        let mut batch = Batch::default();
        batch.up(index).route(self.address(number), index);
        if let Some(most) = self.bytes_per_second {
            batch.bound(index, most);
        }
        self.inside.ask(&batch)?;
        let Ok(statistics) = &self.statistics else { return Ok(Vec::new()) };
        let open = |gauge, file: &str| {
            let path = format!("class/net/{}/statistics/{file}", end_name(number));
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            io::Result::Ok((gauge, openat(statistics, path, flags, Mode::empty())?))
        };
        // What the router receives the sandbox has sent.
        Ok(vec![open(Gauge::NetSent, "rx_bytes")?, open(Gauge::NetReceived, "tx_bytes")?])
    }

    /// Takes back what does not go by itself.
    pub(crate) fn close(self) {
        match self.uplink {
            Uplink::Host(host) => host.close(),
            Uplink::Pasta(pasta) => pasta.close(),
        }
    }
}

/// Whether this kernel has IPv6.
fn has_v6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// Everything within the router but its uplink; the caller is in it.
fn inside(rules: &Batch, has_v6: bool) -> io::Result<Inside> {
    let settings6 = if has_v6 { SETTINGS6 } else { &[] };
    // Before there is anything to filter; it also brings the connection tracking.
    Socket::netfilter()?.ask(rules)?;
    for (name, value) in SETTINGS.iter().chain(settings6).chain(TIMEOUTS) {
        fs::write(format!("/proc/sys/net/{name}"), value)?;
    }
    let socket = Socket::route()?;
    socket.ask(Batch::default().loopback().address(route::LOOPBACK, ROUTER.only(has_v6)))?;
    let udp = UdpSocket::bind((NAMESERVER, 53))?;
    let tcp = TcpListener::bind((NAMESERVER, 53))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let names = NameSockets { udp: udp.into(), tcp: tcp.into() };
    Ok(Inside { socket, statistics: statistics(), names })
}

/// A sysfs of the namespace in which this process is, mounted nowhere.
fn statistics() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

fn end_name(number: u32) -> String {
    format!("{}{number}", ruleset::SANDBOX)
}
