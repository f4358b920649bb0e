//! Tests of `telemetry_frames`.

use proptest::prelude::*;

use super::*;

const WHEN: u64 = 1_700_000_000_123_456;

fn frame(kind: u32, message: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    bytes.extend(WHEN.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

fn decode(bytes: &[u8], piece: usize) -> (Vec<Record>, usize) {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    let (mut records, mut complaints) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(NotARecord(_)) => complaints += 1,
            }
        }
    }
    (records, complaints)
}

#[test]
fn the_types_of_the_published_clients_are_known() {
    for (kind, level, is_json) in [
        (0xa55a_0003, None, false),
        (0xa55a_0002, None, true),
        (0xa55a_0007, Some(LogLevel::Trace), false),
        (0xa55a_000b, Some(LogLevel::Debug), false),
        (0xa55a_000e, Some(LogLevel::Info), true),
        (0xa55a_0013, Some(LogLevel::Warn), false),
        (0xa55a_0016, Some(LogLevel::Error), true),
        (0xa55a_001b, Some(LogLevel::Fatal), false),
    ] {
        let (records, _) = decode(&frame(kind, b"hello"), 1_000);
        let at = Timestamp::from_micros(i64::try_from(WHEN).expect("fits"));
        let message = Bytes::from_static(b"hello");
        assert_eq!(records, [Record { at, level, is_json, message }]);
    }
}

#[test]
fn one_line_end_is_taken_away_and_the_others_stay() {
    for (message, expected) in [("a\nb\n", "a\nb"), ("a\n\n", "a\n"), ("\n", ""), ("", "")] {
        let (records, _) = decode(&frame(0xa55a_0003, message.as_bytes()), 1_000);
        assert_eq!(records[0].message, expected);
    }
}

#[test]
fn a_record_that_is_too_long_is_cut_and_the_next_is_found() {
    let long = vec![b'x'; MOST + 70_000];
    let bytes = [frame(0xa55a_0003, &long), frame(0xa55a_0003, b"next")].concat();
    let (records, complaints) = decode(&bytes, 4_096);
    let lengths: Vec<_> = records.iter().map(|record| record.message.len()).collect();
    assert_eq!((lengths, complaints), (vec![MOST, 4], 0));
}

#[test]
fn rubbish_is_told_once_and_dropped_from_then_on() {
    for kind in [0, u32::MAX, 0xa55a_0000, 0xa55a_001f, 0xa55a_0023, 0xa55b_0003] {
        let bytes = [frame(0xa55a_0003, b"good"), frame(kind, b"bad"), frame(0xa55a_0003, b"lost")];
        let (records, complaints) = decode(&bytes.concat(), 7);
        assert_eq!((records.len(), complaints), (1, 1));
    }
}

proptest! {
    #[test]
    fn a_cut_changes_nothing(
        messages in prop::collection::vec("[a-z\n]{0,40}", 0..8),
        rubbish in prop::collection::vec(any::<u8>(), 0..40),
        piece in 1_usize..50,
    ) {
        let mut bytes: Vec<u8> =
            messages.iter().flat_map(|text| frame(0xa55a_000f, text.as_bytes())).collect();
        bytes.extend(rubbish);
        prop_assert_eq!(decode(&bytes, piece), decode(&bytes, usize::MAX));
    }
}
