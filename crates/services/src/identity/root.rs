//! The root key: made once, kept sealed in the store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lacewing_model::{Credentials, Error, Result, Secret};
use lacewing_store::seal::{self, Sealer};
use lacewing_store::{Expect, Key, Record, Store, StoreError};
use serde::{Deserialize, Serialize};

use super::key;
use crate::Options;

/// The format of the record.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    access_key_id: String,
    sealed_secret: String,
}

/// The account's root key; of two nodes that make it at the same time, both get the same one.
pub(super) async fn load_or_create(
    store: &Store,
    sealer: &Sealer,
    options: &Options,
) -> Result<Credentials> {
    let account = &options.account;
    let at = Key::global(&["identity", account.as_str(), "root-key"]);
    if let Some(found) = store.records.get(&at).await? {
        return decode(sealer, options, &found);
    }
    let (access_key_id, secret) = key::pair(key::LONG_LIVED)?;
    let sealed = sealer.seal(account, &at, secret.expose().as_bytes());
    let stored = Stored { format: FORMAT, access_key_id, sealed_secret: STANDARD.encode(sealed) };
    let bytes = serde_json::to_vec(&stored)
        .map_err(|error| Error::internal("The root key could not be written.", error))?;
    match store.records.put(&at, bytes.into(), Expect::Absent).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match store.records.get(&at).await? {
        Some(found) => decode(sealer, options, &found),
        None => Err(Error::internal("The root key vanished.", at.to_string())),
    }
}

fn decode(sealer: &Sealer, options: &Options, found: &Record) -> Result<Credentials> {
    const UNREADABLE: &str = "The root key cannot be read.";
    let stored: Stored =
        serde_json::from_slice(&found.value).map_err(|error| Error::internal(UNREADABLE, error))?;
    if stored.format > FORMAT {
        return Err(Error::internal("The root key's record is too new.", found.key.to_string()));
    }
    let sealed = STANDARD
        .decode(&stored.sealed_secret)
        .map_err(|error| Error::internal(UNREADABLE, error))?;
    let plain = sealer.open(&options.account, &found.key, &sealed).map_err(|error| {
        let cause = match error {
            StoreError::Unsealable => seal::wrong_master(&options.data_dir),
            other => other,
        };
        Error::internal(UNREADABLE, cause)
    })?;
    let secret = String::from_utf8(plain).map_err(|_| Error::internal(UNREADABLE, "not text"))?;
    Ok(Credentials {
        access_key_id: stored.access_key_id,
        secret_access_key: Secret::new(secret),
        session_token: None,
        expires: None,
    })
}
