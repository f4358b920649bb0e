//! Signing keys: the HMAC chain over date, region and service, and a small cache of its results.
//!
//! The cache holds keys, so it never shows them and never grows beyond its bound.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::hmac;
use parking_lot::Mutex;

/// Derives the key that signs for a scope, `DATE/REGION/SERVICE/aws4_request`.
pub(super) fn derive(secret: &str, scope: &str) -> hmac::Key {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    scope.split('/').fold(first, |key, part| {
        let tag = hmac::sign(&key, part.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())
    })
}

/// What a signing key is derived from: a secret and a scope, in one text that is cheap to look up.
#[derive(PartialEq, Eq, Hash)]
struct Origin {
    text: String,
    secret_length: usize,
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
    pub(super) fn get(&self, secret: &str, scope: &str) -> hmac::Key {
        let origin = Origin { text: [secret, scope].concat(), secret_length: secret.len() };
        if let Some(key) = self.keys.lock().get(&origin) {
            return key.clone();
        }
        let key = derive(secret, scope);
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
            let _key = cache.get("secret", &format!("{day:08}/us-east-1/lambda/aws4_request"));
            assert!(cache.keys.lock().len() <= 3);
        }
    }

    #[test]
    fn another_secret_never_gets_the_first_ones_key() {
        let cache = KeyCache::new(8);
        let sign = |secret| {
            let key = cache.get(secret, "20261121/us-east-1/lambda/aws4_request");
            hmac::sign(&key, b"text").as_ref().to_vec()
        };
        assert_ne!(sign("one"), sign("two"));
        assert_eq!(sign("one"), sign("one"));
    }

    #[test]
    fn where_the_secret_ends_is_part_of_what_a_key_is_known_by() {
        let cache = KeyCache::new(8);
        let sign = |secret, scope| hmac::sign(&cache.get(secret, scope), b"text").as_ref().to_vec();
        assert_ne!(sign("secret2", "0261121/r/s/t"), sign("secret", "20261121/r/s/t"));
    }
}
