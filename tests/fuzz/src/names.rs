//! The relay of names: a query goes on as it came, an answer goes back as it came or with nothing in
//! it, and no answer leads where a function may not go.

use std::net::IpAddr;

use lacewing_runtime::fuzzing::names;
use lacewing_sandbox::Policy;

const HEADER: usize = 12;
/// Types of records (RFC 1035, RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;

/// Takes the first two bytes as the length of a query, and what is behind it as the resolver's answer
/// to the number that this answer has.
pub fn run(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((query, answer)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
        return;
    };
    let number = answer.first_chunk().copied().unwrap_or_default();
    let policy = Policy::default();
    let Some(relayed) = names(query, u16::from_be_bytes(number), answer, &policy) else { return };
    let own = query.first_chunk().copied().unwrap_or_default();
    assert_eq!(relayed.asked, renumbered(query, number), "something else is asked");
    empty(&relayed.failed, query, own);
    match relayed.answered {
        Some(Ok(passed)) => {
            assert_eq!(passed, renumbered(answer, own), "something else is answered");
            let refused = addresses(&passed).into_iter().find(|found| !policy.may_reach(*found));
            assert_eq!(refused, None, "it leads there");
        }
        Some(Err(emptied)) => empty(&emptied, query, own),
        None => {}
    }
}

fn renumbered(message: &[u8], number: [u8; 2]) -> Vec<u8> {
    [&number, message.get(2..).unwrap_or_default()].concat()
}

/// It is the question again, as an answer without records.
fn empty(message: &[u8], query: &[u8], number: [u8; 2]) {
    let (head, question) = message.split_at(HEADER);
    assert_eq!(head[..2], number);
    assert!(head[2] & 0x80 != 0 && head[4..] == [0, 1, 0, 0, 0, 0, 0, 0], "{head:?}");
    assert!(query[HEADER..].starts_with(question));
}

/// The addresses in a message, as a client finds them that stops where it does not understand it.
fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut rest = message;
    let Some(head) = take::<HEADER>(&mut rest) else { return found };
    let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    for _ in 0..count(4) {
        let Some(_) = skip_name(&mut rest).and_then(|()| take::<4>(&mut rest)) else {
            return found;
        };
    }
    for _ in 0..count(6) + count(8) + count(10) {
        let fixed = skip_name(&mut rest).and_then(|()| take::<10>(&mut rest));
        let Some([high, low, .., long, short]) = fixed else { return found };
        let length = usize::from(u16::from_be_bytes([long, short]));
        let Some((content, behind)) = rest.split_at_checked(length) else { return found };
        rest = behind;
        let address = match u16::from_be_bytes([high, low]) {
            A => <[u8; 4]>::try_from(content).ok().map(IpAddr::from),
            AAAA => <[u8; 16]>::try_from(content).ok().map(IpAddr::from),
            _ => None,
        };
        found.extend(address);
    }
    found
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

fn skip_name(rest: &mut &[u8]) -> Option<()> {
    loop {
        let [length] = take(rest)?;
        match length {
            0 => return Some(()),
            // The rest of it is elsewhere.
            0xc0.. => return take::<1>(rest).map(drop),
            _ => *rest = rest.get(usize::from(length)..)?,
        }
    }
}
