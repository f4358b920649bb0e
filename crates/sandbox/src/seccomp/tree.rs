//! From rules to BPF: a binary search over runs of neighbouring calls with equal rules.
//!
//! Jumps are forward only and conditional ones reach 255 instructions, so each node jumps over its
//! lower half by an unconditional jump.

use std::collections::BTreeMap;

use libc::sock_filter;
use serde::Deserialize;

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(u16),
}

/// The rule of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Plain(Action),
    Argument { argument: u32, test: Test, refused: Action },
}

/// When a call is allowed, by the low half of one argument.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Test {
    /// It is one of these.
    Among(Vec<u32>),
    /// It is none of these.
    Outside(Vec<u32>),
    /// It has none of these bits.
    Without(u32),
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_BITS: u16 = 0x45;

/// Builds the whole program: unlisted calls get EPERM, those above the highest listed one ENOSYS.
pub(super) fn program(rules: &BTreeMap<u32, Rule>) -> Vec<sock_filter> {
    let mut code = vec![
        plain(LOAD, ARCH),
        branch(IF_EQUAL, ARCHITECTURE, 1, 0),
        plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        plain(LOAD, NUMBER),
    ];
    code.extend(search(&runs(rules)));
    code
}

/// Splits all numbers into runs, each from its number up to the next one's.
fn runs(rules: &BTreeMap<u32, Rule>) -> Vec<(u32, Rule)> {
    let unlisted = Rule::Plain(Action::Errno(errno(libc::EPERM)));
    // Also what x86-64 calls x32: those numbers have bit 30 set.
    let unknown = Rule::Plain(Action::Errno(errno(libc::ENOSYS)));
    let mut runs: Vec<(u32, Rule)> = Vec::new();
    let mut next = 0;
    let mut push = |start: u32, rule: Rule| {
        let same = matches!(runs.last(), Some((_, last)) if *last == rule);
        if !same {
            runs.push((start, rule));
        }
    };
    for (number, rule) in rules {
        if *number > next {
            push(next, unlisted.clone());
        }
        push(*number, rule.clone());
        next = number + 1;
    }
    push(next, unknown);
    runs
}

fn search(runs: &[(u32, Rule)]) -> Vec<sock_filter> {
    if let [(_, only)] = runs {
        return leaf(only);
    }
    let (lower, upper) = runs.split_at(runs.len() / 2);
    let (Some((pivot, _)), lower) = (upper.first(), search(lower)) else { return Vec::new() };
    let skip = u32::try_from(lower.len()).unwrap_or(u32::MAX);
    let mut code = vec![branch(IF_AT_LEAST, *pivot, 0, 1), plain(JUMP, skip)];
    code.extend(lower);
    code.extend(search(upper));
    code
}

fn leaf(rule: &Rule) -> Vec<sock_filter> {
    match rule {
        Rule::Plain(action) => vec![give(*action)],
        Rule::Argument { argument, test, refused } => {
            let mut code = vec![plain(LOAD, ARGUMENTS + 8 * argument)];
            let (values, kind, hit, miss) = match test {
                Test::Among(values) => (values.as_slice(), IF_EQUAL, Action::Allow, *refused),
                Test::Outside(values) => (values.as_slice(), IF_EQUAL, *refused, Action::Allow),
                Test::Without(bits) => {
                    (std::slice::from_ref(bits), IF_BITS, *refused, Action::Allow)
                }
            };
            for value in values {
                code.extend([branch(kind, *value, 0, 1), give(hit)]);
            }
            code.push(give(miss));
            code
        }
    }
}

fn give(action: Action) -> sock_filter {
    match action {
        Action::Allow => plain(RETURN, libc::SECCOMP_RET_ALLOW),
        Action::Errno(number) => plain(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(number)),
    }
}

fn plain(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn errno(number: i32) -> u16 {
    u16::try_from(number).unwrap_or(1)
}
