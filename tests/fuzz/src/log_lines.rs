//! What a function prints: nothing is lost but line ends, no record is longer than a line may be,
//! and short lines stay whole however they were written.

use lacewing_runtime::fuzzing::log_lines;

use crate::pieces::cut;

/// The longest record.
const LINE: usize = 64 * 1024;

/// Logs the bytes at once and in pieces.
pub fn run(data: &[u8]) {
    let (printed, size) = cut(data);
    let whole = texts([printed].into_iter());
    assert_eq!(whole, texts(printed.chunks(size)), "the way it was written makes a difference");
    assert!(whole.iter().all(|line| line.len() <= LINE));
    let logged: Vec<u8> = whole.concat();
    let expected: Vec<u8> = printed.iter().copied().filter(|byte| *byte != b'\n').collect();
    assert_eq!(logged, expected, "something was lost or added");
}

fn texts<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let lines = log_lines(pieces).expect("the names are well formed");
    lines.into_iter().map(|line| line.text.to_vec()).collect()
}
