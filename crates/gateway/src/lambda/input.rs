//! Reading request documents: JSON members as Lambda's model has them.
//!
//! Only the shape is checked here and what cannot be said in our types; which values make sense is
//! decided below. What Lacewing does not support goes through `settings`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lacewing_model::function::{Architecture, Environment};
use lacewing_model::{Error, Kind, Result};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::lambda::functions::not_among;
use crate::lambda::logging::LoggingInput;

/// Bytes that are base64 in JSON, decoded without a copy of the text.
#[derive(Clone, Debug)]
pub(crate) struct Blob(pub(crate) Bytes);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Blob, E> {
                match BASE64_STANDARD.decode(text) {
                    Ok(bytes) => Ok(Blob(bytes.into())),
                    Err(error) => Err(E::custom(format_args!("invalid base64: {error}"))),
                }
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// `CreateFunction`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateFunction {
    pub(crate) function_name: Option<String>,
    pub(crate) runtime: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) handler: Option<String>,
    pub(crate) code: Option<FunctionCode>,
    pub(crate) description: Option<String>,
    pub(crate) timeout: Option<i64>,
    pub(crate) memory_size: Option<i64>,
    pub(crate) environment: Option<EnvironmentInput>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) architectures: Option<Vec<String>>,
    pub(crate) ephemeral_storage: Option<EphemeralStorage>,
    pub(crate) logging_config: Option<LoggingInput>,
    pub(crate) snap_start: Option<SnapStartInput>,
    pub(crate) publish: Option<bool>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// `Code` of `CreateFunction`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FunctionCode {
    pub(crate) zip_file: Option<Blob>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// `UpdateFunctionCode`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateFunctionCode {
    pub(crate) zip_file: Option<Blob>,
    pub(crate) architectures: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) dry_run: bool,
    pub(crate) publish: Option<bool>,
    pub(crate) revision_id: Option<String>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// `UpdateFunctionConfiguration`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateFunctionConfiguration {
    pub(crate) runtime: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) handler: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) timeout: Option<i64>,
    pub(crate) memory_size: Option<i64>,
    pub(crate) environment: Option<EnvironmentInput>,
    pub(crate) ephemeral_storage: Option<EphemeralStorage>,
    pub(crate) logging_config: Option<LoggingInput>,
    pub(crate) snap_start: Option<SnapStartInput>,
    pub(crate) revision_id: Option<String>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

/// `SnapStart`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct SnapStartInput {
    pub(crate) apply_on: Option<String>,
}

impl SnapStartInput {
    /// Whether it is wanted; nothing, if nothing was said.
    ///
    /// # Errors
    /// `Constraint` for a word that Lambda does not know.
    pub(crate) fn read(self) -> Result<Option<bool>> {
        match self.apply_on.as_deref() {
            None => Ok(None),
            Some("None") => Ok(Some(false)),
            Some("PublishedVersions") => Ok(Some(true)),
            Some(other) => Err(not_among(other, "snapStart.applyOn", "PublishedVersions, None")),
        }
    }
}

/// `Environment`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct EnvironmentInput {
    #[serde(default)]
    variables: Option<Environment>,
}

impl From<EnvironmentInput> for Environment {
    fn from(input: EnvironmentInput) -> Self {
        input.variables.unwrap_or_default()
    }
}

/// `EphemeralStorage`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct EphemeralStorage {
    pub(crate) size: i64,
}

/// Reads a document.
///
/// # Errors
/// `InvalidContent` with AWS's beginning and the reason; the document itself is not repeated.
pub(crate) fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("Could not parse request body into json: {error}");
        Error::new(Kind::InvalidContent, message)
    })
}

/// What a request violates of the model, to be named all at once.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    count: usize,
    texts: Vec<String>,
}

impl Violations {
    /// The number as an unsigned one; whether it is in its range is checked below.
    pub(crate) fn read(
        &mut self,
        value: Option<i64>,
        path: &str,
        (least, _, most): (u32, u32, u32),
    ) -> Option<u32> {
        let value = value?;
        let number = u32::try_from(value);
        if number.is_err() {
            let (side, bound) = if value < 0 { ("greater", least) } else { ("less", most) };
            self.add(format!(
                "Value '{value}' at '{path}' failed to satisfy constraint: Member must have value \
                 {side} than or equal to {bound}"
            ));
        }
        number.ok()
    }

    /// A member that must be there.
    pub(crate) fn required<T>(&mut self, value: Option<T>, path: &str) -> Option<T> {
        if value.is_none() {
            self.add(format!(
                "Value null at '{path}' failed to satisfy constraint: Member must not be null"
            ));
        }
        value
    }

    /// Takes along what a check below found, which words and counts its violations as we do.
    ///
    /// # Errors
    /// What is no violation, unless there are some: they come first.
    pub(crate) fn hear<T>(&mut self, checked: Result<T>) -> Result<Option<T>> {
        let error = match checked {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let counted = (error.kind() == Kind::Constraint)
            .then(|| error.public().split_once(" detected: "))
            .flatten()
            .and_then(|(head, text)| Some((head.split_once(' ')?.0.parse::<usize>().ok()?, text)));
        let Some((count, text)) = counted else {
            self.check()?;
            return Err(error);
        };
        self.count += count;
        self.texts.push(text.to_owned());
        Ok(None)
    }

    /// Fails if there are any.
    ///
    /// # Errors
    /// `Constraint`, in AWS's words.
    pub(crate) fn check(&self) -> Result<()> {
        let count = self.count;
        if count == 0 {
            return Ok(());
        }
        let errors = if count == 1 { "error" } else { "errors" };
        let message = format!("{count} validation {errors} detected: {}", self.texts.join("; "));
        Err(Error::new(Kind::Constraint, message))
    }

    fn add(&mut self, text: String) {
        self.count += 1;
        self.texts.push(text);
    }
}

/// The only member that must be there.
///
/// # Errors
/// `Constraint`, in AWS's words.
pub(crate) fn required<T>(value: Option<T>, path: &str) -> Result<T> {
    value.ok_or_else(|| {
        let message = format!(
            "1 validation error detected: Value null at '{path}' failed to satisfy constraint: \
             Member must not be null"
        );
        Error::new(Kind::Constraint, message)
    })
}

/// The one architecture that was chosen, if any was.
///
/// # Errors
/// `Constraint` for more than one or an unknown one.
pub(crate) fn architecture(chosen: Option<&[String]>) -> Result<Option<Architecture>> {
    let Some(chosen) = chosen else { return Ok(None) };
    match chosen {
        [one] if one == "x86_64" => Ok(Some(Architecture::X86_64)),
        [one] if one == "arm64" => Ok(Some(Architecture::Arm64)),
        other => {
            let message = format!(
                "1 validation error detected: Value '[{}]' at 'architectures' failed to satisfy \
                 constraint: Member must satisfy constraint: [Member must satisfy enum value set: \
                 [x86_64, arm64], Member must have length less than or equal to 1]",
                other.join(", ")
            );
            Err(Error::new(Kind::Constraint, message))
        }
    }
}

/// The revision that the caller knows, if he said one.
///
/// # Errors
/// `PreconditionFailed` for one that is none of ours.
pub(crate) fn revision(text: Option<&str>) -> Result<Option<Uuid>> {
    text.map(Uuid::parse_str).transpose().map_err(|_| {
        let message = "The Revision Id provided does not match the latest Revision Id. Call the \
                       GetFunction/GetAlias API to retrieve the latest Revision Id";
        Error::new(Kind::PreconditionFailed, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_bad_numbers_are_counted() {
        let mut violations = Violations::default();
        assert_eq!(violations.read(Some(-1), "timeout", (1, 3, 900)), None);
        assert_eq!(violations.read(Some(1 << 40), "memorySize", (128, 128, 10_240)), None);
        assert_eq!(violations.read(Some(512), "x", (1, 1, 1)), Some(512));
        let error = violations.check().expect_err("two did not fit");
        insta::assert_snapshot!(error.public());
    }

    #[test]
    fn a_zip_file_is_decoded_and_the_rest_is_kept() {
        let text = br#"{"ZipFile": "UEsFBg==", "S3Bucket": null, "Layers": []}"#;
        let update: UpdateFunctionCode = document(text).expect("a document");
        assert_eq!(update.zip_file.expect("there").0.as_ref(), b"PK\x05\x06");
        assert_eq!(update.others.len(), 2);
        let error = document::<UpdateFunctionCode>(br#"{"ZipFile": "?"}"#).expect_err("no base64");
        assert_eq!(error.kind(), Kind::InvalidContent);
    }

    #[test]
    fn a_variable_that_is_no_text_is_refused() {
        let text = br#"{"Environment": {"Variables": {"A": 1}}}"#;
        assert!(document::<UpdateFunctionConfiguration>(text).is_err());
    }

    #[test]
    fn one_known_architecture_is_taken() {
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            architecture(Some(&names))
        };
        assert_eq!(chosen(&["arm64"]).expect("known"), Some(Architecture::Arm64));
        assert!(chosen(&["arm64", "x86_64"]).is_err());
        assert!(chosen(&["mips"]).is_err());
        assert!(chosen(&[]).is_err());
    }
}
