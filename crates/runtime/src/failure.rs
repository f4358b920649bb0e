//! How a function's failures that the platform words look to its caller, as pure functions.
//!
//! The texts are those of Lambda: clients and log tools match on them. Source: "Troubleshoot
//! invocation issues", <https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-invocation.html>.

use std::time::Duration;

use lacewing_model::usage::Ending;
use lacewing_model::{ByteSize, FunctionError, RequestId, limits};

use crate::platform_log::{self, Status};
use crate::process::End;

/// Why an init phase or an invocation gave no answer that could be passed on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The runtime reported this; it goes to the caller unchanged.
    Reported(FunctionError),
    /// It took longer than it may.
    Timeout,
    /// The process ended.
    Ended(End),
    /// There is nothing that could be started.
    Entrypoint(String),
    /// The answer is too large.
    TooLarge,
    /// The streamed answer is too large.
    StreamTooLarge,
    /// What the runtime sent is no answer.
    Broken,
    /// It could not be restored from its snapshot, because of this.
    NotRestored(Box<Failure>),
    /// A part of ours failed.
    Platform(lacewing_model::Error),
}

impl Failure {
    /// What the caller receives.
    pub(crate) fn to_error(&self, request_id: RequestId, timeout: Duration) -> FunctionError {
        let worded = |reason: &str| {
            let message = format!("RequestId: {request_id} Error: {reason}");
            FunctionError::of_platform(self.error_type(), &message)
        };
        match self {
            Self::Reported(error) => error.clone(),
            Self::Timeout => worded(&platform_log::task_timed_out(timeout)),
            Self::Ended(End::NotRun(message)) => worded(&not_run(message)),
            Self::Ended(end) => worded(&exit_reason(end)),
            Self::Entrypoint(message) => worded(message),
            Self::TooLarge => self.too_large(limits::SYNC_RESPONSE),
            Self::StreamTooLarge => self.too_large(limits::STREAMED_RESPONSE),
            Self::Broken => worded("Runtime sent an answer that could not be understood"),
            Self::NotRestored(why) => why.to_error(request_id, timeout),
            Self::Platform(_) => worded("The sandbox could not be started"),
        }
    }

    fn too_large(&self, most: ByteSize) -> FunctionError {
        let most = most.as_bytes();
        let message =
            format!("Response payload size exceeded maximum allowed payload size ({most} bytes).");
        FunctionError::of_platform(self.error_type(), &message)
    }

    /// The type in log lines, and in errors that the platform words.
    pub(crate) fn error_type(&self) -> &str {
        match self {
            Self::Reported(error) => &error.error_type,
            Self::Timeout => "Sandbox.Timedout",
            Self::Ended(End::NotRun(_)) | Self::Entrypoint(_) => "Runtime.InvalidEntrypoint",
            Self::Ended(_) => "Runtime.ExitError",
            Self::TooLarge | Self::StreamTooLarge => "Function.ResponseSizeTooLarge",
            Self::Broken => "Runtime.Unknown",
            Self::NotRestored(why) => why.error_type(),
            Self::Platform(_) => "Sandbox.Failure",
        }
    }

    /// What `REPORT` and `INIT_REPORT` say.
    pub(crate) fn status(&self) -> Status<'_> {
        match self {
            Self::Timeout => Status::Timeout,
            Self::Ended(End::OutOfMemory) => Status::Error("Runtime.OutOfMemory"),
            Self::NotRestored(why) => why.status(),
            other => Status::Error(other.error_type()),
        }
    }

    /// What metering says.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Self::Reported(_) => Ending::HandlerError,
            Self::Timeout => Ending::Timeout,
            Self::Ended(End::OutOfMemory) => Ending::OutOfMemory,
            Self::Ended(_) | Self::Entrypoint(_) | Self::Broken => Ending::Exited,
            Self::TooLarge | Self::StreamTooLarge => Ending::ResponseTooLarge,
            Self::NotRestored(why) => why.ending(),
            Self::Platform(_) => Ending::PlatformFault,
        }
    }
}

fn exit_reason(end: &End) -> String {
    match end {
        End::Exited(0) => "Runtime exited without providing a reason".to_owned(),
        End::Exited(code) => format!("Runtime exited with error: exit status {code}"),
        End::Signaled(signal) => format!("Runtime exited with error: signal: {}", name(*signal)),
        End::OutOfMemory => format!("Runtime exited with error: signal: {}", name(9)),
        End::NotRun(message) => not_run(message),
    }
}

/// `run PATH: Reason (os error N)` of the sandbox as Lambda words it.
fn not_run(message: &str) -> String {
    let message = message.split(" (os error").next().unwrap_or(message);
    match message.strip_prefix("run ").and_then(|rest| rest.rsplit_once(": ")) {
        Some((path, reason)) => format!("fork/exec {path}: {}", reason.to_lowercase()),
        None => message.to_owned(),
    }
}

/// A signal's name, as the programming language of Lambda's own supervisor spells it.
fn name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        31 => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6bc28136-ec24-4b1e-9d30-0b1bd5a7bf92";

    fn text(failure: &Failure) -> String {
        let error = failure.to_error(ID.parse().expect("an id"), Duration::from_secs(1));
        String::from_utf8(error.payload.to_vec()).expect("UTF-8")
    }

    #[test]
    fn the_texts_are_those_of_lambda() {
        let cases = [
            (Failure::Timeout, "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
            (
                Failure::Ended(End::Exited(0)),
                "Runtime.ExitError",
                "Runtime exited without providing a reason",
            ),
            (
                Failure::Ended(End::Exited(127)),
                "Runtime.ExitError",
                "Runtime exited with error: exit status 127",
            ),
            (
                Failure::Ended(End::OutOfMemory),
                "Runtime.ExitError",
                "Runtime exited with error: signal: killed",
            ),
            (
                Failure::Ended(End::Signaled(11)),
                "Runtime.ExitError",
                "Runtime exited with error: signal: segmentation fault",
            ),
            (
                Failure::Ended(End::NotRun(
                    "run /var/task/bootstrap: Exec format error (os error 8)".to_owned(),
                )),
                "Runtime.InvalidEntrypoint",
                "fork/exec /var/task/bootstrap: exec format error",
            ),
        ];
        for (failure, error_type, reason) in cases {
            let expected = format!(
                "{{\"errorType\":\"{error_type}\",\"errorMessage\":\"RequestId: {ID} Error: {reason}\"}}"
            );
            assert_eq!(text(&failure), expected);
        }
    }

    #[test]
    fn an_oversize_answer_names_the_limit() {
        assert_eq!(
            text(&Failure::TooLarge),
            "{\"errorType\":\"Function.ResponseSizeTooLarge\",\"errorMessage\":\"Response payload \
             size exceeded maximum allowed payload size (6291556 bytes).\"}"
        );
    }

    #[test]
    fn what_the_runtime_reported_is_passed_on_unchanged() {
        let payload = bytes::Bytes::from_static(b"{\"errorType\":\"X\",\"trace\":[]}");
        let reported = FunctionError { error_type: "X".to_owned(), payload: payload.clone() };
        let failure = Failure::Reported(reported);
        assert_eq!(text(&failure).as_bytes(), payload);
        assert_eq!(failure.status(), Status::Error("X"));
    }

    #[test]
    fn out_of_memory_is_named_in_the_log_only() {
        let failure = Failure::Ended(End::OutOfMemory);
        assert_eq!(failure.status(), Status::Error("Runtime.OutOfMemory"));
        assert_eq!(failure.ending(), Ending::OutOfMemory);
    }
}
