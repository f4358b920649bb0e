//! A function as it is known to everything that serves, runs or describes it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Digest, Error, Family, FunctionKey, Kind, Logging, Network, Result, RuntimeId, Timestamp,
    Version, VersionKey, limits,
};

/// One version of a function: what runs, how, and in what state it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Which function.
    pub key: FunctionKey,
    /// Which version of it.
    pub version: Version,
    /// Made when the function is created, and the same for all its versions: tells it from an
    /// earlier or a later function of the same name.
    pub lineage: Uuid,
    /// What its owner chose.
    pub config: FunctionConfig,
    /// The code.
    pub code: Code,
    /// Whether it can be invoked.
    pub state: State,
    /// How the last change went.
    pub last_update: UpdateStatus,
    /// What it goes back to if the change that is under way fails.
    pub before: Option<Box<Before>>,
    /// Why the state is what it is, for its owner.
    pub state_reason: Option<StateReason>,
    /// Changes with every change; the guard for optimistic locking.
    pub revision_id: Uuid,
    /// When code or configuration last changed.
    pub last_modified: Timestamp,
    /// Grows with every change of code or configuration: an Instance of a lower generation is
    /// never used again.
    pub generation: u64,
}

impl Function {
    /// Which version of which function this is.
    pub fn version_key(&self) -> VersionKey {
        VersionKey { function: self.key.clone(), version: self.version }
    }

    /// Whether its Instances are restored from a snapshot.
    pub fn is_snap_started(&self) -> bool {
        match self.version {
            Version::Published(_) => self.config.snap_start,
            // It was checked when it was set.
            Version::Latest => self.config.snap_starts_latest().unwrap_or(false),
        }
    }

    /// All code that it may run: its own, and what it would go back to.
    pub fn codes(&self) -> impl Iterator<Item = Code> {
        [self.code].into_iter().chain(self.before.iter().map(|before| before.code))
    }

    /// Whether a change of it is still being carried out.
    pub fn is_unsettled(&self) -> bool {
        self.state == State::Pending || self.last_update == UpdateStatus::InProgress
    }
}

/// What a change replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The configuration.
    pub config: FunctionConfig,
    /// The code.
    pub code: Code,
}

/// What a function's owner chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionConfig {
    /// The runtime.
    pub runtime: RuntimeId,
    /// `module.function`, or anything for a custom runtime.
    pub handler: String,
    /// ARN of the role the function runs as.
    pub role: String,
    /// Free text.
    pub description: String,
    /// Seconds one invocation may take.
    pub timeout_seconds: u32,
    /// Memory in MB.
    pub memory_mb: u32,
    /// Size of `/tmp` in MB.
    pub ephemeral_mb: u32,
    /// The machine architecture, `x86_64` or `arm64`.
    pub architecture: Architecture,
    /// How its log is written; a text log in records of before there was a choice.
    #[serde(default)]
    pub logging: Logging,
    /// Whether published versions are initialised once, as a snapshot; not in records of before there
    /// was a choice.
    #[serde(default)]
    pub snap_start: bool,
    /// The function's environment variables, if it was given any. Never written in the clear.
    #[serde(skip)]
    pub environment: Option<Environment>,
    /// Tags of the function.
    pub tags: BTreeMap<String, String>,
}

impl FunctionConfig {
    /// What Lambda documents for a function of which no more was said, but for the machine
    /// architecture: there is only this host's.
    pub fn new(runtime: RuntimeId, handler: impl Into<String>, role: impl Into<String>) -> Self {
        Self {
            runtime,
            handler: handler.into(),
            role: role.into(),
            description: String::new(),
            timeout_seconds: limits::TIMEOUT_SECONDS.1,
            memory_mb: limits::MEMORY_MB.1,
            ephemeral_mb: limits::EPHEMERAL_MB.1,
            architecture: Architecture::HOST,
            logging: Logging::default(),
            snap_start: false,
            environment: None,
            tags: BTreeMap::new(),
        }
    }
}

impl FunctionConfig {
    /// The environment variable by which an owner has `$LATEST`, too, initialised once, as a snapshot:
    /// Lambda's own setting is for published versions only.
    pub const SNAP_START: &str = "LACEWING_SNAP_START";
    /// The environment variable by which an owner has each Instance serve several invocations at a time.
    /// On Lambda this belongs to a capacity provider, which we have none of.
    pub const CONCURRENCY_PER_INSTANCE: &str = "LACEWING_CONCURRENCY_PER_INSTANCE";

    /// What its owner wants it to reach: everything, unless `LACEWING_NETWORK` says otherwise.
    ///
    /// # Errors
    /// If the variable says what nobody knows.
    pub fn network(&self) -> Result<Network> {
        self.choice(Network::VARIABLE).map_or(Ok(Network::default()), str::parse)
    }

    /// Whether `$LATEST`, too, is initialised once, as a snapshot: not unless `LACEWING_SNAP_START`
    /// says so.
    ///
    /// # Errors
    /// If the variable says what nobody knows.
    pub fn snap_starts_latest(&self) -> Result<bool> {
        match self.choice(Self::SNAP_START) {
            None | Some("none") => Ok(false),
            Some("latest") => Ok(true),
            Some(other) => {
                let variable = Self::SNAP_START;
                let message = format!("{variable} must be none or latest, not '{other}'.");
                Err(Error::new(Kind::Invalid, message))
            }
        }
    }

    /// How many invocations one Instance serves at a time: more than one only if its owner says so and
    /// its runtime can.
    pub fn seats(&self) -> usize {
        match self.runtime.family {
            // It was checked when it was set.
            Family::Provided | Family::Node => {
                self.concurrency_per_instance().unwrap_or(1) as usize
            }
            Family::Python => 1,
        }
    }

    /// How many invocations one Instance is to serve at a time: one, unless
    /// `LACEWING_CONCURRENCY_PER_INSTANCE` says more.
    ///
    /// # Errors
    /// If the variable says what no number of invocations can be.
    pub fn concurrency_per_instance(&self) -> Result<u32> {
        let Some(text) = self.choice(Self::CONCURRENCY_PER_INSTANCE) else { return Ok(1) };
        let (least, most) = limits::CONCURRENCY_PER_INSTANCE;
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| {
            let variable = Self::CONCURRENCY_PER_INSTANCE;
            let message =
                format!("{variable} must be a number from {least} to {most}, not '{text}'.");
            Error::new(Kind::Invalid, message)
        })
    }

    /// What a variable that speaks to the platform says.
    fn choice(&self, variable: &str) -> Option<&str> {
        self.environment.as_ref()?.0.get(variable).map(String::as_str)
    }
}

/// A machine architecture in Lambda's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// The architecture this program was compiled for.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 };
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        })
    }
}

/// Environment variables. Its `Debug` shows the names only: values are often secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The code of a function: a zip archive among the blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Digest of the archive; with the account it is the blob's address.
    pub digest: Digest,
    /// Size of the archive in bytes.
    pub size: u64,
}

/// Whether a function can be invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It is being created.
    Pending,
    /// It can be invoked.
    Active,
    /// It could not be created.
    Failed,
}

/// How the last change of a function went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    /// The change is under way.
    InProgress,
    /// The change is done.
    Successful,
    /// The change failed.
    Failed,
}

/// Why a function is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    /// For people.
    pub text: String,
    /// For programs, for example `Creating`.
    pub code: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_configuration_has_the_documented_defaults() {
        let config = FunctionConfig::new(RuntimeId::python(3, 13), "app.handler", "role");
        let sizes = (config.timeout_seconds, config.memory_mb, config.ephemeral_mb);
        assert_eq!(sizes, (3, 128, 512));
        assert_eq!(config.architecture, Architecture::X86_64);
    }

    #[test]
    fn the_latest_is_a_snapshot_only_if_that_is_said_in_a_word_that_is_known() {
        let mut config = FunctionConfig::new(RuntimeId::python(3, 13), "app.handler", "role");
        assert!(!config.snap_starts_latest().unwrap());
        for (text, wanted) in [("latest", Some(true)), ("none", Some(false)), ("yes", None)] {
            let variables = [(FunctionConfig::SNAP_START.to_owned(), text.to_owned())];
            config.environment = Some(Environment(BTreeMap::from(variables)));
            assert_eq!(config.snap_starts_latest().ok(), wanted, "{text}");
        }
    }

    #[test]
    fn an_instance_serves_one_invocation_at_a_time_unless_a_number_says_otherwise() {
        let mut config = FunctionConfig::new("provided.al2023".parse().unwrap(), "any", "role");
        assert_eq!(config.seats(), 1);
        let cases = [("1", Some(1)), ("64", Some(64)), ("0", None), ("65", None), ("many", None)];
        for (text, wanted) in cases {
            let variables =
                [(FunctionConfig::CONCURRENCY_PER_INSTANCE.to_owned(), text.to_owned())];
            config.environment = Some(Environment(BTreeMap::from(variables)));
            assert_eq!(config.concurrency_per_instance().ok(), wanted, "{text}");
            assert_eq!(config.seats(), usize::try_from(wanted.unwrap_or(1)).unwrap(), "{text}");
            let python = FunctionConfig { runtime: RuntimeId::python(3, 13), ..config.clone() };
            assert_eq!(python.seats(), 1);
        }
    }

    #[test]
    fn a_record_of_before_there_was_a_choice_has_a_text_log() {
        let config = FunctionConfig::new(RuntimeId::python(3, 13), "app.handler", "role");
        let mut stored = serde_json::to_value(&config).expect("written");
        stored.as_object_mut().expect("an object").remove("logging").expect("it was there");
        assert_eq!(serde_json::from_value::<FunctionConfig>(stored).expect("read"), config);
    }
}
