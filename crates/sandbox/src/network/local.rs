//! The host's own addresses, seen from outside of the host's network namespace.
//!
//! As root a rule in the host asks the kernel for each packet. An ordinary user has no rules there,
//! and whatever opens connections for its sandboxes does so on the host, from where every address of
//! the host leads to the host. So the routes that end there are listed, and listed again as soon as
//! the kernel tells that one has changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{Batch, Socket};
use super::nft::{IPV4, IPV6};
use super::route;
use super::rules::{Rule, is_never_reached};

/// More than that in one change of rules the kernel would not take.
const MOST: usize = 512;

/// Sockets of the host's namespace, which stay there wherever this process goes.
#[derive(Debug)]
pub(super) struct Locals {
    asks: Socket,
    hears: Socket,
}

impl Locals {
    /// Begins to listen; the caller is still in the host's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let hears = Socket::hear(route::ADDRESSES_AND_ROUTES)?;
        Ok(Self { asks: Socket::route()?.strict()?, hears })
    }

    /// Lists what leads to the host now and is not refused anyway.
    pub(super) fn list(&self) -> io::Result<Vec<Rule>> {
        let mut found = Vec::new();
        for family in [IPV4, IPV6] {
            for kind in route::ENDS_HERE {
                let answers = self.asks.ask(Batch::default().routes(family, kind))?;
                found.extend(route::ends_here(&answers));
            }
        }
        found.retain(|rule| !is_never_reached(rule.range()));
        found.sort_unstable_by_key(|rule| (rule.range().address(), rule.range().prefix()));
        found.dedup();
        if found.len() > MOST {
            let why = format!("the host has {} addresses, more than {MOST}", found.len());
            return Err(io::Error::other(why));
        }
        Ok(found)
    }

    /// Whether the host has a default route of this family.
    pub(super) fn has_default(&self, family: u8) -> bool {
        const UNICAST: u8 = 1;
        let answers = self.asks.ask(Batch::default().routes(family, UNICAST));
        answers.is_ok_and(|answers| route::has_default(&answers))
    }

    /// Takes what was heard; tells whether the list may have changed.
    pub(super) fn has_changed(&self) -> bool {
        // An error is an overflow: more was said than could be kept.
        self.hears.read().map_or(true, |heard| route::may_end_here(&heard))
    }
}

impl AsFd for Locals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hears.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::network::addresses::Address;
    use crate::network::route::LOOPBACK;
    use crate::network::{Namespace, NetworkOptions, ruleset};

    #[test]
    fn an_address_is_listed_as_soon_as_the_host_has_it() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: it needs root");
            return;
        }
        // The thread of this test leaves the host's network.
        Namespace::leave().unwrap();
        let locals = Locals::open().unwrap();
        let speaks = Socket::route().unwrap();
        speaks.ask(Batch::default().loopback()).unwrap();
        // Its own are refused anyway, and it leads nowhere.
        assert!(locals.list().unwrap().is_empty());
        assert!(!locals.has_default(IPV4) && !locals.has_default(IPV6));
        assert!(locals.has_changed());
        let added = Address {
            v4: [203, 0, 113, 7].into(),
            v6: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()),
        };
        speaks.ask(Batch::default().address(LOOPBACK, added)).unwrap();
        // Told again with each: IPv6 adds its routes a moment after the address.
        wait_for(&locals, 2);
        let found: Vec<String> = locals.list().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["203.0.113.7/32", "2001:db8::7/128"]);
        speaks.ask(Batch::default().default_route(LOOPBACK, true)).unwrap();
        assert!(locals.has_default(IPV4) && locals.has_default(IPV6));
    }

    #[test]
    fn as_many_as_are_listed_can_be_refused_and_more_are_an_error() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: it needs root");
            return;
        }
        Namespace::leave().unwrap();
        let locals = Locals::open().unwrap();
        let (speaks, filter) = (Socket::route().unwrap(), Socket::netfilter().unwrap());
        speaks.ask(Batch::default().loopback()).unwrap();
        let gets = |number: usize| {
            let number = u32::try_from(number).unwrap();
            let v4 = (u32::from(std::net::Ipv4Addr::new(10, 0, 0, 0)) + number).into();
            let v6 = Some((0x2001_0db8_u128 << 96 | u128::from(number)).into());
            speaks.ask(Batch::default().address(LOOPBACK, Address { v4, v6 })).unwrap();
        };
        (1..=MOST / 2).for_each(gets);
        wait_for(&locals, MOST);
        let found = locals.list().unwrap();
        filter.ask(&ruleset::user_router(&NetworkOptions::egress())).unwrap();
        // Again and again, each time instead of what was there.
        for _ in 0..3 {
            filter.ask(&ruleset::local(&found)).unwrap();
        }
        gets(MOST);
        let error = locals.list().unwrap_err().to_string();
        assert!(error.contains("addresses, more than 512"), "{error}");
        // More was said than the socket keeps, or not: a change it is.
        assert!(locals.has_changed());
    }

    /// Lists only after a change was told, as the launcher does, until there are so many.
    fn wait_for(locals: &Locals, count: usize) {
        loop {
            let mut heard = [PollFd::new(locals, PollFlags::IN)];
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            assert_eq!(poll(&mut heard, Some(&patience)), Ok(1), "no change was told");
            if locals.has_changed() && locals.list().unwrap().len() == count {
                return;
            }
        }
    }
}
