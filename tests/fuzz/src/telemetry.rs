//! Framed log records: what is decoded does not depend on how the stream was cut, and a stream that
//! is none costs nothing from its first wrong byte on.

use bytes::BytesMut;

use lacewing_runtime::telemetry_frames::{Decoder, NotARecord, Record};

use crate::pieces::cut;

/// Decodes the bytes at once and in pieces.
pub fn run(data: &[u8]) {
    let (stream, size) = cut(data);
    let whole = decode([stream].into_iter());
    let pieces = decode(stream.chunks(size));
    assert_eq!(whole, pieces, "the way the stream is cut makes a difference");
    assert!(whole.1.len() <= 1, "a broken stream is told of once");
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Record>, Vec<NotARecord>) {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(record)) => found.push(record),
                Ok(None) => break,
                Err(error) => broken.push(error),
            }
        }
        assert!(broken.is_empty() || buffer.is_empty(), "a broken stream is kept");
    }
    (found, broken)
}
