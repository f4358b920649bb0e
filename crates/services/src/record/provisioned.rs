//! How many Instances of a version are kept ready, as it is stored: JSON under
//! `account/region/provisioned/name/qualifier`. For a version or an alias that has none there is no
//! such record.

use std::sync::Arc;

use bytes::Bytes;
use lacewing_model::{Error, FunctionKey, FunctionName, Qualifier, Result, Timestamp};
use lacewing_store::{Key, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FORMAT;

/// The segment that these keys have after account and region.
const PROVISIONED: &str = "provisioned";

/// What is kept ready for one version, by its number or by an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provision {
    /// The function.
    pub key: FunctionKey,
    /// Its version, or an alias of it.
    pub qualifier: Qualifier,
    /// How many.
    pub requested: u32,
    /// When that was set.
    pub modified: Timestamp,
    /// The function that it was set for, see `Function::lineage`.
    pub(crate) lineage: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    lineage: Uuid,
    requested: u32,
    modified: Timestamp,
}

/// Where it is stored.
pub(crate) fn key(function: &FunctionKey, qualifier: &str) -> Key {
    Key::new(&function.account, &function.region, &[PROVISIONED, function.name.as_str(), qualifier])
}

/// The function and the qualifier whose record is under `key`, if it is such a record.
pub(crate) fn provision_key(key: &Key) -> Option<(FunctionKey, Arc<str>)> {
    if key.as_str().split('/').nth(2)? != PROVISIONED {
        return None;
    }
    let [_, name, qualifier] = <[String; 3]>::try_from(key.segments()).ok()?;
    let name = FunctionName::new(&name).ok()?;
    let function = FunctionKey { account: key.account()?, region: key.region()?, name };
    Some((function, qualifier.into()))
}

/// The bytes to store.
pub(crate) fn encode(provision: &Provision) -> Result<Bytes> {
    let Provision { lineage, requested, modified, .. } = *provision;
    super::write(&Stored { format: FORMAT, lineage, requested, modified })
}

/// Reads a record.
pub(crate) fn decode(record: &Record) -> Result<Provision> {
    let foreign = || Error::internal("Not a provision's record.", record.key.to_string());
    let (key, qualifier) = provision_key(&record.key).ok_or_else(foreign)?;
    let qualifier = qualifier.parse()?;
    let Stored { lineage, requested, modified, .. } = super::read(record)?;
    Ok(Provision { key, qualifier, requested, modified, lineage })
}
