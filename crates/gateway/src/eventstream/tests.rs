//! Tests of `eventstream`, against the codec of AWS's own SDK.

use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use proptest::prelude::*;

use super::*;

/// What the SDK writes.
fn by_sdk(headers: &[(&'static str, HeaderValue)], payload: &[u8]) -> BytesMut {
    let mut message = Message::new(Bytes::copy_from_slice(payload));
    for (name, value) in headers {
        message = message.add_header(Header::new(*name, value.clone()));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).expect("a message");
    BytesMut::from(&bytes[..])
}

fn text(text: &'static str) -> HeaderValue {
    HeaderValue::String(text.into())
}

#[test]
fn the_sdk_reads_what_we_write() {
    for payload in [&b""[..], b"Hello world", &[0; 100_000]] {
        let frame = encode("PayloadChunk", "application/octet-stream", payload);
        let message = read_message_from(&mut &frame[..]).expect("a message");
        let headers: Vec<_> = message
            .headers()
            .iter()
            .map(|header| {
                let value = header.value().as_string().expect("a text").as_str().to_owned();
                (header.name().as_str().to_owned(), value)
            })
            .collect();
        let expected = [
            (":event-type", "PayloadChunk"),
            (":content-type", "application/octet-stream"),
            (":message-type", "event"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers, expected);
        assert_eq!(&message.payload()[..], payload);
    }
}

#[test]
fn we_write_the_bytes_that_the_sdk_writes() {
    let headers = [
        (":event-type", text("InvokeComplete")),
        (":content-type", text("application/json")),
        (":message-type", text("event")),
    ];
    assert_eq!(encode("InvokeComplete", "application/json", b"{}"), by_sdk(&headers, b"{}"));
}

#[test]
fn we_read_what_the_sdk_writes_and_skip_headers_of_other_types() {
    let headers = [
        ("flag", HeaderValue::Bool(true)),
        ("no", HeaderValue::Bool(false)),
        ("byte", HeaderValue::Byte(1)),
        ("short", HeaderValue::Int16(2)),
        ("int", HeaderValue::Int32(3)),
        ("long", HeaderValue::Int64(4)),
        ("bytes", HeaderValue::ByteArray(Bytes::from_static(b"abc"))),
        ("time", HeaderValue::Timestamp(aws_smithy_types::DateTime::from_secs(5))),
        ("uuid", HeaderValue::Uuid(6)),
        (":message-type", text("exception")),
        (":exception-type", text("ServiceException")),
    ];
    let mut buffer = by_sdk(&headers, b"{}");
    let event = decode(&mut buffer).expect("an event").expect("all of it");
    assert_eq!(event.message_type, "exception");
    assert_eq!((event.event_type.as_str(), &event.payload[..]), ("ServiceException", &b"{}"[..]));
    assert!(buffer.is_empty());
}

#[test]
fn events_are_found_however_they_are_cut() {
    let frames = [encode("A", "x", b"one"), encode("B", "y", b""), encode("C", "z", b"three")];
    let stream = frames.concat();
    for size in 1..stream.len() {
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some(event) = decode(&mut buffer).expect("events") {
                found.push((event.event_type, event.payload));
            }
        }
        let expected = [("A", "one"), ("B", ""), ("C", "three")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.into())));
    }
}

#[test]
fn lengths_that_were_only_announced_take_no_memory_and_impossible_ones_are_refused() {
    let prelude = |total: u32, headers: u32| {
        let mut bytes = BytesMut::new();
        bytes.put_u32(total);
        bytes.put_u32(headers);
        let checksum = crc32fast::hash(&bytes);
        bytes.put_u32(checksum);
        bytes
    };
    let mut large = prelude(20_000_000, 0);
    assert_eq!(decode(&mut large), Ok(None));
    assert!(large.capacity() < 1024);
    for (total, headers) in [(0, 0), (15, 0), (16, 1), (u32::MAX, 0), (200_000, 140_000)] {
        assert_eq!(decode(&mut prelude(total, headers)), Err(FrameError::Lengths), "{total}");
    }
}

proptest! {
    #[test]
    fn a_damaged_event_is_never_taken_for_another(at in 0_usize..80, bit in 0_u8..8) {
        let whole = encode("PayloadChunk", "application/octet-stream", b"some text");
        let mut damaged = BytesMut::from(&whole[..]);
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        prop_assert!(!matches!(decode(&mut damaged), Ok(Some(_))));
    }

    #[test]
    fn any_payload_comes_back(payload: Vec<u8>) {
        let mut buffer = BytesMut::from(&encode("E", "t", &payload)[..]);
        let event = decode(&mut buffer).expect("an event").expect("all of it");
        prop_assert_eq!(&event.payload[..], &payload[..]);
    }
}
