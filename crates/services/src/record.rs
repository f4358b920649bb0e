//! A function as it is stored: JSON under `account/region/function/name`.
//!
//! The environment is sealed for its account and key before it gets here in text; nothing else of
//! a function is secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lacewing_model::function::{Code, Environment, State, StateReason, UpdateStatus};
use lacewing_model::{
    AccountId, Error, Function, FunctionConfig, FunctionKey, FunctionName, Region, Result,
    Timestamp,
};
use lacewing_store::seal::Sealer;
use lacewing_store::{Key, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The format this program writes; it reads this one and all before.
const FORMAT: u32 = 1;
/// The segment that all keys of functions have after account and region.
const KIND: &str = "function";

/// What comes first, so that a newer format is refused before the rest is read.
#[derive(Deserialize)]
struct Version {
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
}

/// Where a function is stored.
pub(crate) fn key(function: &FunctionKey) -> Key {
    Key::new(&function.account, &function.region, &[KIND, function.name.as_str()])
}

/// The function whose record is under `key`, if it is that of a function.
pub(crate) fn function_key(key: &Key) -> Option<FunctionKey> {
    let mut parts = key.as_str().split('/');
    let (account, region) = (parts.next()?, parts.next()?);
    if parts.next()? != KIND {
        return None;
    }
    let [_, name] = <[String; 2]>::try_from(key.segments()).ok()?;
    Some(FunctionKey {
        account: AccountId::new(account).ok()?,
        region: Region::new(region).ok()?,
        name: FunctionName::new(&name).ok()?,
    })
}

/// The bytes to store.
pub(crate) fn encode(sealer: &Sealer, function: &Function) -> Result<Bytes> {
    let environment = match &function.config.environment {
        Some(environment) => {
            let plain = serde_json::to_vec(environment)
                .map_err(|error| Error::internal("An environment could not be written.", error))?;
            let sealed = sealer.seal(&function.key.account, &key(&function.key), &plain);
            Some(STANDARD.encode(sealed))
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
    };
    let bytes = serde_json::to_vec(&stored)
        .map_err(|error| Error::internal("A function could not be written.", error))?;
    Ok(bytes.into())
}

/// Reads and unseals a record.
pub(crate) fn decode(sealer: &Sealer, record: &Record) -> Result<Function> {
    let unreadable = |error: serde_json::Error| {
        Error::internal(format!("The record {} is unreadable.", record.key), error)
    };
    let key = function_key(&record.key)
        .ok_or_else(|| Error::internal("Not a function's record.", record.key.to_string()))?;
    let Version { format } = serde_json::from_slice(&record.value).map_err(unreadable)?;
    if format > FORMAT {
        let problem = format!("it has format {format}, this program knows formats up to {FORMAT}");
        return Err(Error::internal(format!("The record {} is too new.", record.key), problem));
    }
    let stored: Stored = serde_json::from_slice(&record.value).map_err(unreadable)?;
    let mut config = stored.config;
    config.environment = match &stored.environment {
        Some(text) => Some(unseal(sealer, &key, &record.key, text)?),
        None => None,
    };
    Ok(Function {
        key,
        config,
        code: stored.code,
        state: stored.state,
        last_update: stored.last_update,
        state_reason: stored.state_reason,
        revision_id: stored.revision_id,
        last_modified: stored.last_modified,
        generation: stored.generation,
    })
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
