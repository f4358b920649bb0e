//! The usage record: what one invocation cost, in one place, for bills, metrics and budgets alike.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AccountId, FunctionName, Region, RequestId, Timestamp};

/// What caused an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A caller who waits for the answer.
    Sync,
    /// A caller who left the event with us.
    Async,
}

/// How an invocation ended, as far as money and metrics care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The handler returned.
    Returned,
    /// The handler, or its init, reported an error.
    HandlerError,
    /// The handler did not return in time.
    Timeout,
    /// The runtime process ended.
    Exited,
    /// The memory limit was hit.
    OutOfMemory,
    /// The answer was larger than allowed.
    ResponseTooLarge,
    /// A part of ours failed.
    PlatformFault,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Returned => "returned",
            Self::HandlerError => "handler_error",
            Self::Timeout => "timeout",
            Self::Exited => "exited",
            Self::OutOfMemory => "out_of_memory",
            Self::ResponseTooLarge => "response_too_large",
            Self::PlatformFault => "platform_fault",
        })
    }
}

/// What one invocation used. One record is written for each, before its answer leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// When the invocation ended.
    pub at: Timestamp,
    /// The account that pays.
    pub account: AccountId,
    /// The region the function lives in.
    pub region: Region,
    /// The function.
    pub function: FunctionName,
    /// The version that ran, `$LATEST` or a number.
    pub version: String,
    /// The invocation's id.
    pub request_id: RequestId,
    /// What caused it.
    pub trigger: Trigger,
    /// How it ended.
    pub ending: Ending,
    /// Time spent in the handler, in microseconds.
    pub duration_us: u64,
    /// Billed time in whole milliseconds, rounded up.
    pub billed_ms: u64,
    /// Time spent in the init phase in microseconds, when this invocation was a cold start.
    pub init_us: Option<u64>,
    /// Configured memory in MB.
    pub memory_mb: u32,
    /// Most memory the Instance has used so far, in MB.
    pub max_memory_mb: u32,
    /// Bytes of the event.
    pub bytes_in: u64,
    /// Bytes of the answer.
    pub bytes_out: u64,
    /// Bytes that the Instance received from the network since its last record.
    #[serde(default)]
    pub network_in: u64,
    /// Bytes that it sent.
    #[serde(default)]
    pub network_out: u64,
}
