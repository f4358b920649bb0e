//! The configuration as its author wrote it: a TOML file, and the flags of `lacewing serve` over it.
//!
//! Every option is optional here; [`Settings`] is the second, checked form that the node is built
//! from. An option that is not known is refused by name, as one that cannot be honoured is.
//! The doc comments of the fields are the user's documentation.

mod duration;
mod network;
mod runtimes;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use settings::is_root;
pub use settings::{Settings, SettingsError};

/// A configuration file, or the flags that stand in for one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen, `address:port`; port 0 takes a free one. Default `127.0.0.1:9000`.
    pub listen: Option<String>,
    /// Directory that holds everything the server keeps.
    pub data_dir: Option<PathBuf>,
    /// The region the server says it is. Default `us-east-1`.
    pub region: Option<String>,
    /// Account of the root key, twelve digits. Default `000000000000`.
    pub account: Option<String>,
    /// Whether the server refuses to start without full isolation: `required` (the default for
    /// root) or `best-effort` (the default for anybody else).
    pub isolation: Option<Isolation>,
    /// How functions share the processors: `fair` (the default) by weight, `hard` also by a quota
    /// in proportion to memory.
    pub cpu: Option<Cpu>,
    /// Takes any role ARN as the account's role `lambda`. Default `false`.
    pub lenient_roles: Option<bool>,
    /// Runs the nearest version of the same language when a runtime is not there. Default `false`.
    pub substitute_runtimes: Option<bool>,
    /// How far a request's date may be off, for example `5m` (the default).
    #[serde(with = "duration")]
    pub clock_skew: Option<std::time::Duration>,
    /// How long a stopping server waits for running invocations. Default `30s`.
    #[serde(with = "duration")]
    pub drain: Option<std::time::Duration>,
    /// Interpreters by runtime identifier: `python3.13 = "/path/to/python3.13"`.
    #[serde(with = "runtimes")]
    pub runtimes: BTreeMap<String, PathBuf>,
    /// What functions see of the host.
    pub sandbox: Sandbox,
    /// What functions reach of the network.
    pub network: Network,
    /// Bounds of what runs at a time.
    pub limits: Limits,
    /// What is kept of asynchronous events.
    pub events: Events,
    /// What is kept of the functions' logs.
    pub logs: Logs,
    /// What is kept of the record of invocations.
    pub usage: Usage,
}

/// `[sandbox]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// A directory whose `usr` replaces the host's for functions.
    pub root: Option<PathBuf>,
    /// First of the host's user ids that functions run as; root only.
    pub uid_base: Option<u32>,
    /// How many user ids there are; root only.
    pub uid_count: Option<u32>,
    /// The cgroup below which functions get theirs, as an absolute path below each hierarchy's
    /// mount; it must exist. Default: the server's own, a scope from systemd, or the nearest above
    /// that can be divided.
    pub cgroup_parent: Option<PathBuf>,
    /// Where the `/tmp` of functions is: `disk` (the default) where the host can, `memory` always.
    pub tmp: Option<Tmp>,
    /// How the interpreters of Instances begin: `forked` (the default) where they can, `started` always.
    pub interpreters: Option<Interpreters>,
}

/// `[network]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The most that any function gets: `none`, or `egress` for connections that it opens. Default:
    /// `egress` where the host can give it; where `egress` is written the server does not start
    /// without.
    pub mode: Option<NetworkMode>,
    /// The most that the functions of an account get: `'123456789012' = 'none'`.
    pub accounts: BTreeMap<String, NetworkMode>,
    /// Addresses and ports that functions reach although they are private: `10.0.0.0/8`,
    /// `10.0.5.7:5432`, `10.0.0.0/8:8000-8999`, `[fd12::/16]:443`. The most specific rule decides.
    pub allow: Vec<String>,
    /// Addresses and ports that functions do not reach, written in the same way.
    pub deny: Vec<String>,
    /// Resolvers that answer functions, `address` or `address:port`. Default: the host's own.
    pub dns: Vec<String>,
    /// Connections that one Instance may have at a time, 16 or more. Default 1024.
    pub connections: Option<u32>,
    /// Megabits a second in each direction of one Instance. Default: unbounded.
    pub bandwidth_mbit: Option<u32>,
    /// The host's switches for forwarding packets: `enable` (the default) turns them on where they
    /// are off, and off again at the end; `leave` never touches them.
    pub forwarding: Option<Forwarding>,
}

/// What functions reach of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// The platform's own endpoint only.
    None,
    /// Also servers, as far as the rules allow.
    Egress,
}

/// What becomes of the host's switches for forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// They are turned on if they are off.
    Enable,
    /// They stay as they are.
    Leave,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory in MB up to which more Instances are started, by what those that run use. Default:
    /// four fifths of the machine's.
    pub memory_mb: Option<u32>,
    /// MB of disk that the `/tmp` of all functions together may hold; then none of them can grow.
    /// Default: half of what is free when the server starts.
    pub tmp_disk_mb: Option<u32>,
    /// Instances that exist at a time. Default 500.
    pub instances: Option<u32>,
    /// Instances without a function that wait for a cold start; 0 for none. Default 8.
    pub blank_instances: Option<u32>,
    /// Sandboxes without anything in them that wait for any Instance; 0 for none. Default 8.
    pub empty_sandboxes: Option<u32>,
    /// What one function may have of the memory, in MB. Default: nine tenths.
    pub function_memory_mb: Option<u32>,
    /// What one function may have of the Instances. Default: nine tenths.
    pub function_instances: Option<u32>,
    /// What all functions of one account may have of the memory, in MB. Default: all.
    pub account_memory_mb: Option<u32>,
    /// What all functions of one account may have of the Instances. Default: all.
    pub account_instances: Option<u32>,
    /// Invocations of an account that run at a time. Default 1000.
    pub concurrency: Option<u32>,
    /// How long an idle Instance is kept. Default `10m`.
    #[serde(with = "duration")]
    pub keep_alive: Option<std::time::Duration>,
    /// How old an Instance may become before it is replaced, `11h` at most. Default `8h`.
    #[serde(with = "duration")]
    pub instance_age: Option<std::time::Duration>,
}

/// `[events]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Megabytes of events that wait in the queues of one account. Default 1024.
    pub account_mb: Option<u32>,
    /// Events that wait in the queues of one account. Default 1000000.
    pub account_events: Option<u32>,
}

/// `[logs]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Days that the functions' logs are kept. Default 30.
    pub retention_days: Option<u32>,
    /// Megabytes of one function's log; the oldest go first. Default 256.
    pub function_mb: Option<u32>,
    /// Megabytes of the logs of one account. Default 4096.
    pub account_mb: Option<u32>,
}

/// `[usage]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Days that the record of each invocation is kept. Default 400.
    pub retention_days: Option<u32>,
}

/// Whether full isolation is a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// The server does not start without it.
    Required,
    /// The server starts and says what is lacking.
    BestEffort,
}

/// How functions share the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cpu {
    /// By weight, in proportion to memory.
    Fair,
    /// By weight and by a quota, as Lambda does.
    Hard,
}

/// How the interpreters of Instances begin.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Interpreters {
    /// As copies of one that is warm and has seen no function, one for each version and account: they
    /// share its address layout and its seed of string hashes.
    Forked,
    /// Each by itself.
    Started,
}

/// Where the `/tmp` of functions is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tmp {
    /// On the disk of the data directory, beside the memory limit, where the host can do that.
    Disk,
    /// In memory, within the memory limit.
    Memory,
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or holds an option that is not known.
    #[error("the configuration file {} is not valid:\n{reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If the file cannot be read or says something that is not known.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.into(),
            reason: error.to_string().trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
