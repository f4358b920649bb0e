//! A version of a function as it is stored: JSON under `account/region/function/name`, or
//! `account/region/version/name/number` once it is published.
//!
//! The environment is sealed for its account and key before it gets here in text; nothing else of
//! a function is secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lacewing_model::function::{Before, Code, Environment, State, StateReason, UpdateStatus};
use lacewing_model::{
    Error, Function, FunctionConfig, FunctionKey, FunctionName, Result, Timestamp, Version,
    VersionKey,
};
use lacewing_store::seal::Sealer;
use lacewing_store::{Key, Record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) mod alias;
pub(crate) mod concurrency;
pub(crate) mod numbers;
pub(crate) mod provisioned;

/// The format this program writes; it reads this one and all before.
const FORMAT: u32 = 1;
/// The segment that the keys of all functions have after account and region.
const FUNCTION: &str = "function";
/// The same of published versions.
const VERSION: &str = "version";
/// Digits of a version's number in a key, so that keys are in the order of the numbers.
const DIGITS: usize = 20;

/// What comes first, so that a newer format is refused before the rest is read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    config: FunctionConfig,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    environment: Option<String>,
    code: Code,
    state: State,
    last_update: UpdateStatus,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    state_reason: Option<StateReason>,
    revision_id: Uuid,
    last_modified: Timestamp,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    before: Option<StoredBefore>,
    /// Nil in records of before there were versions.
    #[serde(default)]
    lineage: Uuid,
}

#[derive(Serialize, Deserialize)]
struct StoredBefore {
    config: FunctionConfig,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    environment: Option<String>,
    code: Code,
}

/// Where a version is stored.
pub(crate) fn key(version: &VersionKey) -> Key {
    let FunctionKey { account, region, name } = &version.function;
    match version.version {
        Version::Latest => Key::new(account, region, &[FUNCTION, name.as_str()]),
        Version::Published(number) => {
            let number = format!("{number:0DIGITS$}");
            Key::new(account, region, &[VERSION, name.as_str(), &number])
        }
    }
}

/// The version whose record is under `key`, if it is that of a version.
pub(crate) fn version_key(key: &Key) -> Option<VersionKey> {
    let kind = key.as_str().split('/').nth(2)?;
    if kind != FUNCTION && kind != VERSION {
        return None;
    }
    let (name, version) = match key.segments().as_slice() {
        [_, name] if kind == FUNCTION => (FunctionName::new(name), Version::Latest),
        [_, name, number] if kind == VERSION => {
            (FunctionName::new(name), Version::Published(number.parse().ok()?))
        }
        _ => return None,
    };
    let function = FunctionKey { account: key.account()?, region: key.region()?, name: name.ok()? };
    Some(VersionKey { function, version })
}

/// The bytes to store.
pub(crate) fn encode(sealer: &Sealer, function: &Function) -> Result<Bytes> {
    let sealed = |config: &FunctionConfig| {
        config.environment.as_ref().map(|plain| seal(sealer, function, plain)).transpose()
    };
    let environment = sealed(&function.config)?;
    let before = match function.before.as_deref() {
        Some(Before { config, code }) => {
            let environment = sealed(config)?;
            Some(StoredBefore { config: config.clone(), environment, code: *code })
        }
        None => None,
    };
    let stored = Stored {
        format: FORMAT,
        config: function.config.clone(),
        environment,
        code: function.code,
        state: function.state,
        last_update: function.last_update,
        state_reason: function.state_reason.clone(),
        revision_id: function.revision_id,
        last_modified: function.last_modified,
        generation: function.generation,
        before,
        lineage: function.lineage,
    };
    write(&stored)
}

/// Reads and unseals a record.
pub(crate) fn decode(sealer: &Sealer, record: &Record) -> Result<Function> {
    let VersionKey { function: key, version } = version_key(&record.key)
        .ok_or_else(|| Error::internal("Not a function's record.", record.key.to_string()))?;
    let stored: Stored = read(record)?;
    let opened = |mut config: FunctionConfig, environment: Option<String>| -> Result<_> {
        let unseal = |text: String| unseal(sealer, &key, &record.key, &text);
        config.environment = environment.map(unseal).transpose()?;
        Ok(config)
    };
    let config = opened(stored.config, stored.environment)?;
    let before = match stored.before {
        Some(StoredBefore { config, environment, code }) => {
            Some(Box::new(Before { config: opened(config, environment)?, code }))
        }
        None => None,
    };
    Ok(Function {
        key,
        version,
        lineage: stored.lineage,
        config,
        code: stored.code,
        state: stored.state,
        last_update: stored.last_update,
        before,
        state_reason: stored.state_reason,
        revision_id: stored.revision_id,
        last_modified: stored.last_modified,
        generation: stored.generation,
    })
}

/// The bytes of a record.
fn write(stored: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(stored)
        .map_err(|error| Error::internal("A record could not be written.", error))?;
    Ok(bytes.into())
}

/// Reads a record of this format or one before.
fn read<T: DeserializeOwned>(record: &Record) -> Result<T> {
    let unreadable = |error: serde_json::Error| {
        Error::internal(format!("The record {} is unreadable.", record.key), error)
    };
    let Format { format } = serde_json::from_slice(&record.value).map_err(unreadable)?;
    if format > FORMAT {
        let problem = format!("it has format {format}, this program knows formats up to {FORMAT}");
        return Err(Error::internal(format!("The record {} is too new.", record.key), problem));
    }
    serde_json::from_slice(&record.value).map_err(unreadable)
}

fn seal(sealer: &Sealer, function: &Function, environment: &Environment) -> Result<String> {
    let plain = serde_json::to_vec(environment)
        .map_err(|error| Error::internal("An environment could not be written.", error))?;
    let key = key(&function.version_key());
    Ok(STANDARD.encode(sealer.seal(&function.key.account, &key, &plain)))
}

fn unseal(sealer: &Sealer, function: &FunctionKey, key: &Key, text: &str) -> Result<Environment> {
    let failed = || format!("The environment of {} cannot be unsealed.", function.arn());
    let sealed = STANDARD.decode(text).map_err(|error| Error::internal(failed(), error))?;
    let plain = sealer
        .open(&function.account, key, &sealed)
        .map_err(|error| Error::internal(failed(), error))?;
    // The cause would quote what it read.
    serde_json::from_slice(&plain).map_err(|_| Error::internal(failed(), "it is no JSON"))
}
