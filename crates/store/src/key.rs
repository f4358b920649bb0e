//! Keys: `account/region/segment/...`, each segment escaped, so that no name can reach another
//! tenant's keys and every key is plain ASCII in byte order.
//!
//! Letters, digits and `-_.~$` stand for themselves; every other byte is percent-encoded. An empty
//! segment is written as a lone `%`, which no escape can produce.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use lacewing_model::{AccountId, Region};

const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$');
const GLOBAL: &str = "_";
const EMPTY: &str = "%";

/// The name of a record, stream, queue or lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// The first segments of many keys; it matches whole segments only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

impl Key {
    /// A key of one account and region.
    pub fn new(account: &AccountId, region: &Region, path: &[&str]) -> Self {
        Self(join(account.as_str(), region.as_str(), path).into())
    }

    /// A key that belongs to no account: `_/_/...`.
    pub fn global(path: &[&str]) -> Self {
        Self(join(GLOBAL, GLOBAL, path).into())
    }

    /// The prefix of all keys of an account and region whose path begins with `path`.
    pub fn prefix(account: &AccountId, region: &Region, path: &[&str]) -> Prefix {
        Prefix::new(account, region, path)
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The unescaped segments after account and region.
    pub fn segments(&self) -> Vec<String> {
        self.0.split('/').skip(2).map(|segment| unescape(segment).into_owned()).collect()
    }

    /// The account; `None` for a global key.
    pub fn account(&self) -> Option<AccountId> {
        AccountId::new(self.0.split('/').next()?).ok()
    }

    /// The region; `None` for a global key.
    pub fn region(&self) -> Option<Region> {
        Region::new(self.0.split('/').nth(1)?).ok()
    }

    /// The first segment, which the keys of one account have in common.
    pub(crate) fn owner(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Wraps a text that came out of [`Key::as_str`].
    pub(crate) fn from_stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl Prefix {
    /// All keys of an account and region whose path begins with `path`.
    pub fn new(account: &AccountId, region: &Region, path: &[&str]) -> Self {
        Self::closed(join(account.as_str(), region.as_str(), path))
    }

    /// All keys of an account.
    pub fn account(account: &AccountId) -> Self {
        Self::closed(account.as_str().to_owned())
    }

    /// All keys that belong to no account and whose path begins with `path`.
    pub fn global(path: &[&str]) -> Self {
        Self::closed(join(GLOBAL, GLOBAL, path))
    }

    /// All keys.
    pub fn all() -> Self {
        Self("".into())
    }

    /// Whether `key` begins with this prefix.
    pub fn matches(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }

    /// The escaped text; every matching key is greater.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The least text that is greater than every matching key.
    pub(crate) fn end(&self) -> String {
        // A prefix ends with '/', and '0' is the byte after it; keys are ASCII, so '\u{7f}' ends all.
        match self.0.strip_suffix('/') {
            Some(stem) => format!("{stem}0"),
            None => "\u{7f}".to_owned(),
        }
    }

    fn closed(mut text: String) -> Self {
        text.push('/');
        Self(text.into())
    }
}

fn join(account: &str, region: &str, path: &[&str]) -> String {
    let mut text = format!("{account}/{region}");
    for segment in path {
        text.push('/');
        match *segment {
            "" => text.push_str(EMPTY),
            segment => text.extend(utf8_percent_encode(segment, ESCAPED)),
        }
    }
    text
}

fn unescape(segment: &str) -> Cow<'_, str> {
    if segment == EMPTY {
        return Cow::Borrowed("");
    }
    percent_decode_str(segment).decode_utf8_lossy()
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account() -> AccountId {
        AccountId::new("123456789012").expect("valid")
    }

    fn region() -> Region {
        Region::new("eu-west-1").expect("valid")
    }

    #[test]
    fn a_slash_in_a_segment_does_not_make_two() {
        let key = Key::new(&account(), &region(), &["functions", "a/b"]);
        assert_eq!(key.as_str(), "123456789012/eu-west-1/functions/a%2Fb");
        assert_eq!(key.segments(), ["functions", "a/b"]);
        assert!(!Prefix::new(&account(), &region(), &["functions", "a"]).matches(&key));
    }

    #[test]
    fn a_prefix_matches_whole_segments_only() {
        let key = Key::new(&account(), &region(), &["functions", "abc"]);
        assert!(Prefix::new(&account(), &region(), &["functions"]).matches(&key));
        assert!(!Prefix::new(&account(), &region(), &["func"]).matches(&key));
        assert!(Prefix::all().matches(&key));
        assert!(Prefix::account(&account()).matches(&key));
    }

    #[test]
    fn a_global_key_has_no_account() {
        let key = Key::global(&["leases", "leader"]);
        assert!(key.as_str().starts_with("_/_/"));
        assert_eq!((key.account(), key.region()), (None, None));
        assert!(Prefix::global(&["leases"]).matches(&key));
    }

    proptest! {
        #[test]
        fn segments_survive_escaping(path in prop::collection::vec("\\PC{0,12}", 1..5)) {
            let parts: Vec<&str> = path.iter().map(String::as_str).collect();
            let key = Key::new(&account(), &region(), &parts);
            prop_assert!(key.as_str().is_ascii());
            prop_assert_eq!(key.account(), Some(account()));
            prop_assert_eq!(key.segments(), path);
        }

        #[test]
        fn a_prefix_is_the_range_between_its_text_and_its_end(
            path in prop::collection::vec("[a-c/%. ]{0,3}", 1..4),
            start in prop::collection::vec("[a-c/%. ]{0,3}", 0..3),
        ) {
            let parts: Vec<&str> = path.iter().map(String::as_str).collect();
            let stem: Vec<&str> = start.iter().map(String::as_str).collect();
            let key = Key::new(&account(), &region(), &parts);
            let prefix = Prefix::new(&account(), &region(), &stem);
            let in_range = key.as_str() > prefix.as_str() && key.as_str() < prefix.end().as_str();
            prop_assert_eq!(in_range, prefix.matches(&key));
            prop_assert_eq!(prefix.matches(&key), parts.len() > stem.len() && parts.starts_with(&stem));
        }
    }
}
