//! Which numbers of versions a function has used: JSON under `account/region/numbers/name`.
//!
//! A number is never used twice, also if its version was deleted. It is taken here before the
//! version is stored under it: a crash between the two leaves a gap, and never a number twice.

use bytes::Bytes;
use lacewing_model::{FunctionKey, Result};
use lacewing_store::{Key, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FORMAT;

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// Of the function that used them, see `Function::lineage`.
    lineage: Uuid,
    last: u64,
}

/// Where the numbers of a function are stored.
pub(crate) fn key(function: &FunctionKey) -> Key {
    Key::new(&function.account, &function.region, &["numbers", function.name.as_str()])
}

/// The bytes to store once `last` is taken.
pub(crate) fn encode(lineage: Uuid, last: u64) -> Result<Bytes> {
    super::write(&Stored { format: FORMAT, lineage, last })
}

/// The last number that the function of this lineage has used; 0 if it used none.
pub(crate) fn last(record: &Record, lineage: Uuid) -> Result<u64> {
    let stored: Stored = super::read(record)?;
    Ok(if stored.lineage == lineage { stored.last } else { 0 })
}
