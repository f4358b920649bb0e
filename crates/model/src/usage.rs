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

/// Why an Instance was started, as its first invocation tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColdStart {
    /// The first of its version since the server started, or since the pool forgot the version.
    First,
    /// All others of its version were busy, or being started.
    AllBusy,
    /// The last one had been idle for long enough.
    WasIdle,
    /// The last one had to go because others needed its room.
    MadeRoom,
    /// The last one ran code or configuration that has changed since.
    Changed,
    /// The last one was spent: a timeout, a crash, the end of its memory.
    Spent,
    /// The last one had reached the age up to which Instances are used.
    Aged,
    /// It was started ahead of a call that was expected.
    Expected,
    /// It is one of those that are kept ready.
    Provisioned,
}

impl ColdStart {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::First,
        Self::AllBusy,
        Self::WasIdle,
        Self::MadeRoom,
        Self::Changed,
        Self::Spent,
        Self::Aged,
        Self::Expected,
        Self::Provisioned,
    ];
}

impl fmt::Display for ColdStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::AllBusy => "all_busy",
            Self::WasIdle => "was_idle",
            Self::MadeRoom => "made_room",
            Self::Changed => "changed",
            Self::Spent => "spent",
            Self::Aged => "aged",
            Self::Expected => "expected",
            Self::Provisioned => "provisioned",
        })
    }
}

/// Where the time of one invocation went, in microseconds, from its arrival in the pool to its
/// answer. The parts come one after the other; what went on before it arrived is in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Waiting for a busy Instance, or for the turn of a start.
    pub queued_us: u64,
    /// Being given an Instance; of a cold start also fetching code and credentials.
    pub placed_us: u64,
    /// Building the sandbox, until its program starts.
    pub sandbox_us: u64,
    /// The init phase.
    pub init_us: u64,
    /// Handing over the event, the handler, and taking its answer.
    pub handler_us: u64,
    /// Reading counters and closing the log, and after a timeout ending the processes.
    pub response_us: u64,
    /// Why its Instance was started, if it is the first that this Instance serves.
    pub cold_start: Option<ColdStart>,
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
    /// Where its time went; absent in records from before this was noted.
    #[serde(default)]
    pub timeline: Option<Timeline>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_timelines_is_read() {
        let old = r#"{"at":1,"account":"000000000000","region":"us-east-1","function":"f",
            "version":"$LATEST","request_id":"00000000-0000-4000-8000-000000000000",
            "trigger":"sync","ending":"returned","duration_us":1,"billed_ms":1,"init_us":null,
            "memory_mb":128,"max_memory_mb":20,"bytes_in":2,"bytes_out":5}"#;
        let record: UsageRecord = serde_json::from_str(old).expect("read");
        assert_eq!((record.timeline, record.network_in), (None, 0));
    }

    #[test]
    fn a_cold_start_is_called_the_same_everywhere() {
        for reason in ColdStart::ALL {
            let json = serde_json::to_string(&reason).expect("text");
            assert_eq!(json, format!("\"{reason}\""));
        }
    }
}
