//! Tables, chains and rules, as messages of nf_tables (`linux/netfilter/nf_tables.h`).
//!
//! Only the expressions that our two tables need. The program `nft` is not used: it need not be
//! installed, and a table that the kernel is to remove with its owner must be made over a socket
//! that the owner keeps open.

use std::net::IpAddr;

use super::netlink::{APPEND, Batch, CREATE, Message};
use super::rules::Rule;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const FAMILY_INET: u8 = 1;

/// `NFT_REG_1`; every comparison loads it anew.
const REGISTER: u32 = 1;
/// `NFT_REG_2`, for what needs two.
const SECOND_REGISTER: u32 = 2;

pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// States of a tracked connection, as bits.
pub(super) const INVALID: u32 = 1;
pub(super) const ESTABLISHED_OR_RELATED: u32 = 6;
pub(super) const NEW: u32 = 8;

/// Kinds of a destination, `RTN_*`.
pub(super) const UNICAST: u32 = 1;
pub(super) const LOCAL: u32 = 2;

/// Where packets meet a chain.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// Before routing, as early as can be.
    Arrival,
    /// For this namespace itself.
    Input,
    /// On their way through.
    Forward,
    /// Where addresses of what leaves are changed.
    Departure,
}

/// One condition or action of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expr<'a> {
    /// The family is this.
    Family(u8),
    /// The protocol is this.
    Protocol(u8),
    /// It came in by an interface of this name, or whose name begins so.
    In(&'a str, Name),
    /// It goes out by this interface.
    Out(&'a str),
    /// It does not go out by this interface.
    NotOut(&'a str),
    /// It comes from this address.
    From(IpAddr),
    /// It does not come from this address.
    NotFrom(IpAddr),
    /// It goes to this address and these ports.
    To(&'a Rule),
    /// It goes to this port.
    Port(u16),
    /// It asks for or tells the link-layer address of an IPv6 one (RFC 4861).
    Neighbour,
    /// Its connection is in one of these states.
    State(u32),
    /// The way back to its source is not the interface that it came by.
    Misplaced,
    /// Its destination is of this kind, seen from here.
    Kind(u32),
    /// Its destination is not of this kind.
    NotKind(u32),
    /// Its source has more connections than this.
    Over { set: &'a str, family: u8, count: u32 },
    /// There are more connections than this.
    OverAll(u32),
    /// Done: it may go on.
    Accept,
    /// Done: it is forgotten.
    Drop,
    /// Done: its sender is told.
    Reject { tcp: bool },
    /// Another chain decides.
    Goto(&'a str),
    /// Another chain may decide.
    Ask(&'a str),
    /// Takes the address of the interface that it leaves by.
    Masquerade,
    /// The same, and one of these ports, the first and the last.
    MasqueradeAt(u16, u16),
}

/// How an interface's name is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Whole,
    Prefix,
}

/// A table that is being written, of the family inet.
#[derive(Debug)]
pub(super) struct Table<'a> {
    name: &'a str,
    batch: Batch,
}

impl<'a> Table<'a> {
    /// Begins a table; one with `owner` goes when the socket over which it is made is closed.
    pub(super) fn new(name: &'a str, owner: bool) -> Self {
        let mut batch = Batch::default();
        batch.add(BATCH_BEGIN, 0, &header(0, SUBSYSTEM), |_| {});
        batch.add(NEW_TABLE, CREATE, &header(FAMILY_INET, 0), |message| {
            // NFT_TABLE_F_OWNER.
            message.text(1, name).big(2, if owner { 2 } else { 0 });
        });
        Self { name, batch }
    }

    /// Makes a chain on a hook; packets that no rule decides are accepted, or dropped if `closed`.
    pub(super) fn hooked(&mut self, chain: &str, hook: Hook, closed: bool) -> &mut Self {
        let (number, priority, kind) = match hook {
            Hook::Arrival => (0, -300_i32, "filter"),
            Hook::Input => (1, 0, "filter"),
            Hook::Forward => (2, 0, "filter"),
            Hook::Departure => (4, 100, "nat"),
        };
        let table = self.name;
        self.batch.add(NEW_CHAIN, CREATE, &header(FAMILY_INET, 0), |message| {
            message.text(1, table).text(3, chain).nest(4, |hook| {
                hook.big(1, number).big(2, priority.cast_unsigned());
            });
            message.big(5, u32::from(!closed)).text(7, kind);
        });
        self
    }

    /// Makes a chain that only other chains lead to.
    pub(super) fn chain(&mut self, chain: &str) -> &mut Self {
        let table = self.name;
        self.batch.add(NEW_CHAIN, CREATE, &header(FAMILY_INET, 0), |message| {
            message.text(1, table).text(3, chain);
        });
        self
    }

    /// Makes a set of addresses that rules fill with what they count.
    pub(super) fn counted(&mut self, set: &str, id: u32, family: u8, size: u32) -> &mut Self {
        let table = self.name;
        // The types of `nft`, by which it prints them.
        let (kind, width) = if family == IPV4 { (7, 4) } else { (8, 16) };
        self.batch.add(NEW_SET, CREATE, &header(FAMILY_INET, 0), |message| {
            // NFT_SET_EVAL.
            message.text(1, table).text(2, set).big(3, 0x20).big(4, kind).big(5, width);
            message.nest(9, |description| {
                description.big(1, size);
            });
            message.big(10, id);
        });
        self
    }

    /// Appends a rule.
    pub(super) fn rule(&mut self, chain: &str, expressions: &[Expr<'_>]) -> &mut Self {
        let table = self.name;
        self.batch.add(NEW_RULE, CREATE | APPEND, &header(FAMILY_INET, 0), |message| {
            message.text(1, table).text(2, chain).nest(4, |list| {
                expressions.iter().for_each(|expression| expression.write(list));
            });
        });
        self
    }

    /// Empties a chain that is there already.
    pub(super) fn empty(&mut self, chain: &str) -> &mut Self {
        let table = self.name;
        self.batch.add(DELETE_RULE, 0, &header(FAMILY_INET, 0), |message| {
            message.text(1, table).text(2, chain);
        });
        self
    }

    /// Ends the table.
    pub(super) fn finish(mut self) -> Batch {
        self.batch.add(BATCH_END, 0, &header(0, SUBSYSTEM), |_| {});
        self.batch
    }
}

/// Asks for all chains of all families.
pub(super) fn chains() -> Batch {
    let mut batch = Batch::default();
    batch.add(GET_CHAIN, super::netlink::DUMP, &header(0, 0), |_| {});
    batch
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl Expr<'_> {
    fn write(self, list: &mut Message<'_>) {
        match self {
            Self::Family(family) => is_meta(list, 15, &[family]),
            Self::Protocol(protocol) => is_meta(list, 16, &[protocol]),
            Self::In(name, Name::Prefix) => is_meta(list, 6, name.as_bytes()),
            Self::In(name, Name::Whole) => is_meta(list, 6, &padded(name)),
            Self::Out(name) => is_meta(list, 7, &padded(name)),
            Self::NotOut(name) => meta(list, 7, 1, &padded(name)),
            Self::From(address) => source(list, address, 0),
            Self::NotFrom(address) => source(list, address, 1),
            Self::To(rule) => destination(list, rule),
            Self::Port(port) => ports(list, (port, port)),
            Self::Neighbour => neighbour(list),
            Self::State(states) => state(list, states),
            // The interface by which it came (NFTA_FIB_F_IIF) leads to its source (F_SADDR).
            Self::Misplaced => fib(list, 1, 1 | 8 | 32, 0, &[0]),
            Self::Kind(kind) => fib(list, 3, 2, 0, &kind.to_ne_bytes()),
            Self::NotKind(kind) => fib(list, 3, 2, 1, &kind.to_ne_bytes()),
            Self::Over { set, family, count } => over(list, set, family, count),
            Self::OverAll(count) => limit(list, count),
            Self::Accept => verdict(list, 1, None),
            Self::Drop => verdict(list, 0, None),
            Self::Goto(chain) => verdict(list, -4, Some(chain)),
            Self::Ask(chain) => verdict(list, -3, Some(chain)),
            Self::Reject { tcp: true } => expression(list, "reject", |data| {
                data.big(1, 1).put(2, &[0]);
            }),
            // To all else "administratively prohibited".
            Self::Reject { tcp: false } => expression(list, "reject", |data| {
                data.big(1, 2).put(2, &[3]);
            }),
            Self::Masquerade => expression(list, "masq", |_| {}),
            Self::MasqueradeAt(first, last) => masquerade_at(list, first, last),
        }
    }
}

fn expression(list: &mut Message<'_>, name: &str, write: impl FnOnce(&mut Message<'_>)) {
    list.nest(1, |element| {
        element.text(1, name).nest(2, write);
    });
}

/// Compares the register: 0 is equal, 1 is not, 3 is at most, 5 is at least.
fn compare(list: &mut Message<'_>, operator: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.big(1, REGISTER).big(2, operator).nest(3, |data| {
            data.put(1, value);
        });
    });
}

fn is_meta(list: &mut Message<'_>, key: u32, value: &[u8]) {
    meta(list, key, 0, value);
}

fn meta(list: &mut Message<'_>, key: u32, operator: u32, value: &[u8]) {
    expression(list, "meta", |data| {
        data.big(1, REGISTER).big(2, key);
    });
    compare(list, operator, value);
}

fn payload(list: &mut Message<'_>, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.big(1, REGISTER).big(2, base).big(3, offset).big(4, length);
    });
}

fn mask(list: &mut Message<'_>, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        data.big(1, REGISTER).big(2, REGISTER).big(3, length);
        data.nest(4, |data| {
            data.put(1, mask);
        });
        data.nest(5, |data| {
            data.put(1, &vec![0; mask.len()]);
        });
    });
}

fn source(list: &mut Message<'_>, address: IpAddr, operator: u32) {
    match address {
        IpAddr::V4(v4) => {
            is_meta(list, 15, &[IPV4]);
            payload(list, 1, 12, 4);
            compare(list, operator, &v4.octets());
        }
        IpAddr::V6(v6) => {
            is_meta(list, 15, &[IPV6]);
            payload(list, 1, 8, 16);
            compare(list, operator, &v6.octets());
        }
    }
}

fn destination(list: &mut Message<'_>, rule: &Rule) {
    let range = rule.range();
    let (family, offset, bytes) = match range.address() {
        IpAddr::V4(v4) => (IPV4, 16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (IPV6, 24, v6.octets().to_vec()),
    };
    is_meta(list, 15, &[family]);
    let width = u32::try_from(bytes.len()).unwrap_or(0);
    let prefix = u32::from(range.prefix());
    if prefix > 0 {
        payload(list, 1, offset, width);
        if prefix < width * 8 {
            mask(list, &mask_of(prefix, bytes.len()));
        }
        compare(list, 0, &bytes);
    }
    if let Some(given) = rule.ports() {
        ports(list, given);
    }
}

fn mask_of(prefix: u32, bytes: usize) -> Vec<u8> {
    let ones = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    ones.to_be_bytes().into_iter().take(bytes).collect()
}

/// The destination port, at the same place in TCP and UDP.
fn ports(list: &mut Message<'_>, (first, last): (u16, u16)) {
    payload(list, 2, 2, 2);
    if first == last {
        compare(list, 0, &first.to_be_bytes());
    } else {
        compare(list, 5, &first.to_be_bytes());
        compare(list, 3, &last.to_be_bytes());
    }
}

/// Solicitations and advertisements: types 135 and 136 of ICMPv6.
fn neighbour(list: &mut Message<'_>) {
    const ICMPV6: u8 = 58;
    is_meta(list, 16, &[ICMPV6]);
    payload(list, 2, 0, 1);
    compare(list, 5, &[135]);
    compare(list, 3, &[136]);
}

fn state(list: &mut Message<'_>, states: u32) {
    expression(list, "ct", |data| {
        data.big(1, REGISTER).big(2, 0);
    });
    mask(list, &states.to_ne_bytes());
    compare(list, 1, &[0; 4]);
}

fn fib(list: &mut Message<'_>, result: u32, flags: u32, operator: u32, value: &[u8]) {
    expression(list, "fib", |data| {
        data.big(1, REGISTER).big(2, result).big(3, flags);
    });
    compare(list, operator, value);
}

fn over(list: &mut Message<'_>, set: &str, family: u8, count: u32) {
    is_meta(list, 15, &[family]);
    let (offset, width) = if family == IPV4 { (12, 4) } else { (8, 16) };
    payload(list, 1, offset, width);
    expression(list, "dynset", |data| {
        data.text(1, set).big(3, 0).big(4, REGISTER);
        data.nest(7, |inner| {
            inner.text(1, "connlimit").nest(2, |limit| {
                limit.big(1, count).big(2, 1);
            });
        });
    });
}

/// Counts the connections that come to this rule, whatever their source.
fn limit(list: &mut Message<'_>, count: u32) {
    expression(list, "connlimit", |limit| {
        limit.big(1, count).big(2, 1);
    });
}

fn masquerade_at(list: &mut Message<'_>, first: u16, last: u16) {
    for (register, port) in [(REGISTER, first), (SECOND_REGISTER, last)] {
        expression(list, "immediate", |data| {
            data.big(1, register).nest(2, |data| {
                data.put(1, &port.to_be_bytes());
            });
        });
    }
    expression(list, "masq", |data| {
        // NF_NAT_RANGE_PROTO_SPECIFIED.
        data.big(1, 2).big(2, REGISTER).big(3, SECOND_REGISTER);
    });
}

fn verdict(list: &mut Message<'_>, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.big(1, 0).nest(2, |data| {
            data.nest(2, |verdict| {
                verdict.big(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict.text(2, chain);
                }
            });
        });
    });
}

/// A name as the kernel compares it whole: 16 letters, the rest zero.
fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    bytes
}
