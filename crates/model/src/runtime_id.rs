//! Runtime identifiers such as `python3.13`, `nodejs22.x` and `provided.al2023`.
//!
//! Source: "Lambda runtimes", <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html>.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Kind, Result};

/// A runtime as the API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimeId {
    /// The language.
    pub family: Family,
    /// The version within the language: `(3, 13)`, `(22, 0)`, `(2023, 0)`.
    pub version: (u16, u16),
}

/// The language of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// CPython.
    Python,
    /// Node.js.
    Node,
    /// A `bootstrap` of the function's own.
    Provided,
}

impl RuntimeId {
    /// CPython `major.minor`.
    pub const fn python(major: u16, minor: u16) -> Self {
        Self { family: Family::Python, version: (major, minor) }
    }

    /// Node.js `major`.
    pub const fn node(major: u16) -> Self {
        Self { family: Family::Node, version: (major, 0) }
    }
}

impl FromStr for RuntimeId {
    type Err = Error;

    /// Reads an identifier of a language that Lacewing can run; whether this machine has that
    /// version is another question.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            let message = format!(
                "Value {text} at 'runtime' failed to satisfy constraint: Member must satisfy \
                 pattern: [python3.N, nodejsN.x, provided.al2023, provided.al2]"
            );
            Error::new(Kind::Invalid, message)
        };
        let number = |digits: &str| -> Result<u16> {
            let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
            if !plain {
                return Err(unknown());
            }
            digits.parse().map_err(|_| unknown())
        };
        match text {
            "provided.al2" => return Ok(Self { family: Family::Provided, version: (2, 0) }),
            "provided.al2023" => return Ok(Self { family: Family::Provided, version: (2023, 0) }),
            _ => {}
        }
        if let Some(minor) = text.strip_prefix("python3.") {
            return Ok(Self::python(3, number(minor)?));
        }
        if let Some(major) = text.strip_prefix("nodejs").and_then(|rest| rest.strip_suffix(".x")) {
            return Ok(Self::node(number(major)?));
        }
        Err(unknown())
    }
}

impl TryFrom<String> for RuntimeId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RuntimeId> for String {
    fn from(runtime: RuntimeId) -> Self {
        runtime.to_string()
    }
}

impl fmt::Display for RuntimeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version;
        match self.family {
            Family::Python => write!(f, "python{major}.{minor}"),
            Family::Node => write!(f, "nodejs{major}.x"),
            Family::Provided => write!(f, "provided.al{major}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_survive_their_text_form() {
        for text in ["python3.9", "python3.13", "nodejs18.x", "provided.al2", "provided.al2023"] {
            assert_eq!(text.parse::<RuntimeId>().expect("known").to_string(), text);
        }
    }

    #[test]
    fn strangers_are_refused_by_name() {
        for text in ["java21", "python2.7", "python3.", "nodejs.x", "nodejs022.x", "Python3.13"] {
            let error = text.parse::<RuntimeId>().expect_err("unknown");
            assert!(error.public().contains(text));
        }
    }
}
