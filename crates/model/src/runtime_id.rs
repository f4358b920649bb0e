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

/// What a function may be created with: the runtimes of the languages we run that AWS supports.
const SUPPORTED: [&str; 14] = [
    "nodejs18.x",
    "nodejs20.x",
    "nodejs22.x",
    "nodejs24.x",
    "nodejs26.x",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "python3.15",
    "provided.al2",
    "provided.al2023",
];
/// Identifiers of another form that AWS once had.
const RETIRED: [&str; 6] =
    ["nodejs", "nodejs4.3", "nodejs6.10", "nodejs8.10", "python2.7", "provided"];
/// The oldest versions that a function may be created with.
const OLDEST: [RuntimeId; 2] = [RuntimeId::python(3, 9), RuntimeId::node(18)];

impl RuntimeId {
    /// Reads an identifier of a language that Lacewing can run, of whatever age.
    fn read(text: &str) -> Option<Self> {
        let number = |digits: &str| -> Option<u16> {
            let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        match text {
            "provided.al2" => return Some(Self { family: Family::Provided, version: (2, 0) }),
            "provided.al2023" => {
                return Some(Self { family: Family::Provided, version: (2023, 0) });
            }
            _ => {}
        }
        if let Some(minor) = text.strip_prefix("python3.") {
            return Some(Self::python(3, number(minor)?));
        }
        let major = text.strip_prefix("nodejs")?.strip_suffix(".x")?;
        Some(Self::node(number(major)?))
    }

    fn is_retired(self) -> bool {
        OLDEST.iter().any(|oldest| oldest.family == self.family && self.version < oldest.version)
    }
}

impl FromStr for RuntimeId {
    type Err = Error;

    /// Reads an identifier that a function may be created with: one that AWS supports, or a newer
    /// version of its language. Whether this machine has that version is another question.
    fn from_str(text: &str) -> Result<Self> {
        match Self::read(text) {
            Some(runtime) if !runtime.is_retired() => Ok(runtime),
            Some(_) => Err(retired(text)),
            None if RETIRED.contains(&text) => Err(retired(text)),
            None => Err(unknown(text)),
        }
    }
}

fn retired(text: &str) -> Error {
    let message = format!(
        "The runtime parameter of {text} is no longer supported for creating or updating AWS \
         Lambda functions. We recommend you use a supported runtime while creating or updating \
         functions."
    );
    Error::new(Kind::Invalid, message)
}

fn unknown(text: &str) -> Error {
    let message = format!(
        "Value {text} at 'runtime' failed to satisfy constraint: Member must satisfy enum value \
         set: [{}] or be a valid ARN",
        SUPPORTED.join(", ")
    );
    Error::new(Kind::Invalid, message)
}

impl TryFrom<String> for RuntimeId {
    type Error = Error;

    /// Reads what was once accepted: a function does not go away when its runtime is retired.
    fn try_from(text: String) -> Result<Self> {
        Self::read(&text).ok_or_else(|| unknown(&text))
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
    fn what_is_supported_and_newer_versions_are_accepted() {
        for text in SUPPORTED.into_iter().chain(["python3.99", "nodejs28.x"]) {
            assert_eq!(text.parse::<RuntimeId>().expect("known").to_string(), text);
        }
    }

    #[test]
    fn strangers_are_refused_by_name() {
        for text in ["java21", "python3.", "nodejs.x", "nodejs022.x", "Python3.13", "provided.al3"]
        {
            let error = text.parse::<RuntimeId>().expect_err("unknown");
            let expected = format!("Value {text} at 'runtime' failed to satisfy constraint");
            assert!(error.public().starts_with(&expected), "{}", error.public());
        }
        let error = "java21".parse::<RuntimeId>().expect_err("unknown");
        assert_eq!(
            error.public(),
            "Value java21 at 'runtime' failed to satisfy constraint: Member must satisfy enum \
             value set: [nodejs18.x, nodejs20.x, nodejs22.x, nodejs24.x, nodejs26.x, python3.9, \
             python3.10, python3.11, python3.12, python3.13, python3.14, python3.15, provided.al2, \
             provided.al2023] or be a valid ARN"
        );
    }

    #[test]
    fn retired_runtimes_are_refused_for_their_age() {
        for text in
            RETIRED.into_iter().chain(["python3.8", "python3.2", "nodejs14.x", "nodejs16.x"])
        {
            let error = text.parse::<RuntimeId>().expect_err("retired");
            let expected = format!("The runtime parameter of {text} is no longer supported");
            assert!(error.public().starts_with(&expected), "{}", error.public());
        }
    }

    #[test]
    fn a_stored_function_keeps_a_runtime_that_was_retired() {
        let stored: RuntimeId = serde_json::from_str("\"python3.8\"").expect("readable");
        assert_eq!(stored, RuntimeId::python(3, 8));
        assert!(serde_json::from_str::<RuntimeId>("\"java21\"").is_err());
    }
}
