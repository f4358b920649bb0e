//! The checked configuration: what the node is built from. A value that exists makes sense.
//!
//! Nothing here touches the network or the data directory; of the host it asks only who runs the
//! process and how much memory there is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lacewing_invoke::pool::core::Share;
use lacewing_model::{AccountId, ByteSize, Region, RuntimeId, limits};

use super::network::{self, NetworkSettings};
use super::{Config, Cpu, Interpreters, Isolation, Limits, Sandbox, Tmp};

/// First user id and number of those that a node may take ranges from: above what systemd and
/// container engines hand out, below the ids that are negative as a signed number
/// (<https://systemd.io/UIDS-GIDS/>).
const UID_SPACE: (u32, u32) = (0x7000_0000, 0x0fff_0000);
/// User ids of one node.
const UID_COUNT: u32 = 0x1_0000;

const LISTEN: &str = "127.0.0.1:9000";
const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
const BLANKS: u32 = 8;
const EMPTY: u32 = 8;
/// Most of either; more of them only fill the memory.
const MOST_AHEAD: u32 = 64;
const DRAIN: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// Everything a node needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Directory that holds everything the node keeps.
    pub data_dir: PathBuf,
    /// Whether full isolation is a condition.
    pub isolation: Isolation,
    /// How functions share the processors.
    pub cpu: Cpu,
    /// How long stopping waits for running invocations.
    pub drain: Duration,
    /// Interpreters that the configuration names.
    pub runtimes: BTreeMap<RuntimeId, PathBuf>,
    /// Tree that replaces the host's for functions.
    pub sandbox_root: Option<PathBuf>,
    /// Where the `/tmp` of functions is.
    pub tmp: Tmp,
    /// Whether interpreters are forked where they can be.
    pub forks: bool,
    /// What all `/tmp` together may hold on disk.
    pub tmp_disk: ByteSize,
    /// Instances without a function that are kept.
    pub blanks: usize,
    /// Sandboxes without anything in them that are kept.
    pub empty: usize,
    /// The cgroup below which functions get theirs.
    pub cgroup_parent: Option<PathBuf>,
    /// First user id and number of user ids of Instances, if they were chosen.
    pub uids: Option<(u32, u32)>,
    /// How functions get out.
    pub network: NetworkSettings,
    /// What the services are told.
    pub services: lacewing_services::Options,
    /// What the invoker is told.
    pub invoke: lacewing_invoke::Options,
    /// What the gateway is told.
    pub gateway: lacewing_gateway::Options,
}

/// A value that makes no sense, named by its place in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {reason}")]
pub struct SettingsError {
    /// The option, as the configuration file spells it.
    pub option: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

impl Settings {
    /// Checks `config` and fills in the defaults.
    ///
    /// # Errors
    /// If a value makes no sense, or no data directory can be found.
    pub fn check(config: &Config) -> Result<Self, SettingsError> {
        let data_dir = data_dir(config)?;
        let region = named("region", Region::new(config.region.as_deref().unwrap_or(REGION)))?;
        let account = config.account.as_deref().unwrap_or(ACCOUNT);
        let account = named("account", AccountId::new(account))?;
        let default = if is_root() { Isolation::Required } else { Isolation::BestEffort };
        let invoke = invoke(config, &data_dir)?;
        let network = network::check(&config.network)?;
        let mut gateway = lacewing_gateway::Options::new(region.clone(), account.clone());
        gateway.account_concurrency = invoke.account_concurrency;
        if let Some(skew) = config.clock_skew {
            gateway.clock_skew = skew;
        }
        Ok(Self {
            listen: listen(config.listen.as_deref().unwrap_or(LISTEN))?,
            isolation: config.isolation.unwrap_or(default),
            cpu: config.cpu.unwrap_or(Cpu::Fair),
            drain: config.drain.unwrap_or(DRAIN),
            runtimes: runtimes(config)?,
            sandbox_root: sandbox_root(&config.sandbox)?,
            tmp: config.sandbox.tmp.unwrap_or(Tmp::Disk),
            forks: config.sandbox.interpreters != Some(Interpreters::Started),
            tmp_disk: tmp_disk(&config.limits, &data_dir)?,
            blanks: blanks(&config.limits)?,
            empty: empty(&config.limits)?,
            cgroup_parent: cgroup_parent(&config.sandbox)?,
            uids: uids(&config.sandbox)?,
            services: lacewing_services::Options {
                account_concurrency: invoke.account_concurrency,
                ..services(config, region, account, &data_dir, &network)?
            },
            network,
            invoke,
            gateway,
            data_dir,
        })
    }

    /// First user id and number of user ids of Instances: the chosen ones, else a range that
    /// depends on the data directory's `owner`, so that two nodes of a host rarely share one.
    pub fn uid_range(&self, owner: &str) -> (u32, u32) {
        let (base, space) = UID_SPACE;
        let slots = space / UID_COUNT;
        let slot = owner
            .bytes()
            .fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
            % slots;
        self.uids.unwrap_or((base + slot * UID_COUNT, UID_COUNT))
    }
}

/// Whether the process has root's rights on this host.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(super) fn refuse(option: &'static str, reason: impl Into<String>) -> SettingsError {
    SettingsError { option, reason: reason.into() }
}

pub(super) fn named<T>(
    option: &'static str,
    checked: lacewing_model::Result<T>,
) -> Result<T, SettingsError> {
    checked.map_err(|error| refuse(option, error.public()))
}

fn positive(option: &'static str, value: u32) -> Result<u32, SettingsError> {
    if value == 0 { Err(refuse(option, "must be at least 1")) } else { Ok(value) }
}

fn listen(text: &str) -> Result<SocketAddr, SettingsError> {
    text.parse().map_err(|_| {
        refuse("listen", format!("'{text}' is no address and port such as 127.0.0.1:9000"))
    })
}

fn data_dir(config: &Config) -> Result<PathBuf, SettingsError> {
    let none = || refuse("data_dir", "none is given, and there is no home directory for a default");
    let dir = config.data_dir.clone().or_else(crate::data_dir::default).ok_or_else(none)?;
    std::path::absolute(&dir)
        .map_err(|error| refuse("data_dir", format!("{}: {error}", dir.display())))
}

fn services(
    config: &Config,
    region: Region,
    account: AccountId,
    data_dir: &Path,
    network: &NetworkSettings,
) -> Result<lacewing_services::Options, SettingsError> {
    let mut options = lacewing_services::Options::new(region, account, data_dir.to_path_buf());
    options.network = network.bounds.clone();
    options.lenient_roles = config.lenient_roles.unwrap_or(false);
    if let Some(days) = config.logs.retention_days {
        options.log_retention = DAY * positive("logs.retention_days", days)?;
    }
    if let Some(mb) = config.logs.function_mb {
        options.log_bounds.function = megabytes("logs.function_mb", mb)?;
    }
    if let Some(mb) = config.logs.account_mb {
        options.log_bounds.account = megabytes("logs.account_mb", mb)?;
    }
    if let Some(days) = config.usage.retention_days {
        options.usage_retention = DAY * positive("usage.retention_days", days)?;
    }
    Ok(options)
}

fn invoke(config: &Config, data_dir: &Path) -> Result<lacewing_invoke::Options, SettingsError> {
    let limits = &config.limits;
    let mut options = lacewing_invoke::Options::new(data_dir.to_path_buf(), memory(limits)?);
    options.substitute = config.substitute_runtimes.unwrap_or(false);
    if let Some(instances) = limits.instances {
        options.max_instances = positive("limits.instances", instances)? as usize;
    }
    shares(limits, &mut options)?;
    if let Some(mb) = config.events.account_mb {
        options.events.bytes = megabytes("events.account_mb", mb)?;
    }
    if let Some(events) = config.events.account_events {
        options.events.messages = positive("events.account_events", events)?.into();
    }
    if let Some(concurrency) = limits.concurrency {
        options.account_concurrency = positive("limits.concurrency", concurrency)?;
    }
    if let Some(keep_alive) = limits.keep_alive {
        options.keep_alive = keep_alive;
    }
    if let Some(age) = limits.instance_age {
        if age > lacewing_invoke::Options::OLDEST {
            return Err(refuse("limits.instance_age", "must be at most 11h"));
        }
        options.max_instance_age = age;
    }
    Ok(options)
}

/// What one function and one account have of the node's Instances and memory.
fn shares(limits: &Limits, options: &mut lacewing_invoke::Options) -> Result<(), SettingsError> {
    let (instances, memory) = (options.max_instances, options.memory);
    options.function_share = lacewing_invoke::Options::share_of_function(instances, memory);
    options.account_share = Share { instances, memory };
    if let Some(mb) = limits.function_memory_mb {
        options.function_share.memory = enough_memory("limits.function_memory_mb", mb)?;
    }
    if let Some(count) = limits.function_instances {
        options.function_share.instances = positive("limits.function_instances", count)? as usize;
    }
    if let Some(mb) = limits.account_memory_mb {
        options.account_share.memory = enough_memory("limits.account_memory_mb", mb)?;
    }
    if let Some(count) = limits.account_instances {
        options.account_share.instances = positive("limits.account_instances", count)? as usize;
    }
    Ok(())
}

fn runtimes(config: &Config) -> Result<BTreeMap<RuntimeId, PathBuf>, SettingsError> {
    let mut runtimes = BTreeMap::new();
    for (name, path) in &config.runtimes {
        let runtime: RuntimeId = named("runtimes", name.parse())?;
        if !path.is_absolute() || !path.is_file() {
            let path = path.display();
            return Err(refuse(
                "runtimes",
                format!("{name} = '{path}' is no absolute path of a file"),
            ));
        }
        runtimes.insert(runtime, path.clone());
    }
    Ok(runtimes)
}

fn sandbox_root(sandbox: &Sandbox) -> Result<Option<PathBuf>, SettingsError> {
    match &sandbox.root {
        Some(root) if !(root.is_absolute() && root.join("usr").is_dir()) => {
            let root = root.display();
            Err(refuse("sandbox.root", format!("'{root}' is no absolute path of a tree with usr")))
        }
        root => Ok(root.clone()),
    }
}

fn cgroup_parent(sandbox: &Sandbox) -> Result<Option<PathBuf>, SettingsError> {
    match &sandbox.cgroup_parent {
        Some(parent) if !parent.is_absolute() => {
            let parent = parent.display();
            Err(refuse("sandbox.cgroup_parent", format!("'{parent}' does not begin with /")))
        }
        parent => Ok(parent.clone()),
    }
}

fn uids(sandbox: &Sandbox) -> Result<Option<(u32, u32)>, SettingsError> {
    match (sandbox.uid_base, sandbox.uid_count) {
        (None, None) => Ok(None),
        (Some(base), count) => {
            let count = positive("sandbox.uid_count", count.unwrap_or(UID_COUNT))?;
            if base < 1_000 || base.checked_add(count).is_none() {
                return Err(refuse("sandbox.uid_base", "must leave the host's own users alone"));
            }
            Ok(Some((base, count)))
        }
        (None, Some(_)) => Err(refuse("sandbox.uid_count", "needs sandbox.uid_base")),
    }
}

fn memory(limits: &Limits) -> Result<ByteSize, SettingsError> {
    limits
        .memory_mb
        .map_or_else(|| Ok(machine_memory()), |mb| enough_memory("limits.memory_mb", mb))
}

/// Memory for at least the smallest function.
fn enough_memory(option: &'static str, mb: u32) -> Result<ByteSize, SettingsError> {
    let least = limits::MEMORY_MB.0;
    if mb < least {
        return Err(refuse(option, format!("must be at least {least}")));
    }
    Ok(ByteSize::mebibytes(mb))
}

fn megabytes(option: &'static str, mb: u32) -> Result<u64, SettingsError> {
    Ok(ByteSize::mebibytes(positive(option, mb)?).as_bytes())
}

fn blanks(limits: &Limits) -> Result<usize, SettingsError> {
    ahead("limits.blank_instances", limits.blank_instances.unwrap_or(BLANKS))
}

fn empty(limits: &Limits) -> Result<usize, SettingsError> {
    ahead("limits.empty_sandboxes", limits.empty_sandboxes.unwrap_or(EMPTY))
}

fn ahead(option: &'static str, count: u32) -> Result<usize, SettingsError> {
    if count > MOST_AHEAD {
        return Err(refuse(option, format!("must be at most {MOST_AHEAD}")));
    }
    Ok(count as usize)
}

fn tmp_disk(limits: &Limits, data_dir: &Path) -> Result<ByteSize, SettingsError> {
    match limits.tmp_disk_mb {
        Some(mb) => positive("limits.tmp_disk_mb", mb).map(ByteSize::mebibytes),
        None => Ok(free_disk(data_dir)),
    }
}

/// Half of what is free where the data directory is or will be.
fn free_disk(data_dir: &Path) -> ByteSize {
    let disk = data_dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok());
    disk.map_or(ByteSize::bytes(0), |disk| ByteSize::bytes(disk.f_bavail * disk.f_frsize / 2))
}

/// Four fifths of the machine's memory.
fn machine_memory() -> ByteSize {
    let total = rustix::system::sysinfo();
    let unit = u64::from(total.mem_unit.max(1));
    let bytes = total.totalram.saturating_mul(unit);
    ByteSize::bytes(bytes / 5 * 4)
}
