//! Signing keys: the HMAC chain over date, region and service, and a small cache of its results.
//!
//! The cache holds keys, so it never shows them and never grows beyond its bound.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::hmac;
use parking_lot::Mutex;

use crate::sigv4::TERMINATOR;

/// Derives the key that signs for one day, region and service.
pub(super) fn derive(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    [date, region, service, TERMINATOR].into_iter().fold(first, |key, part| {
        let tag = hmac::sign(&key, part.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())
    })
}

/// What a signing key is derived from.
#[derive(PartialEq, Eq, Hash)]
struct Origin {
    secret: String,
    date: String,
    region: String,
    service: String,
}

/// Signing keys that were used lately.
pub struct KeyCache {
    capacity: usize,
    keys: Mutex<HashMap<Origin, hmac::Key>>,
}

impl KeyCache {
    /// A cache of at most `capacity` keys.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, keys: Mutex::default() }
    }

    /// The key for `secret` and the scope, derived when it is not known yet.
    pub(super) fn get(&self, secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
        let origin = Origin {
            secret: secret.into(),
            date: date.into(),
            region: region.into(),
            service: service.into(),
        };
        if let Some(key) = self.keys.lock().get(&origin) {
            return key.clone();
        }
        let key = derive(secret, date, region, service);
        let mut keys = self.keys.lock();
        if keys.len() >= self.capacity {
            // Deriving again costs microseconds: forgetting all of them is simpler than choosing.
            keys.clear();
        }
        keys.insert(origin, key.clone());
        key
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_never_holds_more_than_its_capacity() {
        let cache = KeyCache::new(3);
        for day in 0..20 {
            let _key = cache.get("secret", &format!("{day:08}"), "us-east-1", "lambda");
            assert!(cache.keys.lock().len() <= 3);
        }
    }

    #[test]
    fn another_secret_never_gets_the_first_ones_key() {
        let cache = KeyCache::new(8);
        let sign = |secret| {
            let key = cache.get(secret, "20261121", "us-east-1", "lambda");
            hmac::sign(&key, b"text").as_ref().to_vec()
        };
        assert_ne!(sign("one"), sign("two"));
        assert_eq!(sign("one"), sign("one"));
    }
}
