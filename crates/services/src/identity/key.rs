//! Making access keys that look as clients expect them: a prefix of four letters and sixteen
//! characters of base 32, and a secret of forty characters of base 64.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lacewing_model::{Error, Result, Secret};

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The id of a long-lived key.
pub(super) const LONG_LIVED: &str = "AKIA";
/// The id of a session's key.
pub(super) const SESSION: &str = "ASIA";

/// A fresh pair of id and secret.
pub(super) fn pair(prefix: &str) -> Result<(String, Secret<String>)> {
    let mut id = prefix.to_owned();
    for byte in random::<16>()? {
        // 256 is a multiple of 32: all characters are equally likely.
        id.push(char::from(BASE32[usize::from(byte) % BASE32.len()]));
    }
    Ok((id, Secret::new(STANDARD.encode(random::<30>()?))))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes)
        .map_err(|error| Error::internal("The system gave no random numbers.", error))?;
    Ok(bytes)
}
