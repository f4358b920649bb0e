//! Messages between server, launcher and sandboxes: what is read is written again as the same.

use std::io;

use lacewing_sandbox::fuzzing::{request, status};

type Read = fn(&[u8]) -> io::Result<Option<Vec<u8>>>;

/// Reads the bytes as a message of either side.
pub fn run(data: &[u8]) {
    for read in [request as Read, status] {
        let Ok(Some(written)) = read(data) else { continue };
        let again = read(&written).ok().flatten();
        assert_eq!(again.as_deref(), Some(written.as_slice()));
    }
}
