//! What the relay takes from a sandbox and from a resolver: pure decisions over bytes of strangers.
//!
//! A query is forwarded as it came, but for its number; an answer is passed on as it came, or not at
//! all. The format is RFC 1035; `domain` parses it, also where it is hostile.

use std::net::IpAddr;

use domain::base::iana::{Opcode, Rcode};
use domain::base::name::ToLabelIter;
use domain::base::{Message, Rtype};
use domain::rdata::{A, Aaaa};

use lacewing_sandbox::Policy;

/// Longest message over UDP, as resolvers agree on (<https://www.dnsflagday.net/2020/>) and more.
pub(super) const LONGEST: usize = 4096;
const HEADER: usize = 12;
/// Type and class behind the name.
const QUESTION_END: usize = 4;

/// One question of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    bytes: Vec<u8>,
    /// Where the question ends.
    end: usize,
}

/// What came from a resolver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is for the sandbox.
    Pass(Vec<u8>),
    /// It names an address that the sandbox may not reach; this, without any, goes in its place.
    Strip(Vec<u8>),
    /// It answers something else, or is no answer.
    Ignore,
}

impl Query {
    /// Takes a message for a query with one question, or for nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let message = Message::from_octets(bytes).ok()?;
        let (header, counts) = (message.header(), message.header_counts());
        let is_query = !header.qr() && header.opcode() == Opcode::QUERY;
        // Beside the question only the options of EDNS (RFC 6891), and a signature.
        let is_plain = counts.ancount() == 0 && counts.nscount() == 0 && counts.arcount() <= 2;
        if !is_query || !is_plain || bytes.len() > LONGEST {
            return None;
        }
        let question = message.sole_question().ok()?;
        if question.qname().is_compressed() {
            return None;
        }
        let end = HEADER + usize::from(question.qname().compose_len()) + QUESTION_END;
        let is_whole = bytes.len() >= end && message.iter().all(|record| record.is_ok());
        is_whole.then(|| Self { bytes: bytes.to_vec(), end })
    }

    /// The same query under another number.
    pub(crate) fn numbered(&self, number: u16) -> Vec<u8> {
        renumber(&self.bytes, number.to_be_bytes())
    }

    /// Judges what came as the answer to the query of this number.
    pub(crate) fn judge(&self, number: u16, answer: &[u8], policy: &Policy) -> Verdict {
        match self.addresses(number, answer) {
            None => Verdict::Ignore,
            Some(found) if found.iter().all(|address| policy.may_reach(*address)) => {
                Verdict::Pass(renumber(answer, self.number()))
            }
            Some(_) => Verdict::Strip(self.without_answer(Rcode::NOERROR)),
        }
    }

    /// The answer that there was none.
    pub(crate) fn failure(&self) -> Vec<u8> {
        self.without_answer(Rcode::SERVFAIL)
    }

    fn number(&self) -> [u8; 2] {
        self.bytes.first_chunk().copied().unwrap_or_default()
    }

    /// The addresses in an answer to this query; none if it is not one.
    fn addresses(&self, number: u16, answer: &[u8]) -> Option<Vec<IpAddr>> {
        let asked = Message::from_octets(self.bytes.as_slice()).ok()?;
        let answer = Message::from_octets(answer).ok()?;
        let (ours, theirs) = (asked.sole_question().ok()?, answer.sole_question().ok()?);
        let is_answer = answer.header().qr() && answer.header().id() == number;
        let is_same = ours.qname() == theirs.qname()
            && ours.qtype() == theirs.qtype()
            && ours.qclass() == theirs.qclass();
        if !is_answer || !is_same {
            return None;
        }
        let mut found = Vec::new();
        for record in answer.iter() {
            let (record, _) = record.ok()?;
            match record.rtype() {
                Rtype::A => {
                    let record = record.to_record::<A>().ok()??;
                    found.push(IpAddr::V4(record.data().addr()));
                }
                Rtype::AAAA => {
                    let record = record.to_record::<Aaaa>().ok()??;
                    found.push(IpAddr::V6(record.data().addr()));
                }
                _ => {}
            }
        }
        Some(found)
    }

    /// The question again, as an answer with nothing in it.
    fn without_answer(&self, code: Rcode) -> Vec<u8> {
        let mut bytes = self.bytes.get(..self.end).unwrap_or_default().to_vec();
        if let Some([_, _, flags, more, counts @ ..]) = bytes.first_chunk_mut::<HEADER>() {
            // QR, and RD as it was; RA and the code.
            *flags = 0x80 | (*flags & 0x01);
            *more = 0x80 | (u8::from(code) & 0x0f);
            *counts = [0, 1, 0, 0, 0, 0, 0, 0];
        }
        bytes
    }
}

fn renumber(bytes: &[u8], number: [u8; 2]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(place) = bytes.first_chunk_mut() {
        *place = number;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `example.com A`, with recursion desired, as number 7.
    const QUESTION: &[u8] = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                              \x07example\x03com\x00\x00\x01\x00\x01";

    /// The answer to it under this number with these addresses.
    fn answer(number: u16, addresses: &[[u8; 4]]) -> Vec<u8> {
        let mut bytes = renumber(QUESTION, number.to_be_bytes());
        bytes[2] = 0x81;
        bytes[3] = 0x80;
        bytes[7] = u8::try_from(addresses.len()).unwrap();
        for address in addresses {
            bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
            bytes.extend(address);
        }
        bytes
    }

    fn judge(bytes: &[u8]) -> Verdict {
        Query::parse(QUESTION).unwrap().judge(9, bytes, &Policy::default())
    }

    #[test]
    fn an_answer_goes_back_under_the_sandboxs_own_number() {
        let public = [[93, 184, 216, 34], [1, 1, 1, 1]];
        assert_eq!(judge(&answer(9, &public)), Verdict::Pass(answer(7, &public)));
        assert_eq!(judge(&answer(9, &[])), Verdict::Pass(answer(7, &[])));
    }

    #[test]
    fn an_answer_that_leads_to_a_refused_address_is_emptied() {
        for address in [[10, 0, 0, 1], [127, 0, 0, 1], [169, 254, 169, 254], [0, 0, 0, 0]] {
            let verdict = judge(&answer(9, &[[1, 1, 1, 1], address]));
            assert_eq!(verdict, Verdict::Strip(answer(7, &[])), "{address:?}");
        }
        let policy = Policy { allow: vec!["10.0.0.0/8:443".parse().unwrap()], deny: Vec::new() };
        let query = Query::parse(QUESTION).unwrap();
        let private = [[10, 0, 0, 1]];
        let verdict = query.judge(9, &answer(9, &private), &policy);
        assert_eq!(verdict, Verdict::Pass(answer(7, &private)));
    }

    #[test]
    fn what_answers_something_else_is_ignored() {
        let good = answer(9, &[[1, 1, 1, 1]]);
        let mut other = good.clone();
        other[13] = b'E';
        assert_ne!(judge(&other), Verdict::Ignore, "names differ by more than case");
        other[13] = b'x';
        assert_eq!(judge(&other), Verdict::Ignore);
        assert_eq!(judge(&answer(8, &[])), Verdict::Ignore);
        assert_eq!(judge(&renumber(QUESTION, [0, 9])), Verdict::Ignore);
        assert_eq!(judge(&good[..good.len() - 1]), Verdict::Ignore);
    }

    #[test]
    fn only_a_plain_query_is_one() {
        assert!(Query::parse(QUESTION).is_some());
        for (place, value) in [(2, 0x81), (2, 0x29), (5, 2), (5, 0), (7, 1), (9, 1), (11, 3)] {
            let mut bytes = QUESTION.to_vec();
            bytes[place] = value;
            assert!(Query::parse(&bytes).is_none(), "{place}");
        }
        let mut looping = QUESTION.to_vec();
        looping[12] = 0xc0;
        looping[13] = 12;
        assert!(Query::parse(&looping).is_none());
        assert!(Query::parse(&[0; LONGEST + 1]).is_none());
    }

    #[test]
    fn a_failure_says_so_and_nothing_else() {
        let failure = Query::parse(QUESTION).unwrap().failure();
        assert_eq!(failure[..12], *b"\x00\x07\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00");
        assert_eq!(failure[12..], QUESTION[12..]);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0_usize..45,
            value: u8,
        ) {
            if let Some(query) = Query::parse(&bytes) {
                prop_assert!(query.failure().len() <= bytes.len());
            }
            judge(&bytes);
            let mut bent = answer(9, &[[1, 1, 1, 1]]);
            if let Some(place) = bent.get_mut(at) {
                *place = value;
            }
            judge(&bent);
        }
    }
}
