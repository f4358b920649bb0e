//! The same bytes in one piece and in several: a stream may be cut anywhere.

/// Takes the first byte as the size of a piece and gives the rest cut into such pieces.
pub(crate) fn cut(data: &[u8]) -> (&[u8], usize) {
    match data.split_first() {
        Some((size, rest)) => (rest, usize::from(*size).max(1)),
        None => (data, 1),
    }
}
