//! The tables: what the router lets through, and as root the host's share.

use super::addresses::Link;
use super::host::MOST_CONNECTIONS;
use super::netlink::Batch;
use super::nft::{
    ESTABLISHED_OR_RELATED, Expr, Hook, INVALID, IPV4, IPV6, LOCAL, NEW, Name, TCP, Table, UDP,
    UNICAST,
};
use super::rules::{Action, Rule};
use super::{NetworkOptions, addresses};

/// The router's end of the uplink.
pub(super) const UPLINK: &str = "up";
/// What the names of the router's ends of sandboxes begin with.
pub(super) const SANDBOX: &str = "s";

const REFUSE: [[Expr<'_>; 2]; 2] = [
    [Expr::Protocol(TCP), Expr::Reject { tcp: true }],
    [Expr::Protocol(UDP), Expr::Reject { tcp: false }],
];

/// The router's table and its chain of what the host has, where that is refused by address.
const ROUTER: &str = "lacewing";
const LOCAL_CHAIN: &str = "host";
/// Ports of the host that datagrams leave from where a program opens the sockets: a few of those that
/// are for such use (RFC 6335), so that a sandbox can neither choose one nor have all of them.
const PORTS: (u16, u16) = (49_152, 53_247);

/// The router's table: sources are what they say, sandboxes reach the relay of DNS and what the
/// policy leaves, nobody reaches a sandbox.
pub(super) fn router(options: &NetworkOptions) -> Batch {
    let mut table = guards(options, None);
    forwards(&mut table);
    table.hooked("departure", Hook::Departure, false);
    table.rule("departure", &[Expr::Out(UPLINK), Expr::Masquerade]);
    table.finish()
}

/// The same for an ordinary user. There is no table in the host: what the host's does is here, and
/// its addresses are in a chain of their own, empty until [`local`].
pub(super) fn user_router(options: &NetworkOptions) -> Batch {
    let mut table = guards(options, Some(MOST_CONNECTIONS));
    // On this link addresses are resolved, in IPv4 by a protocol of its own.
    table.rule("input", &[Expr::In(UPLINK, Name::Whole), Expr::Neighbour, Expr::Accept]);
    forwards(&mut table);
    table.hooked("departure", Hook::Departure, false);
    let at = Expr::MasqueradeAt(PORTS.0, PORTS.1);
    table.rule("departure", &[Expr::Out(UPLINK), Expr::Protocol(UDP), at]);
    table.rule("departure", &[Expr::Out(UPLINK), Expr::Masquerade]);
    table.finish()
}

/// Refuses what the host has, instead of what it had.
pub(super) fn local(found: &[Rule]) -> Batch {
    let mut table = Table::new(ROUTER, false);
    table.empty(LOCAL_CHAIN);
    for rule in found {
        table.rule(LOCAL_CHAIN, &[Expr::To(rule), Expr::Goto("refused")]);
    }
    table.finish()
}

/// Chains that decide, and those of what arrives and of what is for the router itself; there are
/// `most` connections in all.
fn guards(options: &NetworkOptions, most: Option<u32>) -> Table<'static> {
    let sandbox = Expr::In(SANDBOX, Name::Prefix);
    let mut table = Table::new(ROUTER, false);
    for (id, set, family) in [(1, "connections4", IPV4), (2, "connections6", IPV6)] {
        table.counted(set, id, family, addresses::SANDBOXES);
    }
    table.chain("refused").chain("counted").chain(LOCAL_CHAIN).chain("policy");
    for refuse in &REFUSE {
        table.rule("refused", refuse);
    }
    table.rule("refused", &[Expr::Drop]);
    for (set, family) in [("connections4", IPV4), ("connections6", IPV6)] {
        let over = Expr::Over { set, family, count: options.connections };
        table.rule("counted", &[over, Expr::Goto("refused")]);
    }
    if let Some(most) = most {
        // Behind the bound of each, so that one alone cannot come near it.
        table.rule("counted", &[Expr::OverAll(most), Expr::Goto("refused")]);
    }
    table.rule("counted", &[Expr::Accept]);
    table.rule("policy", &[Expr::Ask(LOCAL_CHAIN)]);
    for (action, rule) in options.policy.ordered() {
        let chain = if action == Action::Allow { "counted" } else { "refused" };
        table.rule("policy", &[Expr::To(&rule), Expr::Goto(chain)]);
    }
    table.rule("policy", &[Expr::Goto("counted")]);
    table.hooked("arrival", Hook::Arrival, false);
    table.rule("arrival", &[Expr::Misplaced, Expr::Drop]);
    table.hooked("input", Hook::Input, true);
    table.rule("input", &[Expr::State(ESTABLISHED_OR_RELATED), Expr::Accept]);
    for protocol in [UDP, TCP] {
        let address = Expr::Family(IPV4);
        let (protocol, port) = (Expr::Protocol(protocol), Expr::Port(53));
        table.rule("input", &[sandbox, address, protocol, port, Expr::Goto("counted")]);
    }
    table.rule("input", &[sandbox, Expr::Goto("refused")]);
    table
}

/// What is forwarded: what sandboxes open, and what belongs to that.
fn forwards(table: &mut Table<'_>) {
    let sandbox = Expr::In(SANDBOX, Name::Prefix);
    table.hooked("forward", Hook::Forward, true);
    table.rule("forward", &[Expr::State(ESTABLISHED_OR_RELATED), Expr::Accept]);
    table.rule("forward", &[Expr::State(INVALID), Expr::Drop]);
    table.rule("forward", &[sandbox, Expr::NotOut(UPLINK), Expr::Goto("refused")]);
    for protocol in [TCP, UDP] {
        table.rule("forward", &[sandbox, Expr::Protocol(protocol), Expr::Goto("policy")]);
    }
}

/// The host's table: the router reaches no address of the host and takes its name outside.
pub(super) fn host(name: &str, interface: &str, link: &Link, most: u32) -> Batch {
    let from_us = Expr::In(interface, Name::Whole);
    let mut table = Table::new(name, true);
    for (id, set, family) in [(1, "connections4", IPV4), (2, "connections6", IPV6)] {
        table.counted(set, id, family, 4);
    }
    table.chain("refused");
    for refuse in &REFUSE {
        table.rule("refused", refuse);
    }
    table.rule("refused", &[Expr::Drop]);
    table.hooked("arrival", Hook::Arrival, false);
    for address in link.ours.all() {
        table.rule("arrival", &[from_us, Expr::NotFrom(address), Expr::Drop]);
    }
    // Before any other table can send it elsewhere: all addresses that the host has at the moment.
    table.rule("arrival", &[from_us, Expr::Kind(LOCAL), Expr::Goto("refused")]);
    table.rule("arrival", &[from_us, Expr::NotKind(UNICAST), Expr::Drop]);
    table.hooked("input", Hook::Input, false);
    table.rule("input", &[from_us, Expr::Drop]);
    table.hooked("forward", Hook::Forward, false);
    for (set, family) in [("connections4", IPV4), ("connections6", IPV6)] {
        let over = Expr::Over { set, family, count: most };
        table.rule("forward", &[from_us, Expr::State(NEW), over, Expr::Goto("refused")]);
    }
    table.rule("forward", &[from_us, Expr::Accept]);
    let back = [Expr::Out(interface), Expr::State(ESTABLISHED_OR_RELATED), Expr::Accept];
    table.rule("forward", &back);
    table.rule("forward", &[Expr::Out(interface), Expr::Drop]);
    table.hooked("departure", Hook::Departure, false);
    for address in link.ours.all() {
        let leaves = [Expr::From(address), Expr::NotOut(interface), Expr::Masquerade];
        table.rule("departure", &leaves);
    }
    table.finish()
}
