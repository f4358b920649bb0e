//! Which addresses and ports a sandbox may reach: a pure decision.
//!
//! Some ranges are refused whatever is configured: the host, link-local and metadata addresses,
//! multicast, and what stands for another address. For the rest **the most specific rule decides**:
//! the longest prefix, then a rule for some ports before one for all, then `deny` before `allow`,
//! then both before our own, which refuse private ranges. What no rule names is allowed.
//!
//! The same order is compiled into the router's rules; the relay of DNS asks [`Policy::may_reach`].

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Never reached. Sources: IANA's registries of special-purpose addresses, and the metadata
/// addresses of AWS.
const ALWAYS: &[&str] = &[
    // "This network", loopback, link-local with its metadata, protocol assignments, our own.
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    // Multicast, reserved, broadcast.
    "224.0.0.0/4",
    "240.0.0.0/4",
    // Unspecified, loopback, mapped and compatible IPv4.
    "::/32",
    // Discard, Teredo and 6to4, which stand for IPv4 addresses.
    "100::/64",
    "2001::/32",
    "2002::/16",
    // Metadata, our own, link-local, site-local, multicast.
    "fd00:ec2::/32",
    "fd6c:6163:6577::/48",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Refused unless allowed: private networks, and everything of IPv6 that is not global.
const PRIVATE: &[&str] = &[
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    // Translated IPv4 addresses (RFC 6052, RFC 8215): any private one among them.
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "fc00::/7",
    "::/3",
    "4000::/2",
    "8000::/1",
];

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is opened.
    Allow,
    /// It is refused.
    Refuse,
}

/// A range of addresses: all that share the first bits with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    address: IpAddr,
    prefix: u8,
}

/// Addresses, and ports of TCP and UDP where not all are meant.
///
/// Written `10.0.0.0/8`, `10.0.5.7:5432`, `10.0.0.0/8:8000-8999`, `fd12::/16`, `[fd12::5]:443`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    range: Range,
    /// First and last.
    ports: Option<(u16, u16)>,
}

/// What the operator allows and denies beside our own rules.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// May be reached, also where it is private.
    pub allow: Vec<Rule>,
    /// May not be reached, also where it is public.
    pub deny: Vec<Rule>,
}

/// A text that is no rule.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is no address range such as 10.0.0.0/8, 10.0.5.7:5432 or [fd12::/16]:443: {why}")]
pub struct InvalidRule {
    text: String,
    why: &'static str,
}

// === Policy ===

impl Policy {
    /// All rules, the one that decides first; what none of them matches is allowed.
    pub(crate) fn ordered(&self) -> Vec<(Action, Rule)> {
        let always = ours(ALWAYS).map(|rule| (Action::Refuse, rule));
        let mut rest: Vec<(u8, Action, Rule)> = Vec::new();
        rest.extend(self.deny.iter().map(|rule| (0, Action::Refuse, *rule)));
        rest.extend(self.allow.iter().map(|rule| (1, Action::Allow, *rule)));
        rest.extend(ours(PRIVATE).map(|rule| (2, Action::Refuse, rule)));
        rest.sort_by_key(|(who, _, rule)| {
            (std::cmp::Reverse(rule.range.prefix), rule.ports.is_none(), *who)
        });
        always.chain(rest.into_iter().map(|(_, action, rule)| (action, rule))).collect()
    }

    /// What happens to a connection to this address and port.
    #[must_use]
    pub fn decide(&self, address: IpAddr, port: u16) -> Action {
        let rules = self.ordered();
        let found = rules.iter().find(|(_, rule)| rule.matches(address, port));
        found.map_or(Action::Allow, |(action, _)| *action)
    }

    /// Whether some port of this address may be reached.
    #[must_use]
    pub fn may_reach(&self, address: IpAddr) -> bool {
        for (action, rule) in self.ordered() {
            match (action, rule.range.contains(address), rule.ports) {
                (Action::Allow, true, _) => return true,
                (Action::Refuse, true, None) => return false,
                // The other ports are still open to later rules.
                (Action::Refuse, true, Some(_)) | (_, false, _) => {}
            }
        }
        true
    }

    /// A rule to allow that can have no effect, as what it names is never reached.
    #[must_use]
    pub fn futile(&self) -> Option<&Rule> {
        self.allow.iter().find(|rule| is_never_reached(rule.range))
    }
}

/// Whether all of a range is never reached, whatever is configured.
pub(crate) fn is_never_reached(range: Range) -> bool {
    ours(ALWAYS)
        .any(|never| never.range.prefix <= range.prefix && never.range.contains(range.address))
}

fn ours(list: &'static [&'static str]) -> impl Iterator<Item = Rule> {
    list.iter().filter_map(|text| text.parse().ok())
}

// === Rule ===

impl Rule {
    /// The addresses.
    #[must_use]
    pub fn range(&self) -> Range {
        self.range
    }

    /// First and last port; `None` for all.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        self.ports
    }

    fn matches(&self, address: IpAddr, port: u16) -> bool {
        self.range.contains(address)
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
    }
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| InvalidRule { text: text.to_owned(), why };
        let (range, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (range, ports) = rest.split_once(']').ok_or_else(|| refuse("no ] in it"))?;
                let colon = ports.strip_prefix(':').ok_or_else(|| refuse("no port after ]"))?;
                (range, Some(colon))
            }
            None if text.matches(':').count() == 1 => {
                let (range, ports) = text.split_once(':').ok_or_else(|| refuse("no port"))?;
                (range, Some(ports))
            }
            None => (text, None),
        };
        let range = range.parse().map_err(refuse)?;
        let ports = ports.map(parse_ports).transpose().map_err(refuse)?;
        Ok(Self { range, ports })
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().map_err(|_| "a port is a number up to 65535");
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err("the first port is above the last") } else { Ok((first, last)) }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { address, prefix } = self.range;
        match (address, self.ports) {
            (_, None) => write!(f, "{address}/{prefix}"),
            (IpAddr::V4(_), Some((first, last))) => write!(f, "{address}/{prefix}:{first}-{last}"),
            (IpAddr::V6(_), Some((first, last))) => {
                write!(f, "[{address}/{prefix}]:{first}-{last}")
            }
        }
    }
}

impl From<Range> for Rule {
    fn from(range: Range) -> Self {
        Self { range, ports: None }
    }
}

impl TryFrom<String> for Rule {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

// === Range ===

impl Range {
    /// All addresses that share the first `prefix` bits with this one.
    pub(crate) fn new(address: IpAddr, prefix: u8) -> Self {
        Self { address: masked(address, prefix), prefix }
    }

    /// The lowest address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits are shared.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address is in the range; one of the other family never is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "the address is not one")?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix.map(str::parse) {
            None => most,
            Some(Ok(prefix)) if prefix <= most => prefix,
            Some(_) => return Err("the prefix is too long"),
        };
        if masked(address, prefix) != address {
            return Err("bits are set behind the prefix");
        }
        Ok(Self { address, prefix })
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

#[cfg(test)]
mod tests;
