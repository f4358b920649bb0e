//! Event frames, as the command line reads them: what is found does not depend on how the stream was
//! cut, and is no more than was sent.

use bytes::BytesMut;

use lacewing_gateway::eventstream::{Event, FrameError, decode};

use crate::pieces::cut;

/// Decodes the bytes at once and in pieces.
pub fn run(data: &[u8]) {
    let (stream, size) = cut(data);
    let whole = decode_all([stream].into_iter());
    let pieces = decode_all(stream.chunks(size));
    assert_eq!(whole, pieces, "the way the stream is cut makes a difference");
    let length =
        |event: &Event| event.payload.len() + event.event_type.len() + event.message_type.len();
    let told: usize = whole.0.iter().map(length).sum();
    assert!(told <= stream.len(), "more was decoded than was sent");
}

fn decode_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<FrameError>) {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer) {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}
