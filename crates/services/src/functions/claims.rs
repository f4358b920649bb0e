//! Which stored code may be deleted: one claim record for each blob, under `_/_/code/account/digest`.
//!
//! A claim is written before its blob, and renewed by everyone who is about to name the blob in a
//! record. Code that no function has is doomed, and collected when it was doomed for long enough:
//!
//! ```text
//!              unused, untouched for GRACE        unused, doomed for GRACE
//!   Live ------------------------------> Doomed ------------------------> Collecting -> gone
//!    ^  <----- claimed, or in use ------   |
//!    '-------------- claimed --------------'
//! ```
//!
//! Each step expects the claim's revision, so that a claim made meanwhile wins; from `Collecting`
//! there is no way back, a new claim waits until the record is gone. Hence no blob is deleted
//! between somebody's claim and his record, as long as he takes less than `GRACE` for both.

use std::collections::HashSet;
use std::time::Duration;

use lacewing_model::{AccountId, Digest, Error, Kind, Result, Timestamp};
use lacewing_store::{BlobAddress, Expect, Key, Prefix, Record, StoreError};
use serde::{Deserialize, Serialize};

use super::Functions;
use crate::catalog::for_each_record;
use crate::record;

/// How long a claim holds, and how long doomed code is kept for those who still read it.
pub(crate) const GRACE: Duration = Duration::from_secs(3_600);
/// The format of the records.
const FORMAT: u32 = 1;
/// Pauses and number of tries of a claim on code that is being collected.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: usize = 100;

/// The state of one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is in use, or about to be.
    Live,
    /// Nobody uses it.
    Doomed,
    /// It is being deleted.
    Collecting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    format: u32,
    state: State,
    since: Timestamp,
}

/// What the collector does with one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Become(State),
    Delete,
}

fn step(claim: Claim, is_used: bool, now: Timestamp) -> Step {
    let is_old = now.since(claim.since) >= GRACE;
    match claim.state {
        State::Live if is_old && !is_used => Step::Become(State::Doomed),
        State::Doomed if is_used => Step::Become(State::Live),
        State::Doomed if is_old => Step::Become(State::Collecting),
        State::Collecting => Step::Delete,
        State::Live | State::Doomed => Step::Keep,
    }
}

/// Protects code, which may not be stored yet, from being collected for [`GRACE`].
pub(super) async fn claim(
    functions: &Functions,
    account: &AccountId,
    digest: &Digest,
) -> Result<()> {
    let records = &functions.0.store.records;
    let key = key(account, digest);
    for _ in 0..TRIES {
        let expect = match records.get(&key).await? {
            None => Expect::Absent,
            Some(found) if decode(&found)?.state != State::Collecting => {
                Expect::Revision(found.revision)
            }
            Some(_) => {
                functions.0.wanted.notify_one();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let claim = Claim { format: FORMAT, state: State::Live, since: functions.0.clock.now() };
        match records.put(&key, encode(claim)?, expect).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(Kind::Unavailable, "The code cannot be stored now. Please try again."))
}

/// Takes every claim one step further.
pub(super) async fn collect(functions: &Functions) -> Result<()> {
    let mut claims = Vec::new();
    for_each_record(functions.0.store.records.as_ref(), &Prefix::global(&["code"]), |found| {
        claims.push(found.clone());
        Ok(())
    })
    .await?;
    let in_use = functions.0.catalog.code_in_use();
    for found in claims {
        if let Err(error) = collect_one(functions, &in_use, &found).await {
            tracing::warn!(key = %found.key, error = %error.chain(), "Unused code was not collected.");
        }
    }
    Ok(())
}

async fn collect_one(
    functions: &Functions,
    in_use: &HashSet<BlobAddress>,
    found: &Record,
) -> Result<()> {
    let claim = decode(found)?;
    let address = address(&found.key)?;
    let now = functions.0.clock.now();
    let mut is_used = in_use.contains(&address);
    if claim.state == State::Doomed && !is_used {
        // The catalog may be behind; the last word before deleting has the store.
        is_used = is_used_in_store(functions, &address).await?;
    }
    let records = &functions.0.store.records;
    let expect = Expect::Revision(found.revision);
    let done = match step(claim, is_used, now) {
        Step::Keep => Ok(()),
        Step::Become(state) => {
            let claim = encode(Claim { format: FORMAT, state, since: now })?;
            records.put(&found.key, claim, expect).await.map(|_| ())
        }
        Step::Delete => {
            functions.0.store.blobs.delete(&address).await?;
            records.delete(&found.key, expect).await.map(|_| ())
        }
    };
    match done {
        // Somebody claimed it, or another node was faster.
        Ok(()) | Err(StoreError::Conflict { .. } | StoreError::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn is_used_in_store(functions: &Functions, address: &BlobAddress) -> Result<bool> {
    let mut is_used = false;
    let records = functions.0.store.records.as_ref();
    for_each_record(records, &Prefix::account(&address.account), |found| {
        if record::version_key(&found.key).is_some() {
            let function = record::decode(&functions.0.sealer, found)?;
            is_used |= function.codes().any(|code| code.digest == address.digest);
        }
        Ok(())
    })
    .await?;
    Ok(is_used)
}

fn key(account: &AccountId, digest: &Digest) -> Key {
    Key::global(&["code", account.as_str(), &digest.to_string()])
}

fn address(key: &Key) -> Result<BlobAddress> {
    match <[String; 3]>::try_from(key.segments()) {
        Ok([_, account, digest]) => {
            Ok(BlobAddress { account: AccountId::new(&account)?, digest: digest.parse()? })
        }
        Err(_) => Err(Error::internal("A claim has a strange key.", key.to_string())),
    }
}

fn encode(claim: Claim) -> Result<bytes::Bytes> {
    let bytes = serde_json::to_vec(&claim)
        .map_err(|error| Error::internal("A claim could not be written.", error))?;
    Ok(bytes.into())
}

fn decode(found: &Record) -> Result<Claim> {
    let claim: Claim = serde_json::from_slice(&found.value)
        .map_err(|error| Error::internal("A claim is unreadable.", error))?;
    if claim.format > FORMAT {
        return Err(Error::internal("A claim is too new.", found.key.to_string()));
    }
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(state: State, age: Duration, is_used: bool) -> Step {
        let claim = Claim { format: FORMAT, state, since: Timestamp::from_seconds(1_000) };
        step(claim, is_used, claim.since.plus(age))
    }

    #[test]
    fn used_or_fresh_code_is_kept() {
        let young = GRACE - Duration::from_secs(1);
        assert_eq!(after(State::Live, young, false), Step::Keep);
        assert_eq!(after(State::Live, GRACE * 9, true), Step::Keep);
        assert_eq!(after(State::Doomed, young, false), Step::Keep);
    }

    #[test]
    fn unused_code_is_doomed_then_collected() {
        assert_eq!(after(State::Live, GRACE, false), Step::Become(State::Doomed));
        assert_eq!(after(State::Doomed, GRACE, false), Step::Become(State::Collecting));
        assert_eq!(after(State::Collecting, Duration::ZERO, false), Step::Delete);
    }

    #[test]
    fn doomed_code_that_is_used_again_lives() {
        assert_eq!(after(State::Doomed, GRACE * 9, true), Step::Become(State::Live));
    }
}
