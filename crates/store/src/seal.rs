//! Seals secrets before they are stored, and session tokens before they leave.
//!
//! A sealed value carries its own data key, wrapped by the master key, so that it needs nothing but
//! the master key to be opened, on any node and after any restore:
//!
//! ```text
//!   version 1 | nonce 12 | data key, AES-256-GCM under the master key 32+16   aad: account
//!             | nonce 12 | value, AES-256-GCM under the data key     n+16     aad: account, key
//! ```
//!
//! The data key is random, one for each account and process, and replaced long before its nonces
//! could repeat (NIST SP 800-38D, section 8.3). A value that is moved to another account or key
//! does not open. Nothing here is ever logged, and no key has a `Debug` that shows it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use aws_lc_rs::rand;
use parking_lot::Mutex;

use lacewing_model::AccountId;

use crate::{Key, Result, StoreError};

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;
const USES_OF_A_DATA_KEY: u64 = 1 << 24;
/// Data keys kept at a time; more accounts than this only means more wrapping.
const DATA_KEYS: usize = 10_000;
const MASTER_FILE: &str = "master.key";

/// Seals values for an account and key.
pub struct Sealer {
    master: LessSafeKey,
    data_keys: Mutex<HashMap<AccountId, DataKey>>,
}

struct DataKey {
    key: LessSafeKey,
    wrapped: Vec<u8>,
    uses: u64,
}

/// Seals session tokens: small values that leave the server and come back.
pub struct TokenSealer {
    key: LessSafeKey,
}

impl Sealer {
    /// A sealer under this master key.
    pub fn new(master: [u8; 32]) -> Self {
        Self { master: cipher(&master), data_keys: Mutex::new(HashMap::new()) }
    }

    /// Seals `plain` so that it opens for this account and key only.
    pub fn seal(&self, account: &AccountId, key: &Key, plain: &[u8]) -> Vec<u8> {
        let mut data_keys = self.data_keys.lock();
        if data_keys.len() >= DATA_KEYS && !data_keys.contains_key(account) {
            data_keys.clear();
        }
        let data_key =
            data_keys.entry(account.clone()).or_insert_with(|| self.make_data_key(account));
        if data_key.uses >= USES_OF_A_DATA_KEY {
            *data_key = self.make_data_key(account);
        }
        data_key.uses += 1;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&data_key.wrapped);
        sealed.extend(encrypt(&data_key.key, &value_aad(account, key), plain));
        sealed
    }

    /// Opens what [`Sealer::seal`] made for the same account and key.
    ///
    /// # Errors
    /// [`StoreError::Unsealable`] for everything else.
    pub fn open(&self, account: &AccountId, key: &Key, sealed: &[u8]) -> Result<Vec<u8>> {
        let (version, rest) = sealed.split_first().ok_or(StoreError::Unsealable)?;
        let (wrapped, value) = rest.split_at_checked(WRAPPED_LEN).ok_or(StoreError::Unsealable)?;
        if *version != VERSION {
            return Err(StoreError::Unsealable);
        }
        let data_key = decrypt(&self.master, &wrapping_aad(account), wrapped)?;
        let data_key: [u8; KEY_LEN] = data_key.try_into().map_err(|_| StoreError::Unsealable)?;
        decrypt(&cipher(&data_key), &value_aad(account, key), value)
    }

    fn make_data_key(&self, account: &AccountId) -> DataKey {
        let key: [u8; KEY_LEN] = random();
        let wrapped = encrypt(&self.master, &wrapping_aad(account), &key);
        DataKey { key: cipher(&key), wrapped, uses: 0 }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl TokenSealer {
    /// A token sealer under a key of its own, derived from the master key (RFC 5869).
    pub fn new(master: &[u8; 32]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"lacewing");
        let mut key = [0; KEY_LEN];
        salt.extract(master)
            .expand(&[b"session token"], &AES_256_GCM)
            .and_then(|derived| derived.fill(&mut key))
            .expect("an AES-256 key is no longer than HKDF-SHA256 can give");
        Self { key: cipher(&key) }
    }

    /// Seals a token.
    pub fn seal_token(&self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![VERSION];
        sealed.extend(encrypt(&self.key, &[VERSION], plain));
        sealed
    }

    /// Opens a token.
    ///
    /// # Errors
    /// [`StoreError::Unsealable`] if it was not made by [`TokenSealer::seal_token`] under the same
    /// master key.
    pub fn open_token(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        match sealed.split_first() {
            Some((&VERSION, rest)) => decrypt(&self.key, &[VERSION], rest),
            _ => Err(StoreError::Unsealable),
        }
    }
}

impl fmt::Debug for TokenSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSealer")
    }
}

/// Reads the master key from `<dir>/master.key`, or makes one that only its owner can read.
///
/// # Errors
/// Those of [`load_master`].
pub fn load_or_create_master(dir: &Path) -> Result<[u8; 32]> {
    let path = dir.join(MASTER_FILE);
    if !fs::exists(&path).map_err(|error| StoreError::io("look for the master key", error))? {
        create_master(dir, &path).map_err(|error| StoreError::io("make the master key", error))?;
    }
    load_master(dir)
}

/// Reads the master key from `<dir>/master.key`.
///
/// # Errors
/// [`StoreError::MasterKey`] if there is no such file, it holds no key or others may read it.
pub fn load_master(dir: &Path) -> Result<[u8; 32]> {
    let path = dir.join(MASTER_FILE);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => unusable(dir, "it is not there"),
        _ => StoreError::io("read the master key", error),
    };
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(unusable(dir, "others may read it; its mode must be 0600"));
    }
    let bytes = fs::read(&path).map_err(failed)?;
    bytes.try_into().map_err(|_| unusable(dir, "it is not 32 bytes long"))
}

/// What is to be said when `<dir>/master.key` is a key, but not the one that the store knows.
pub fn wrong_master(dir: &Path) -> StoreError {
    unusable(dir, "it is not the key with which the secrets in the store are sealed")
}

fn unusable(dir: &Path, reason: &'static str) -> StoreError {
    StoreError::MasterKey { path: dir.join(MASTER_FILE), reason }
}

fn create_master(dir: &Path, path: &Path) -> io::Result<()> {
    let temporary = dir.join(format!("{MASTER_FILE}.{:016x}", u64::from_ne_bytes(random())));
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&random::<KEY_LEN>())?;
    file.sync_all()?;
    // A link does not replace a key that another process made in the meantime.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::File::open(dir)?.sync_all(),
    }
}

fn cipher(key: &[u8; KEY_LEN]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
    LessSafeKey::new(key)
}

fn encrypt(key: &LessSafeKey, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = random();
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body)
        .expect("a value in memory is shorter than the cipher's limit");
    let mut sealed = nonce.to_vec();
    sealed.append(&mut body);
    sealed
}

fn decrypt(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(StoreError::Unsealable)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StoreError::Unsealable)?;
    let mut body = body.to_vec();
    let plain = key
        .open_in_place(nonce, Aad::from(aad), &mut body)
        .map_err(|_| StoreError::Unsealable)?
        .len();
    body.truncate(plain);
    Ok(body)
}

fn wrapping_aad(account: &AccountId) -> Vec<u8> {
    format!("data key/{account}").into_bytes()
}

/// Neither an account nor an escaped key contains a space.
fn value_aad(account: &AccountId, key: &Key) -> Vec<u8> {
    format!("value/{account} {key}").into_bytes()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

#[cfg(test)]
mod tests;
