//! An alias as it is stored: JSON under `account/region/alias/function/name`.

use std::sync::Arc;

use bytes::Bytes;
use lacewing_model::{Alias, Error, FunctionKey, FunctionName, Result, Version};
use lacewing_store::{Key, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FORMAT;

/// The segment that the keys of all aliases have after account and region.
const ALIAS: &str = "alias";

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// The number of the version; none for `$LATEST`.
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    second: Option<(u64, f64)>,
    description: String,
    revision_id: Uuid,
    lineage: Uuid,
}

/// Where an alias is stored.
pub(crate) fn key(function: &FunctionKey, name: &str) -> Key {
    Key::new(&function.account, &function.region, &[ALIAS, function.name.as_str(), name])
}

/// The function and the name of the alias whose record is under `key`, if it is that of an alias.
pub(crate) fn alias_key(key: &Key) -> Option<(FunctionKey, Arc<str>)> {
    if key.as_str().split('/').nth(2)? != ALIAS {
        return None;
    }
    let [_, function, name] = <[String; 3]>::try_from(key.segments()).ok()?;
    let function = FunctionKey {
        account: key.account()?,
        region: key.region()?,
        name: FunctionName::new(&function).ok()?,
    };
    Some((function, name.into()))
}

/// The bytes to store.
pub(crate) fn encode(alias: &Alias) -> Result<Bytes> {
    super::write(&Stored {
        format: FORMAT,
        version: match alias.version {
            Version::Latest => None,
            Version::Published(number) => Some(number),
        },
        second: alias.second,
        description: alias.description.clone(),
        revision_id: alias.revision_id,
        lineage: alias.lineage,
    })
}

/// Reads a record.
pub(crate) fn decode(record: &Record) -> Result<Alias> {
    let (key, name) = alias_key(&record.key)
        .ok_or_else(|| Error::internal("Not an alias's record.", record.key.to_string()))?;
    let stored: Stored = super::read(record)?;
    Ok(Alias {
        key,
        name,
        version: stored.version.map_or(Version::Latest, Version::Published),
        second: stored.second,
        description: stored.description,
        revision_id: stored.revision_id,
        lineage: stored.lineage,
    })
}
