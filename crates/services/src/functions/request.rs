//! What callers ask of functions, and what they are told.

use std::fmt;

use bytes::Bytes;
use lacewing_model::function::{Architecture, Code, Environment};
use lacewing_model::{ByteSize, FunctionConfig, LoggingPatch, Result, RuntimeId, Version};
use lacewing_store::ByteStream;
use uuid::Uuid;

/// A function to be created.
#[derive(Clone, Debug)]
pub struct NewFunction {
    /// What its owner chose.
    pub config: FunctionConfig,
    /// The zip archive.
    pub zip: Bytes,
    /// Whether a version is to be published.
    pub publish: bool,
}

/// New code for a function.
#[derive(Clone, Debug)]
pub struct UpdateCode {
    /// The zip archive.
    pub zip: Bytes,
    /// The architecture, if it was named.
    pub architecture: Option<Architecture>,
    /// The revision that the caller knows.
    pub revision_id: Option<Uuid>,
    /// Checks everything and changes nothing.
    pub dry_run: bool,
    /// Whether a version is to be published.
    pub publish: bool,
}

/// New settings for a function; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ConfigPatch {
    /// The runtime.
    pub runtime: Option<RuntimeId>,
    /// The handler.
    pub handler: Option<String>,
    /// The role's ARN.
    pub role: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Seconds one invocation may take.
    pub timeout_seconds: Option<u32>,
    /// Memory in MB.
    pub memory_mb: Option<u32>,
    /// `/tmp` in MB.
    pub ephemeral_mb: Option<u32>,
    /// The whole environment; an empty one removes it.
    pub environment: Option<Environment>,
    /// How its log is written.
    pub logging: LoggingPatch,
    /// Whether published versions are initialised once, as a snapshot.
    pub snap_start: Option<bool>,
    /// The revision that the caller knows.
    pub revision_id: Option<Uuid>,
}

/// A version to be published.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// The digest that the code must have, in base64.
    pub code_sha256: Option<String>,
    /// What is said of the version; the function's own description if absent.
    pub description: Option<String>,
    /// The revision that the caller knows.
    pub revision_id: Option<Uuid>,
}

/// Where calls of an alias go besides its first version: the other version and its part of the
/// calls. `Some(None)` in a patch sends all to the first.
pub type Routing = Option<(u64, f64)>;

/// An alias to be made.
#[derive(Clone, Debug)]
pub struct NewAlias {
    /// Its name.
    pub name: String,
    /// The version that it stands for.
    pub version: Version,
    /// Another version for a part of the calls.
    pub routing: Routing,
    /// Free text.
    pub description: String,
}

/// New values for an alias; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct AliasPatch {
    /// The version that it stands for.
    pub version: Option<Version>,
    /// Another version for a part of the calls.
    pub routing: Option<Routing>,
    /// Free text.
    pub description: Option<String>,
    /// The revision that the caller knows.
    pub revision_id: Option<Uuid>,
}

/// What an account has stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountUsage {
    /// Sum of the sizes of all packages.
    pub code_size: ByteSize,
    /// Number of functions.
    pub function_count: u64,
}

/// A function's package.
pub struct Package {
    /// Digest and size.
    pub code: Code,
    /// The zip archive.
    pub bytes: ByteStream,
}

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Package").field("code", &self.code).finish_non_exhaustive()
    }
}

// === ConfigPatch ===

impl ConfigPatch {
    /// Writes what was given over a configuration.
    pub(super) fn apply(&self, config: &mut FunctionConfig) -> Result<()> {
        fn set<T: Clone>(field: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        set(&mut config.runtime, self.runtime.as_ref());
        set(&mut config.handler, self.handler.as_ref());
        set(&mut config.role, self.role.as_ref());
        set(&mut config.description, self.description.as_ref());
        set(&mut config.timeout_seconds, self.timeout_seconds.as_ref());
        set(&mut config.memory_mb, self.memory_mb.as_ref());
        set(&mut config.ephemeral_mb, self.ephemeral_mb.as_ref());
        if let Some(environment) = &self.environment {
            config.environment = Some(environment.clone()).filter(|given| !given.0.is_empty());
        }
        set(&mut config.snap_start, self.snap_start.as_ref());
        config.logging = config.logging.patched(&self.logging)?;
        Ok(())
    }
}
