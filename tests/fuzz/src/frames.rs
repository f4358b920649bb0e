//! Frames from a bootstrap: what is decoded does not depend on how the stream was cut.

use bytes::BytesMut;

use lacewing_runtime::frames::{Decoder, FrameError, FromBootstrap};

use crate::pieces::cut;

/// Decodes the bytes at once and in pieces.
pub fn run(data: &[u8]) {
    let (stream, size) = cut(data);
    let whole = decode([stream].into_iter());
    let pieces = decode(stream.chunks(size));
    assert_eq!(whole, pieces, "the way the stream is cut makes a difference");
    let told: usize = whole.0.iter().map(length).sum();
    assert!(told <= stream.len(), "more was decoded than was sent");
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<FromBootstrap>, Option<FrameError>) {
    let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn length(frame: &FromBootstrap) -> usize {
    match frame {
        FromBootstrap::Ready | FromBootstrap::End => 1,
        FromBootstrap::Response(bytes)
        | FromBootstrap::Stream(bytes)
        | FromBootstrap::Piece(bytes) => bytes.len(),
        FromBootstrap::InitError(failure) | FromBootstrap::Error(failure) => {
            failure.error_type.len() + failure.document.len()
        }
        // It was skipped, so all of it had come.
        FromBootstrap::TooLarge(bytes) => usize::try_from(*bytes).unwrap_or(usize::MAX),
    }
}
