//! The exact version of what runs a function, and the ARN by which the API and the log name it.

use std::fmt;

use crate::{Family, Region, RuntimeId};

/// A runtime identifier and the version of the interpreter that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    runtime: RuntimeId,
    patch: String,
}

impl RuntimeVersion {
    /// The version of an interpreter for `runtime`, such as `3.11.7`; of a function's own
    /// `bootstrap` nothing is known.
    pub fn new(runtime: RuntimeId, interpreter: &str) -> Self {
        let part = |index: usize| interpreter.split('.').nth(index).unwrap_or("0").to_owned();
        let patch = match runtime.family {
            Family::Python => part(2),
            Family::Node => part(1),
            Family::Provided => "1".to_owned(),
        };
        Self { runtime, patch }
    }

    /// `arn:aws:lambda:REGION::runtime:HASH`.
    pub fn arn(&self, region: &Region) -> String {
        format!("arn:aws:lambda:{region}::runtime:{}", hash(&self.to_string()))
    }
}

/// `3.11.7` of `python3.11` is `python:3.11.v7`; `20.20.1` of `nodejs20.x` is `nodejs:20.v20`.
impl fmt::Display for RuntimeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.runtime.version;
        let patch = &self.patch;
        match self.runtime.family {
            Family::Python => write!(f, "python:{major}.{minor}.v{patch}"),
            Family::Node => write!(f, "nodejs:{major}.v{patch}"),
            Family::Provided => write!(f, "provided:al{major}.v{patch}"),
        }
    }
}

/// 64 hexadecimal digits that are equal for equal names: an identifier, no proof of anything.
fn hash(name: &str) -> String {
    let fnv = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    // The steps and the finaliser of the generator SplitMix64.
    let word = |step: u64| {
        let mut word = start.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    (1..=4).map(|step| format!("{:016x}", word(step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_as_lambda_names_them() {
        let name = |runtime: &str, interpreter: &str| {
            RuntimeVersion::new(runtime.parse().expect("known"), interpreter).to_string()
        };
        assert_eq!(name("python3.11", "3.11.7"), "python:3.11.v7");
        assert_eq!(name("nodejs20.x", "20.20.1"), "nodejs:20.v20");
        assert_eq!(name("provided.al2023", ""), "provided:al2023.v1");
    }

    #[test]
    fn an_arn_tells_versions_apart() {
        let region = Region::new("eu-west-1").expect("valid");
        let arn = |interpreter: &str| {
            RuntimeVersion::new(RuntimeId::python(3, 11), interpreter).arn(&region)
        };
        let digits = arn("3.11.7");
        let digits = digits.strip_prefix("arn:aws:lambda:eu-west-1::runtime:").expect("an ARN");
        assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(arn("3.11.7"), arn("3.11.8"));
    }
}
