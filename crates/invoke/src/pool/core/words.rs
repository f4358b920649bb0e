//! The words in which the core and its driver speak: ids, bounds, events, commands. Plain data.

use std::sync::Arc;
use std::time::Duration;

use lacewing_model::{ByteSize, Function, FunctionKey};

/// Names one Instance; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

/// Names one caller that wants an Instance; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// The bounds within which the core decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Memory of all Instances together, as measured.
    pub memory: ByteSize,
    /// What an Instance is taken to use before any of its function was measured; never more than
    /// its function's limit.
    pub start_reserve: ByteSize,
    /// Most Instances at a time.
    pub max_instances: usize,
    /// Most Instances that may be starting at a time.
    pub max_starting: usize,
    /// Most callers that may wait.
    pub max_waiting: usize,
    /// Concurrent invocations of one account, waiting ones included.
    pub account_concurrency: u32,
    /// How long an idle Instance is kept.
    pub keep_alive: Duration,
    /// How long an Instance is used.
    pub max_age: Duration,
    /// How long a caller waits before it is refused.
    pub patience: Duration,
    /// A function without room whose caller has waited so long gets the room of another function.
    pub fair_wait: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A caller wants an Instance of a function.
    Arrive {
        /// The caller.
        waiter: WaiterId,
        /// The function as the caller saw it.
        function: Arc<Function>,
    },
    /// A caller that was not served yet went away.
    Leave {
        /// The caller.
        waiter: WaiterId,
    },
    /// An Instance is ready.
    Started {
        /// The Instance.
        instance: InstanceId,
        /// What it uses.
        memory: ByteSize,
    },
    /// An Instance could not be made, by a fault of ours.
    StartFailed {
        /// The Instance.
        instance: InstanceId,
    },
    /// An invocation is over, or was given up.
    Done {
        /// The Instance.
        instance: InstanceId,
        /// What it uses now.
        memory: ByteSize,
        /// Whether it can serve another invocation.
        reusable: bool,
    },
    /// An Instance that was to serve a caller turned out to be dead before it began.
    Dead {
        /// The Instance.
        instance: InstanceId,
    },
    /// An idle Instance was looked at.
    Measured {
        /// The Instance.
        instance: InstanceId,
        /// What it uses now.
        memory: ByteSize,
        /// Whether it can serve another invocation.
        reusable: bool,
    },
    /// An Instance that was told to end has ended.
    Retired {
        /// The Instance.
        instance: InstanceId,
    },
    /// A function has changed.
    Changed {
        /// What it is now.
        function: Arc<Function>,
    },
    /// A function was deleted.
    Deleted {
        /// Which one.
        function: FunctionKey,
    },
    /// Time has passed.
    Tick,
    /// No more callers are taken; whoever waits is still served.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give the Instance to the caller.
    Serve {
        /// The caller.
        waiter: WaiterId,
        /// The Instance.
        instance: InstanceId,
    },
    /// Make an Instance.
    Start {
        /// Its id from now on.
        instance: InstanceId,
        /// What it is to run.
        function: Arc<Function>,
    },
    /// End an Instance, then say `Retired`.
    Retire {
        /// The Instance.
        instance: InstanceId,
    },
    /// Send the caller away.
    Refuse {
        /// The caller.
        waiter: WaiterId,
        /// Why.
        reason: Refusal,
    },
}

/// Why a caller is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The account's concurrency is spent.
    AccountConcurrency,
    /// Too many callers wait.
    TooManyWaiting,
    /// It waited longer than callers may.
    WaitedTooLong,
    /// Its Instance could not be made.
    StartFailed,
    /// The function was deleted.
    Deleted,
    /// We are stopping.
    Stopping,
}

/// How many Instances are in which state, and how many callers wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Being started.
    pub starting: usize,
    /// Waiting for work.
    pub idle: usize,
    /// Serving.
    pub busy: usize,
    /// Being ended.
    pub retiring: usize,
    /// Callers without an Instance.
    pub waiting: usize,
}
