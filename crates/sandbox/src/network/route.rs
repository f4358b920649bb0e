//! Interfaces, addresses, routes and queues, as messages of rtnetlink(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::addresses::Address;
use super::netlink::{APPEND, Answer, Batch, CREATE, EXCLUSIVE, find};
use super::nft::IPV6;
use super::rules::{Range, Rule};

/// The index of `lo` in every namespace.
pub(super) const LOOPBACK: u32 = 1;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const DELADDR: u16 = 21;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWQDISC: u16 = 36;

const UP: u32 = 1;
const NOARP: u32 = 0x80;

/// Both ends of every link have it. Without address resolution each end writes its own as the
/// other's, so no packet of it (ARP, neighbour discovery) is sent or believed.
const MAC: [u8; 6] = [2, 0, 0, 0x6c, 0x61, 0x63];

/// One end of a pair of interfaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    /// Its number, chosen by us; any when absent.
    pub(super) index: Option<u32>,
    /// Where it goes; here when absent.
    pub(super) namespace: Option<BorrowedFd<'a>>,
}

impl Batch {
    /// Makes a pair of connected interfaces, down.
    pub(super) fn pair(&mut self, here: End<'_>, there: End<'_>) -> &mut Self {
        self.add(NEWLINK, CREATE | EXCLUSIVE, &link(here.index, 0, 0), |message| {
            message.text(3, here.name).put(1, &MAC);
            if let Some(namespace) = here.namespace {
                message.number(28, namespace.as_raw_fd().cast_unsigned());
            }
            message.nest(18, |info| {
                info.text(1, "veth").nest(2, |data| {
                    data.nest_after(1, &link(there.index, 0, 0), |peer| {
                        peer.text(3, there.name).put(1, &MAC);
                        if let Some(namespace) = there.namespace {
                            peer.number(28, namespace.as_raw_fd().cast_unsigned());
                        }
                    });
                });
            });
        })
    }

    /// Brings an end of a pair up, without address resolution and link-local addresses.
    pub(super) fn up(&mut self, index: u32) -> &mut Self {
        // IFLA_AF_SPEC, AF_INET6, IFLA_INET6_ADDR_GEN_MODE: none.
        self.add(NEWLINK, 0, &link(Some(index), 0, 0), |message| {
            message.nest(26, |families| {
                families.nest(10, |v6| {
                    v6.put(8, &[1]);
                });
            });
        });
        self.add(NEWLINK, 0, &link(Some(index), UP | NOARP, UP | NOARP), |_| {})
    }

    /// Brings the loopback interface up.
    pub(super) fn loopback(&mut self) -> &mut Self {
        self.add(NEWLINK, 0, &link(Some(LOOPBACK), UP, UP), |_| {})
    }

    /// Removes an interface, and with it the other end.
    pub(super) fn remove(&mut self, name: &str) -> &mut Self {
        self.add(DELLINK, 0, &link(None, 0, 0), |message| {
            message.text(3, name);
        })
    }

    /// Asks for an interface by name.
    pub(super) fn find(&mut self, name: &str) -> &mut Self {
        self.add(GETLINK, 0, &link(None, 0, 0), |message| {
            message.text(3, name);
        })
    }

    /// Gives an interface its addresses; the other end has none that they would lead to.
    pub(super) fn address(&mut self, index: u32, address: Address) -> &mut Self {
        for address in address.all() {
            let (family, bytes) = parts(address);
            let mut fixed = vec![family, width(&bytes), 0, 0];
            fixed.extend(index.to_ne_bytes());
            self.add(NEWADDR, CREATE | EXCLUSIVE, &fixed, |message| {
                // IFA_LOCAL, IFA_ADDRESS, IFA_FLAGS: no detection of duplicates.
                message.put(2, &bytes).put(1, &bytes).number(8, 2);
            });
        }
        self
    }

    /// Routes the addresses at the other end of a link to it.
    pub(super) fn route(&mut self, to: Address, index: u32) -> &mut Self {
        for address in to.all() {
            let (family, bytes) = parts(address);
            self.one_route(family, width(&bytes), &bytes, index);
        }
        self
    }

    /// Routes everything through a link.
    pub(super) fn default_route(&mut self, index: u32, with_v6: bool) -> &mut Self {
        self.one_route(2, 0, &[], index);
        if with_v6 { self.one_route(10, 0, &[], index) } else { self }
    }

    fn one_route(&mut self, family: u8, prefix: u8, to: &[u8], index: u32) -> &mut Self {
        // Table main, protocol static, unicast; IPv4 without a gateway has the scope of the link.
        let scope = if family == 2 { 253 } else { 0 };
        let fixed = [family, prefix, 0, 0, 254, 4, scope, 1, 0, 0, 0, 0];
        self.add(NEWROUTE, CREATE | APPEND, &fixed, |message| {
            if prefix > 0 {
                message.put(1, to);
            }
            message.number(4, index);
        })
    }

    /// Asks which route an address takes, and by which entry.
    pub(super) fn look_up(&mut self, address: IpAddr) -> &mut Self {
        let (family, bytes) = parts(address);
        // RTM_F_FIB_MATCH.
        let fixed =
            [&[family, width(&bytes), 0, 0, 0, 0, 0, 0][..], &0x2000_u32.to_ne_bytes()].concat();
        self.add(GETROUTE, 0, &fixed, |message| {
            message.put(1, &bytes);
        })
    }

    /// Lists all routes of IPv6.
    pub(super) fn routes6(&mut self) -> &mut Self {
        self.routes(IPV6, 0)
    }

    /// Lists the routes of a family; over a strict socket those of one type only.
    pub(super) fn routes(&mut self, family: u8, kind: u8) -> &mut Self {
        let fixed = [family, 0, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0];
        self.add(GETROUTE, super::netlink::DUMP, &fixed, |_| {})
    }

    /// Bounds what leaves through an interface, by a token bucket: tc-tbf(8).
    pub(super) fn bound(&mut self, index: u32, bytes_per_second: u64) -> &mut Self {
        // A tenth of a second, but never less than the largest segment.
        let burst =
            u32::try_from(bytes_per_second / 10).unwrap_or(u32::MAX).clamp(1 << 17, 1 << 26);
        let short = u32::try_from(bytes_per_second).unwrap_or(u32::MAX);
        // `struct tcmsg`: family, index, handle 1:, parent root.
        let mut fixed = vec![0; 4];
        fixed.extend(index.to_ne_bytes());
        fixed.extend(0x0001_0000_u32.to_ne_bytes());
        fixed.extend(u32::MAX.to_ne_bytes());
        fixed.extend(0_u32.to_ne_bytes());
        // `struct tc_tbf_qopt`: rate and peak rate (link layer Ethernet), limit, buffer, mtu.
        let mut options = vec![0, 1, 0, 0, 0, 0, 0, 0];
        options.extend(short.to_ne_bytes());
        options.extend([0; 12]);
        options.extend(burst.saturating_mul(2).to_ne_bytes());
        options.extend(0_u32.to_ne_bytes());
        options.extend(0_u32.to_ne_bytes());
        self.add(NEWQDISC, CREATE | EXCLUSIVE, &fixed, |message| {
            message.text(1, "tbf").nest(2, |tbf| {
                tbf.put(1, &options).put(4, &bytes_per_second.to_ne_bytes()).number(6, burst);
            });
        })
    }
}

/// The index in an answer to [`Batch::find`].
pub(super) fn index_of(answers: &[Answer]) -> Option<u32> {
    let (_, body) = answers.iter().find(|(kind, _)| *kind == NEWLINK)?;
    Some(u32::from_ne_bytes(*body.get(4..)?.first_chunk()?))
}

/// Whether the interface in an answer to [`Batch::find`] can send.
pub(super) fn is_operational(answers: &[Answer]) -> bool {
    // IFLA_OPERSTATE, IF_OPER_UP.
    let found = answers.iter().find(|(kind, _)| *kind == NEWLINK);
    found.and_then(|(_, body)| find(body.get(16..)?, 16)) == Some(&[6])
}

/// Whether the answer to [`Batch::look_up`] is a route more special than the default.
pub(super) fn is_special(answers: &[Answer]) -> bool {
    let route = answers.iter().find(|(kind, _)| *kind == NEWROUTE);
    route.and_then(|(_, body)| body.get(1)).is_some_and(|width| *width > 0)
}

/// Whether a default route of the answers to [`Batch::routes6`] came by an advertisement.
pub(super) fn is_advertised(answers: &[Answer]) -> bool {
    const ROUTER_ADVERTISEMENT: u8 = 9;
    answers.iter().any(|(kind, body)| {
        let default =
            body.get(1) == Some(&0) && find(body.get(12..).unwrap_or_default(), 4).is_some();
        *kind == NEWROUTE && default && body.get(5) == Some(&ROUTER_ADVERTISEMENT)
    })
}

/// Types of routes that end on this host: `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_ANYCAST`.
pub(super) const ENDS_HERE: [u8; 3] = [2, 3, 4];
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
pub(super) const ADDRESSES_AND_ROUTES: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// Whether something of what was heard may change where packets end.
pub(super) fn may_end_here(heard: &[Answer]) -> bool {
    heard.iter().any(|(kind, body)| match *kind {
        NEWADDR | DELADDR => true,
        NEWROUTE | DELROUTE => body.get(7).is_some_and(|kind| ENDS_HERE.contains(kind)),
        _ => false,
    })
}

/// Where the routes of the answers lead that end on this host.
pub(super) fn ends_here(answers: &[Answer]) -> Vec<Rule> {
    /// `RT_TABLE_MAIN` and `RT_TABLE_LOCAL`.
    const ALL_LOOK_HERE: [u8; 2] = [254, 255];
    let one = |body: &[u8]| {
        let [family, prefix, _, _, table, _, _, kind] = *body.first_chunk()?;
        if !ENDS_HERE.contains(&kind) {
            return None;
        }
        // All of a family in a table of somebody's own is for marked packets (transparent proxies).
        if prefix == 0 && !ALL_LOOK_HERE.contains(&table) {
            return None;
        }
        let address = find(body.get(12..)?, 1);
        let address: IpAddr = match (family, address) {
            (IPV6, None) => Ipv6Addr::UNSPECIFIED.into(),
            (IPV6, Some(bytes)) => <[u8; 16]>::try_from(bytes).ok()?.into(),
            (_, None) => Ipv4Addr::UNSPECIFIED.into(),
            (_, Some(bytes)) => <[u8; 4]>::try_from(bytes).ok()?.into(),
        };
        Some(Rule::from(Range::new(address, prefix)))
    };
    let routes = answers.iter().filter(|(kind, _)| *kind == NEWROUTE);
    routes.filter_map(|(_, body)| one(body)).collect()
}

/// Whether there is a default route among the answers to [`Batch::routes`].
pub(super) fn has_default(answers: &[Answer]) -> bool {
    const UNICAST: u8 = 1;
    answers.iter().any(|(kind, body)| {
        let bytes = (body.get(1), body.get(4), body.get(7));
        *kind == NEWROUTE && bytes == (Some(&0), Some(&254), Some(&UNICAST))
    })
}

/// `struct ifinfomsg`.
fn link(index: Option<u32>, flags: u32, change: u32) -> Vec<u8> {
    let mut fixed = vec![0; 4];
    for number in [index.unwrap_or(0), flags, change] {
        fixed.extend(number.to_ne_bytes());
    }
    fixed
}

fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    }
}

/// All bits of an address.
fn width(address: &[u8]) -> u8 {
    u8::try_from(address.len() * 8).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route as the kernel tells it.
    fn route(family: u8, prefix: u8, table: u8, kind: u8, to: &[u8]) -> Answer {
        let mut body = vec![family, prefix, 0, 0, table, 2, 0, kind, 0, 0, 0, 0];
        if !to.is_empty() {
            body.extend(u16::try_from(to.len() + 4).unwrap().to_ne_bytes());
            body.extend(1_u16.to_ne_bytes());
            body.extend(to);
        }
        (NEWROUTE, body)
    }

    fn listed(answer: Answer) -> Vec<String> {
        ends_here(&[answer]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_ends_here_is_refused_and_nothing_else() {
        assert_eq!(listed(route(2, 32, 255, 2, &[203, 0, 113, 2])), ["203.0.113.2/32"]);
        assert_eq!(listed(route(2, 24, 7, 2, &[203, 0, 113, 0])), ["203.0.113.0/24"]);
        assert_eq!(listed(route(2, 32, 255, 3, &[203, 0, 113, 255])), ["203.0.113.255/32"]);
        let six = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(listed(route(10, 128, 255, 4, &six)), ["2001:db8::9/128"]);
        assert_eq!(listed(route(2, 24, 254, 1, &[203, 0, 113, 0])), [""; 0]);
        // All of a family: the host's where everybody looks, a proxy's in a table of its own.
        assert_eq!(listed(route(2, 0, 254, 2, &[])), ["0.0.0.0/0"]);
        assert_eq!(listed(route(10, 0, 255, 2, &[])), ["::/0"]);
        assert_eq!(listed(route(2, 0, 100, 2, &[])), [""; 0]);
        // Cut short, or no route at all.
        assert_eq!(listed((NEWROUTE, vec![2, 32])), [""; 0]);
        assert_eq!(listed((NEWLINK, vec![0; 16])), [""; 0]);
    }

    #[test]
    fn only_a_change_of_what_ends_here_is_one() {
        let heard = |kind: u16, answer: Answer| may_end_here(&[(kind, answer.1)]);
        assert!(heard(NEWROUTE, route(2, 32, 255, 2, &[203, 0, 113, 2])));
        assert!(heard(DELROUTE, route(10, 128, 255, 4, &[0; 16])));
        assert!(heard(NEWADDR, (NEWADDR, vec![0; 8])) && heard(DELADDR, (DELADDR, vec![0; 8])));
        assert!(!heard(NEWROUTE, route(2, 24, 254, 1, &[203, 0, 113, 0])));
        assert!(!heard(NEWLINK, (NEWLINK, vec![0; 16])));
    }
}
