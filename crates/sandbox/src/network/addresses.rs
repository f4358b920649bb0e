//! Addresses between sandboxes, router and host.
//!
//! IPv4 uses the range for benchmarks between devices, 198.18.0.0/15 (RFC 2544), which nothing
//! routes and which is not, like the link-local and the carrier's range, treated in a special way
//! by resolvers and VPNs. IPv6 uses unique local prefixes (RFC 4193). What is inside the router is
//! the same for every launcher; what the host sees differs by owner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the DNS relay listens, in the router.
pub const NAMESERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

/// `fd6c:6163:6577::/48`.
const PREFIX6: u128 = 0xfd6c_6163_6577 << 80;
/// The router's own address, from which it answers in IPv6.
pub(super) const ROUTER: Address =
    Address { v4: NAMESERVER, v6: Some(Ipv6Addr::from_bits(PREFIX6 + 1)) };

/// The other end of the router's uplink, where a program opens the connections anew. The range is
/// within that of links, which are the same for all who have no place in the host.
pub(super) const TAP: Link = Link {
    host: Address {
        v4: Ipv4Addr::new(198, 18, 0, 1),
        v6: Some(Ipv6Addr::from_bits(PREFIX6 + (1 << 64) + 1)),
    },
    ours: Address {
        v4: Ipv4Addr::new(198, 18, 0, 2),
        v6: Some(Ipv6Addr::from_bits(PREFIX6 + (1 << 64) + 2)),
    },
};
/// Bits that both ends of [`TAP`] share in IPv4.
pub(super) const TAP_PREFIX: u8 = 30;

/// Sandboxes are numbered from here on; below is the router's own.
const FIRST_SANDBOX: u32 = 256;
/// How many numbers there are: those of 198.19.0.0/16, less the first and the last 256.
pub(super) const SANDBOXES: u32 = 65_536 - 512;

/// An address of each family that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Option<Ipv6Addr>,
}

impl Address {
    /// The same, without IPv6 unless that is wanted.
    pub(super) fn only(self, with_v6: bool) -> Self {
        Self { v6: self.v6.filter(|_| with_v6), ..self }
    }

    /// All there are.
    pub(super) fn all(self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.v4)), self.v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// The two ends of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The host's end.
    pub(super) host: Address,
    /// Our end.
    pub(super) ours: Address,
}

/// The address of the sandbox with this number.
pub(super) fn sandbox(number: u32) -> Address {
    let number = FIRST_SANDBOX + number % SANDBOXES;
    let v4 = u32::from(Ipv4Addr::new(198, 19, 0, 0)) + number;
    Address { v4: v4.into(), v6: Some((PREFIX6 + u128::from(number)).into()) }
}

/// The name of the host's end of the uplink: 14 of the 15 letters that a name may have.
pub(super) fn interface(owner: &str) -> String {
    format!("lw{:012x}", hash(owner) & 0xffff_ffff_ffff)
}

/// How many places there are for the links of one owner.
pub(super) const PLACES: u32 = 4_096;

/// The links that an owner uses at the `attempt`th try: the uplink, and one for the trial.
pub(super) fn links(owner: &str, attempt: u32) -> [Link; 2] {
    let hash = hash(owner);
    let [.., high, low] = hash.to_be_bytes();
    let place = u32::from(u16::from_be_bytes([high, low])) + attempt;
    // Sixteen addresses for each place, all below 198.19.0.0.
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + place % PLACES * 16;
    let prefix = PREFIX6 + ((1 + u128::from(hash % 0xfffe)) << 64) + (u128::from(attempt) << 16);
    let address =
        |at: u32| Address { v4: (first + at).into(), v6: Some((prefix + u128::from(at)).into()) };
    [0, 4].map(|at| Link { host: address(at), ours: address(at + 1) })
}

/// FNV-1a, which is the same in every version of ours.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_sandboxes_and_no_link_share_an_address() {
        let all: HashSet<Ipv4Addr> = (0..SANDBOXES).map(|number| sandbox(number).v4).collect();
        assert_eq!(all.len(), SANDBOXES as usize);
        assert!(!all.contains(&NAMESERVER));
        for attempt in 0..PLACES {
            for link in links("abcdefgh1234", attempt) {
                assert!(!all.contains(&link.host.v4) && !all.contains(&link.ours.v4));
                assert!(link.ours.v4.octets().starts_with(&[198, 18]));
            }
        }
    }

    #[test]
    fn names_fit_and_differ_by_owner() {
        assert_eq!(interface("abcdefgh1234").len(), 14);
        assert_ne!(interface("abcdefgh1234"), interface("abcdefgh1235"));
    }
}
