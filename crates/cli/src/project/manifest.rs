//! `lacewing.toml`: what the author of a function says about it, beside its code.
//!
//! A key that is not known is refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lacewing_model::Network;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Name of the file.
pub(crate) const FILE: &str = "lacewing.toml";

/// The settings; each wins over what is found by looking, and yields to a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Manifest {
    /// Name of the function.
    pub(crate) name: Option<String>,
    /// Runtime identifier.
    pub(crate) runtime: Option<String>,
    /// `module.function`.
    pub(crate) handler: Option<String>,
    /// ARN of the role, or its name.
    pub(crate) role: Option<String>,
    /// Free text.
    pub(crate) description: Option<String>,
    /// Memory in MB.
    pub(crate) memory: Option<u32>,
    /// Seconds one invocation may take.
    pub(crate) timeout: Option<u32>,
    /// Size of `/tmp` in MB.
    pub(crate) ephemeral_storage: Option<u32>,
    /// What it may reach, `none` or `egress`.
    pub(crate) network: Option<Network>,
    /// What beside published versions is initialised once, `none` or `latest`.
    pub(crate) snap_start: Option<String>,
    /// How many invocations an Instance serves at a time.
    pub(crate) concurrency_per_instance: Option<u32>,
    /// Environment variables.
    pub(crate) environment: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads the file in `dir`; without one nothing is set.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let shown = path.display();
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                Error::user(format!("{shown} is not valid:\n{}", error.to_string().trim_end()))
                    .hint("`lacewing deploy --help` explains what it may say; flags win over it")
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::user(format!("cannot read {shown}")).caused_by(&error)),
        }
    }
}
