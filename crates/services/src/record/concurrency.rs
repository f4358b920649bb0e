//! How much concurrency a function has for itself, as it is stored: JSON under
//! `account/region/concurrency/name`. A function that has none for itself has no such record.

use bytes::Bytes;
use lacewing_model::{Error, FunctionKey, FunctionName, Result};
use lacewing_store::{Key, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FORMAT;

/// The segment that these keys have after account and region.
const CONCURRENCY: &str = "concurrency";

/// What one function has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Concurrency {
    /// The function that it was given to, see `Function::lineage`.
    pub(crate) lineage: Uuid,
    /// Concurrent invocations of all its versions; 0 turns it off.
    pub(crate) reserved: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    lineage: Uuid,
    reserved: u32,
}

/// Where it is stored.
pub(crate) fn key(function: &FunctionKey) -> Key {
    Key::new(&function.account, &function.region, &[CONCURRENCY, function.name.as_str()])
}

/// The function whose concurrency is under `key`, if it is such a record.
pub(crate) fn function_key(key: &Key) -> Option<FunctionKey> {
    if key.as_str().split('/').nth(2)? != CONCURRENCY {
        return None;
    }
    let [_, name] = <[String; 2]>::try_from(key.segments()).ok()?;
    let name = FunctionName::new(&name).ok()?;
    Some(FunctionKey { account: key.account()?, region: key.region()?, name })
}

/// The bytes to store.
pub(crate) fn encode(concurrency: Concurrency) -> Result<Bytes> {
    let Concurrency { lineage, reserved } = concurrency;
    super::write(&Stored { format: FORMAT, lineage, reserved })
}

/// Reads a record.
pub(crate) fn decode(record: &Record) -> Result<(FunctionKey, Concurrency)> {
    let key = function_key(&record.key)
        .ok_or_else(|| Error::internal("Not a concurrency's record.", record.key.to_string()))?;
    let Stored { lineage, reserved, .. } = super::read(record)?;
    Ok((key, Concurrency { lineage, reserved }))
}
