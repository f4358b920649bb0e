//! Names and identifiers as types: a value that exists is well formed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits;
use crate::{Error, Kind, Result};

/// Makes a cheap-to-clone checked string type.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            /// `Kind::Constraint` if `text` is not well formed.
            pub fn new(text: &str) -> Result<Self> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A tenant: twelve digits.
    AccountId,
    check_account
);
name_type!(
    /// A region, for example `us-east-1`.
    Region,
    check_region
);
name_type!(
    /// A function's name: 1 to 64 letters, digits, `-` and `_`.
    FunctionName,
    check_function_name
);

fn check_account(text: &str) -> Result<()> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(Error::new(Kind::Constraint, format!("An account is twelve digits, not '{text}'.")))
}

fn check_region(text: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!("A region is 1 to 32 lower-case letters, digits and '-', not '{text}'.");
    Err(Error::new(Kind::Constraint, message))
}

fn check_function_name(text: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=limits::FUNCTION_NAME).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!(
        "1 validation error detected: Value '{text}' at 'functionName' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9-_]{{1,64}}"
    );
    Err(Error::new(Kind::Constraint, message))
}

/// Which version of a function is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qualifier {
    /// The unpublished version.
    Latest,
    /// A published version.
    Version(u64),
    /// An alias.
    Alias(Arc<str>),
}

impl FromStr for Qualifier {
    type Err = Error;

    /// Reads `$LATEST`, a version number, or an alias (1 to 128 letters, digits, `-` and `_`, not
    /// all digits).
    fn from_str(text: &str) -> Result<Self> {
        if text == "$LATEST" {
            return Ok(Self::Latest);
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(version) = text.parse().ok().filter(|_| is_number) {
            return Ok(Self::Version(version));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let must = match text.len() {
            1..=128 if text.bytes().all(allowed) => return Ok(Self::Alias(text.into())),
            0..=128 => r"satisfy regular expression pattern: (\$LATEST|[a-zA-Z0-9-_]+)",
            _ => "have length less than or equal to 128",
        };
        let message = format!(
            "1 validation error detected: Value '{text}' at 'qualifier' failed to satisfy \
             constraint: Member must {must}"
        );
        Err(Error::new(Kind::Constraint, message))
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("$LATEST"),
            Self::Version(version) => write!(f, "{version}"),
            Self::Alias(alias) => f.write_str(alias),
        }
    }
}

/// One version of a function: the one that can be changed, or a published one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Version {
    /// `$LATEST`, the unpublished version.
    #[default]
    Latest,
    /// A published version; the first has the number 1.
    Published(u64),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("$LATEST"),
            Self::Published(number) => write!(f, "{number}"),
        }
    }
}

impl From<Version> for Qualifier {
    fn from(version: Version) -> Self {
        match version {
            Version::Latest => Self::Latest,
            Version::Published(number) => Self::Version(number),
        }
    }
}

/// Names one invocation; written as a lower-case UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as a UUID.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for RequestId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::new(Kind::Invalid, format!("'{text}' is no request id."));
        Ok(Self(Uuid::parse_str(text).map_err(|_| invalid())?))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The SHA-256 of some bytes; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps a digest that was computed elsewhere.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Lower-case hexadecimal digits, two for each byte. By a table: the formatter takes ten times as long,
/// and every signed request has three of these.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS[usize::from(nibble & 15)];
    let mut text = vec![0; 2 * bytes.len()];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(*byte)];
    }
    String::from_utf8(text).expect("digits are ASCII")
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::new(Kind::Invalid, "A digest is 64 hexadecimal digits.");
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| invalid())?;
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            b'A'..=b'F' => Ok(digit - b'A' + 10),
            _ => Err(invalid()),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn function_names_are_bounded() {
        assert!(FunctionName::new("hello-World_1").is_ok());
        assert!(FunctionName::new("").is_err());
        assert!(FunctionName::new("../etc").is_err());
        assert!(FunctionName::new(&"x".repeat(65)).is_err());
    }

    #[test]
    fn a_qualifier_of_digits_is_a_version() {
        assert_eq!("17".parse::<Qualifier>().expect("valid"), Qualifier::Version(17));
        assert_eq!("$LATEST".parse::<Qualifier>().expect("valid"), Qualifier::Latest);
        assert_eq!("live".parse::<Qualifier>().expect("valid"), Qualifier::Alias("live".into()));
        assert!("a b".parse::<Qualifier>().is_err());
    }

    #[test]
    fn a_plus_sign_is_no_digit() {
        assert!("+5".parse::<Qualifier>().is_err());
        assert!(format!("+{}", "a".repeat(63)).parse::<Digest>().is_err());
    }

    proptest! {
        #[test]
        fn digests_survive_their_text_form(bytes: [u8; 32]) {
            let digest = Digest::new(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().expect("own text"), digest);
        }

        #[test]
        fn hostile_digests_are_refused_without_a_panic(text in "\\PC{0,80}") {
            let _parsed = text.parse::<Digest>().is_ok();
        }
    }
}
