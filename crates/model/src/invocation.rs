//! One call of a function, and how it ended.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::usage::{Timeline, Trigger};
use crate::{FunctionKey, Qualifier, RequestId};

/// One call of a function with a payload.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Names the call; the same over all retries of an asynchronous event.
    pub request_id: RequestId,
    /// The function.
    pub function: FunctionKey,
    /// The qualifier the caller gave, if any: it shows in the ARN that the handler sees.
    pub qualifier: Option<Qualifier>,
    /// The event, as it came: UTF-8 JSON, or empty.
    pub payload: Bytes,
    /// The client context as JSON text, already decoded from base64.
    pub client_context: Option<String>,
    /// The X-Ray trace header.
    pub trace: Option<String>,
    /// Whether the caller wants the last bytes of the log.
    pub wants_log_tail: bool,
    /// What caused the call.
    pub trigger: Trigger,
}

/// How a call ended, from the caller's point of view.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The handler returned this payload.
    Returned(Bytes),
    /// The function failed: its code, its init, or a limit that it hit.
    Failed(FunctionError),
}

/// A failure of the function itself, as its caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// The error type, for example `Runtime.ExitError` or the language's exception name.
    pub error_type: String,
    /// The JSON body that the caller receives, unchanged.
    pub payload: Bytes,
}

/// The two members that every error document of Lambda has.
#[derive(Debug, Serialize, Deserialize)]
struct ErrorDocument<'a> {
    #[serde(rename = "errorType")]
    error_type: &'a str,
    #[serde(rename = "errorMessage")]
    error_message: &'a str,
}

impl FunctionError {
    /// An error that the platform words: `{"errorType": ..., "errorMessage": ...}`.
    pub fn of_platform(error_type: impl Into<String>, message: &str) -> Self {
        let error_type = error_type.into();
        let document = ErrorDocument { error_type: &error_type, error_message: message };
        let payload = serde_json::to_vec(&document).expect("two strings are always valid JSON");
        Self { error_type, payload: payload.into() }
    }
}

/// What a synchronous caller gets back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// How the call ended.
    pub outcome: Outcome,
    /// The version that ran, `$LATEST` or a number.
    pub executed_version: String,
    /// The last bytes of the invocation's log, when they were asked for.
    pub log_tail: Option<Bytes>,
    /// Where its time went.
    pub timeline: Timeline,
}
