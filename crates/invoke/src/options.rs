//! What an operator may choose about running functions, and the defaults.

use std::path::PathBuf;
use std::time::Duration;

use lacewing_model::{ByteSize, limits};
use lacewing_store::Load;

use crate::pool::core::Share;

/// Most Instances at a time, unless the operator chooses.
const INSTANCES: usize = 500;

/// What an operator may choose about running functions.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory that all Instances together may use, as measured.
    pub memory: ByteSize,
    /// Most Instances at a time.
    pub max_instances: usize,
    /// What one function may have of these two.
    pub function_share: Share,
    /// What all functions of one account together may have of them.
    pub account_share: Share,
    /// How long an idle Instance is kept of which nothing is known; sets the price of memory, see
    /// `docs/design/011-scheduling.md`.
    pub keep_alive: Duration,
    /// Concurrent invocations of one account, waiting ones included.
    pub account_concurrency: u32,
    /// What the queues of one account's asynchronous events may hold.
    pub events: Load,
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
            max_instances: INSTANCES,
            function_share: Self::share_of_function(INSTANCES, memory),
            account_share: Share { instances: INSTANCES, memory },
            keep_alive: Duration::from_secs(10 * 60),
            account_concurrency: limits::ACCOUNT_CONCURRENCY,
            events: Load { messages: 1_000_000, bytes: 1 << 30 },
            max_instance_age: Duration::from_secs(8 * 60 * 60),
            data_dir,
            substitute: false,
        }
    }

    /// What one function has by default of a node: nine tenths, so that there is room for another's.
    pub fn share_of_function(instances: usize, memory: ByteSize) -> Share {
        let memory = ByteSize::bytes(memory.as_bytes() - memory.as_bytes() / 10);
        Share { instances: (instances - instances / 10).max(1), memory }
    }
}
