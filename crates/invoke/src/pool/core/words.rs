//! The words in which the core and its driver speak: ids, bounds, events, commands. Plain data.

use std::sync::Arc;
use std::time::Duration;

use lacewing_model::usage::ColdStart;
use lacewing_model::{AccountId, ByteSize, Function, FunctionKey, VersionKey};

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
    /// What one version of a function may have of these two.
    pub function_share: Share,
    /// What all functions of one account together may have of them.
    pub account_share: Share,
    /// Most Instances that may be starting at a time, while nothing else wants the processors.
    pub max_starting: usize,
    /// Instances that may be started in a second, on average.
    pub start_rate: u32,
    /// How many of them may come at once.
    pub start_burst: u32,
    /// Most callers that may wait.
    pub max_waiting: usize,
    /// Concurrent invocations of one account, waiting ones included, unless `Limited` says more.
    pub account_concurrency: u32,
    /// Functions that are remembered while they have neither Instances nor callers.
    pub max_known: usize,
    /// How long an idle Instance is kept of a function of which nothing is known yet.
    pub keep_alive: Duration,
    /// How long an Instance is idle before it is frozen; never, if absent.
    pub freeze_after: Option<Duration>,
    /// How long an Instance is used.
    pub max_age: Duration,
    /// How long a caller waits before it is refused.
    pub patience: Duration,
    /// A function without room whose caller has waited so long gets the room of another function.
    pub fair_wait: Duration,
}

/// A bound on Instances, and on their memory as measured. One Instance may always run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Most Instances at a time, at least 1.
    pub instances: usize,
    /// Memory up to which another one is started.
    pub memory: ByteSize,
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
    /// The same, but its init phase failed: it is repeated within the first invocation.
    InitFailed {
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
        /// Whose invocation.
        waiter: WaiterId,
        /// What it uses now.
        memory: ByteSize,
        /// Whether it can serve another invocation.
        reusable: bool,
    },
    /// An Instance that was to serve a caller turned out to be dead before it began.
    Dead {
        /// The Instance.
        instance: InstanceId,
        /// The caller.
        waiter: WaiterId,
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
        /// Which version.
        function: VersionKey,
    },
    /// An Instance that was to be frozen cannot be now, for example because what it wrote is not
    /// read yet.
    NotFrozen {
        /// The Instance.
        instance: InstanceId,
    },
    /// So many concurrent invocations belong to all versions of this function together, and it gets
    /// no more. Zero turns it off.
    Reserved {
        /// Which one.
        function: FunctionKey,
        /// How many; none if it shares what no function has reserved.
        concurrency: Option<u32>,
    },
    /// So many Instances of this version are kept ready, whether or not anybody calls it.
    Provisioned {
        /// Which one.
        function: Arc<Function>,
        /// How many.
        instances: u32,
    },
    /// So many concurrent invocations an account may have.
    Limited {
        /// Which one.
        account: AccountId,
        /// How many.
        concurrency: u32,
    },
    /// How much of the time work waits for a processor.
    Pressure {
        /// In percent.
        cpu: u8,
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
        /// Why.
        reason: ColdStart,
    },
    /// End an Instance, then say `Retired`.
    Retire {
        /// The Instance.
        instance: InstanceId,
    },
    /// Stop an idle Instance's processes, or say `NotFrozen`.
    Freeze {
        /// The Instance.
        instance: InstanceId,
    },
    /// Let a frozen Instance's processes run again: it is about to serve or to end.
    Thaw {
        /// The Instance.
        instance: InstanceId,
    },
    /// Send the caller away.
    Refuse {
        /// The caller.
        waiter: WaiterId,
        /// Why.
        reason: Refusal,
        /// When it may be worth while to try again.
        retry_after: Duration,
    },
}

/// Why a caller is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What the account may have of concurrency, or what of it no function has reserved, is spent.
    AccountConcurrency,
    /// The function's reserved concurrency is spent.
    ReservedConcurrency,
    /// Too many callers wait.
    TooManyWaiting,
    /// It waited longer than callers may.
    WaitedTooLong,
    /// The same, because its function has all the Instances or memory that one function may have.
    FunctionShare,
    /// The same, because its account has all that one account may have.
    AccountShare,
    /// Its Instance could not be made.
    StartFailed,
    /// The function was deleted.
    Deleted,
    /// We are stopping.
    Stopping,
}

/// How a promise of ready Instances is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provided {
    /// Instances that were started for it and are ready, those that serve included.
    pub ready: u32,
    /// Why the last start for it failed, if it did.
    pub failed: Option<Failed>,
}

/// Why a start for a promise failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The function's init phase failed.
    Init,
    /// By a fault of ours.
    Start,
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
    /// Callers that they serve.
    pub served: usize,
    /// Being ended.
    pub retiring: usize,
    /// Callers without an Instance.
    pub waiting: usize,
}
