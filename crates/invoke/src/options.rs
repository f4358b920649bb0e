//! What an operator may choose about running functions, and the defaults.

use std::path::PathBuf;
use std::time::Duration;

use lacewing_model::{ByteSize, limits};

/// What an operator may choose about running functions.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory that all Instances together may use, as measured.
    pub memory: ByteSize,
    /// Most Instances at a time.
    pub max_instances: usize,
    /// How long an idle Instance is kept.
    pub keep_alive: Duration,
    /// Concurrent invocations of one account, waiting ones included.
    pub account_concurrency: u32,
    /// How long an Instance is used; cut to [`Options::OLDEST`], which its credentials outlive.
    pub max_instance_age: Duration,
    /// Holds the directory `journal`.
    pub data_dir: PathBuf,
    /// Whether another version of the same language may stand in for a missing runtime.
    pub substitute: bool,
}

impl Options {
    /// A function's session lasts twelve hours: an invocation that begins before this age ends
    /// before its credentials do.
    pub const OLDEST: Duration = Duration::from_secs(11 * 60 * 60);

    /// The defaults for a data directory, with `memory` for all Instances together.
    pub fn new(data_dir: PathBuf, memory: ByteSize) -> Self {
        Self {
            memory,
            max_instances: 500,
            keep_alive: Duration::from_secs(10 * 60),
            account_concurrency: limits::ACCOUNT_CONCURRENCY,
            max_instance_age: Duration::from_secs(8 * 60 * 60),
            data_dir,
            substitute: false,
        }
    }
}
