//! Tests of `rules`.

use proptest::prelude::*;

use super::*;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Policy { allow: rules(allow), deny: rules(deny) }
}

fn may(policy: &Policy, address: &str, port: u16) -> bool {
    policy.decide(address.parse().unwrap(), port) == Action::Allow
}

#[test]
fn public_addresses_are_open_and_private_ones_are_not() {
    let policy = Policy::default();
    for address in ["1.1.1.1", "8.8.8.8", "203.0.113.9", "2606:4700::1111", "2a00::1"] {
        assert!(may(&policy, address, 443), "{address}");
    }
    for address in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "fc00::1",
        "fd12::5",
        "64:ff9b::a00:1",
        "4000::1",
        "8000::1",
        "::1:0:0:0:1",
    ] {
        assert!(!may(&policy, address, 443), "{address}");
    }
}

#[test]
fn some_addresses_cannot_even_be_allowed() {
    let policy = policy(&["0.0.0.0/0", "::/0", "169.254.169.254", "127.0.0.1"], &[]);
    for address in [
        "0.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "198.18.0.1",
        "198.19.1.2",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:1.1.1.1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2002:7f00:1::",
        "2001::1",
        "fd6c:6163:6577::100",
    ] {
        assert!(!may(&policy, address, 80), "{address}");
        assert!(!policy.may_reach(address.parse().unwrap()), "{address}");
    }
    assert!(may(&policy, "1.1.1.1", 80));
    assert_eq!(policy.futile().unwrap().to_string(), "169.254.169.254/32");
}

#[test]
fn the_most_specific_rule_decides() {
    let policy = policy(
        &["10.0.0.0/8", "10.1.2.3:5432", "192.168.0.0/16:80-90", "[fd12::/16]:443"],
        &["10.1.0.0/16", "0.0.0.0/0:25", "1.1.1.1"],
    );
    assert!(may(&policy, "10.2.0.1", 1));
    assert!(!may(&policy, "10.1.2.3", 80));
    assert!(may(&policy, "10.1.2.3", 5432));
    assert!(may(&policy, "192.168.3.4", 85));
    assert!(!may(&policy, "192.168.3.4", 91));
    assert!(may(&policy, "fd12::9", 443) && !may(&policy, "fd12::9", 444));
    assert!(!may(&policy, "8.8.8.8", 25) && may(&policy, "8.8.8.8", 26));
    assert!(!may(&policy, "1.1.1.1", 443));
    assert!(policy.may_reach("192.168.3.4".parse().unwrap()));
    assert!(policy.may_reach("8.8.8.8".parse().unwrap()));
    assert!(!policy.may_reach("172.16.0.1".parse().unwrap()));
}

#[test]
fn only_what_is_listed_can_be_reached_when_all_is_denied() {
    let policy = policy(&["93.184.0.0/16:443"], &["0.0.0.0/0", "::/0"]);
    assert!(may(&policy, "93.184.1.1", 443));
    assert!(!may(&policy, "93.184.1.1", 80) && !may(&policy, "2606::1", 443));
}

#[test]
fn what_is_no_rule_is_refused_with_the_reason() {
    for text in
        ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8:0-70000", "10.0.0.1:9-1", "[fd12::1", "x"]
    {
        let error = text.parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains("is no address range"), "{error}");
    }
}

#[test]
fn our_own_rules_are_all_well_formed() {
    assert_eq!(ours(ALWAYS).count(), ALWAYS.len());
    assert_eq!(ours(PRIVATE).count(), PRIVATE.len());
}

proptest! {
    #[test]
    fn a_rule_survives_being_written(bits: u128, prefix in 0_u8..=128, ports: Option<(u16, u16)>) {
        let address = masked(IpAddr::V6(bits.into()), prefix);
        let ports = ports.map(|(a, b)| (a.min(b), a.max(b)));
        let rule = Rule { range: Range { address, prefix }, ports };
        prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
    }

    #[test]
    fn nothing_outside_the_global_range_is_open(bits: u128) {
        let address = Ipv6Addr::from(bits);
        let global = bits >> 125 == 1;
        prop_assert!(global || !Policy::default().may_reach(IpAddr::V6(address)));
    }

    #[test]
    fn an_open_port_means_a_reachable_address(bits: u32, port: u16, first: u16) {
        let policy = policy(&["10.0.0.0/8:80"], &["128.0.0.0/1:1-1000"]);
        let address = IpAddr::V4(bits.into());
        let open = policy.decide(address, port) == Action::Allow;
        prop_assert!(!open || policy.may_reach(address), "{} {}", address, first);
    }
}
