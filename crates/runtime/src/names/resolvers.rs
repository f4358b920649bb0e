//! Which resolvers the host asks: the configured ones, else those of `/etc/resolv.conf`.
//!
//! The file is looked at again every few seconds: hosts move between networks.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(super) const FILE: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
const FRESH: Duration = Duration::from_secs(5);

/// The list, and when it was read.
#[derive(Debug)]
pub(super) struct Resolvers {
    chosen: Vec<SocketAddr>,
    read: Mutex<(Instant, Vec<SocketAddr>)>,
}

impl Resolvers {
    /// Takes the chosen ones; if there are none the host's.
    pub(super) fn new(chosen: Vec<SocketAddr>) -> Self {
        Self { chosen, read: Mutex::new((Instant::now(), of_host())) }
    }

    /// Those to ask now, the first one first.
    pub(super) fn list(&self) -> Vec<SocketAddr> {
        if !self.chosen.is_empty() {
            return self.chosen.clone();
        }
        let mut read = self.read.lock();
        if read.0.elapsed() > FRESH {
            // A server that may not read it any more keeps what it knew.
            let found = fs::read_to_string(FILE).map(|text| parse(&text));
            *read = (Instant::now(), found.unwrap_or_else(|_| std::mem::take(&mut read.1)));
        }
        read.1.clone()
    }
}

fn of_host() -> Vec<SocketAddr> {
    parse(&fs::read_to_string(FILE).unwrap_or_default())
}

/// The name servers of a resolv.conf(5); without any it means one on this host.
fn parse(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address =
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    });
    let found: Vec<SocketAddr> = named.collect();
    let own = || vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT)];
    if found.is_empty() { own() } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_other_lines() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 10.0.0.1\n nameserver  ::1 # x\n\
                    nameserver fe80::1%eth0\nnameserver\n";
        let found: Vec<String> = parse(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53"]);
        assert_eq!(parse("search lan\n"), ["127.0.0.1:53".parse().unwrap()]);
    }
}
