//! What the platform itself writes into a function's log, as pure functions: events, and the line
//! of text or the JSON record that each becomes.
//!
//! Source of the text's shapes: "Understanding the Lambda execution environment lifecycle",
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>, and "Lambda
//! logs", <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-view.html>.
//! Fields are separated by tabs; nothing ends with a line feed here.

use std::fmt::Write;
use std::time::Duration;

use lacewing_model::{
    Function, LogFormat, Region, RequestId, RuntimeId, RuntimeVersion, Timestamp, Version,
};

mod json;

/// Something that the platform has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A runtime starts.
    InitStart(InitStart<'a>),
    /// Its init phase is over.
    InitDone { initialization: Initialization, phase: Phase, status: Status<'a> },
    /// How long that took.
    InitReport { initialization: Initialization, took: Duration, phase: Phase, status: Status<'a> },
    /// A runtime is restored from a snapshot.
    RestoreStart(InitStart<'a>),
    /// That, with its hooks, is over.
    RestoreReport { took: Duration, status: Status<'a> },
    /// Why a version with SnapStart is started as any other.
    NoSnapshot { why: &'a str },
    /// An invocation begins.
    Start { request_id: RequestId, version: Version },
    /// It took too long.
    TimedOut { request_id: RequestId, timeout: Duration },
    /// It is over, with an answer of so many bytes.
    End { request_id: RequestId, duration: Duration, produced: u64, status: Status<'a> },
    /// What it used.
    Report(Report<'a>),
    /// So many records of this log are lost.
    Lost { records: u64 },
}

/// Which runtime starts, and for which it stands in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitStart<'a> {
    pub(crate) region: &'a Region,
    pub(crate) function: &'a Function,
    pub(crate) serving: RuntimeId,
    pub(crate) initialization: Initialization,
    pub(crate) version: &'a str,
}

/// Why an Instance is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initialization {
    /// It is wanted.
    OnDemand,
    /// It is one of those that are kept ready.
    Provisioned,
    /// A snapshot is made, or used.
    SnapStart,
}

/// In which phase an init ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The init phase proper.
    Init,
    /// Again, inside an invocation, after the init phase had failed.
    Invoke,
}

/// How something ended, as far as its log line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status<'a> {
    /// Well, or with an error of the handler's own.
    Success,
    /// Too late.
    Timeout,
    /// With an error of this type.
    Error(&'a str),
}

/// The numbers of one `REPORT` line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    pub(crate) request_id: RequestId,
    pub(crate) duration: Duration,
    pub(crate) billed: Duration,
    pub(crate) memory_mb: u32,
    pub(crate) max_memory_mb: u64,
    pub(crate) init: Option<Duration>,
    /// Whether that was a restore.
    pub(crate) is_restored: bool,
    pub(crate) status: Status<'a>,
}

/// An event in the form of the function's log, if it belongs into one of that form and level.
pub(crate) fn line(
    event: &Event<'_>,
    format: LogFormat,
    now: impl FnOnce() -> Timestamp,
) -> Option<String> {
    match format {
        LogFormat::Text => text(event, now),
        LogFormat::Json { system, .. } => {
            (json::level(event)? >= system).then(|| json::record(event, now())).flatten()
        }
    }
}

fn text(event: &Event<'_>, now: impl FnOnce() -> Timestamp) -> Option<String> {
    Some(match event {
        Event::InitStart(start) => start_line("INIT_START", start),
        Event::RestoreStart(start) => start_line("RESTORE_START", start),
        Event::RestoreReport { took, status } => restore_report(*took, *status),
        Event::NoSnapshot { why } => {
            format!("LACEWING_WARNING: SnapStart is off for this version: {why}.")
        }
        Event::InitDone { .. } | Event::InitReport { status: Status::Success, .. } => return None,
        Event::InitReport { took, phase, status, .. } => init_report(*took, *phase, *status),
        Event::Start { request_id, version } => {
            format!("START RequestId: {request_id} Version: {version}")
        }
        Event::TimedOut { request_id, timeout } => {
            format!("{} {request_id} {}", now(), task_timed_out(*timeout))
        }
        Event::End { request_id, .. } => format!("END RequestId: {request_id}"),
        Event::Report(numbers) => report(numbers),
        Event::Lost { records } => format!("LACEWING_WARNING: {records} log records were lost."),
    })
}

fn start_line(word: &str, start: &InitStart<'_>) -> String {
    let version = start.runtime_version();
    let arn = version.arn(start.region);
    let mut line = format!("{word} Runtime Version: {version}\tRuntime Version ARN: {arn}");
    if let Some(wanted) = start.substitute_for() {
        let _infallible = write!(line, "\tSubstitute for: {wanted}");
    }
    line
}

fn init_report(init: Duration, phase: Phase, status: Status<'_>) -> String {
    let phase = phase.name();
    let mut line = format!("INIT_REPORT Init Duration: {} ms\tPhase: {phase}\t", millis(init));
    push_status(&mut line, status);
    line
}

fn restore_report(restore: Duration, status: Status<'_>) -> String {
    let mut line = format!("RESTORE_REPORT Restore Duration: {} ms", millis(restore));
    if status != Status::Success {
        line.push('\t');
        push_status(&mut line, status);
    }
    line
}

fn report(report: &Report<'_>) -> String {
    let Report { request_id, memory_mb, max_memory_mb, .. } = report;
    let mut line = String::with_capacity(192);
    let _infallible = write!(
        line,
        "REPORT RequestId: {request_id}\tDuration: {} ms\tBilled Duration: {} ms\t\
         Memory Size: {memory_mb} MB\tMax Memory Used: {max_memory_mb} MB\t",
        millis(report.duration),
        report.billed.as_millis(),
    );
    if let Some(init) = report.init {
        let _infallible = if report.is_restored {
            let billed = billed(init, None).as_millis();
            let millis = millis(init);
            write!(line, "Restore Duration: {millis} ms\tBilled Restore Duration: {billed} ms\t")
        } else {
            write!(line, "Init Duration: {} ms\t", millis(init))
        };
    }
    push_status(&mut line, report.status);
    line
}

/// `Task timed out after 3.00 seconds`.
pub(crate) fn task_timed_out(timeout: Duration) -> String {
    format!("Task timed out after {:.2} seconds", timeout.as_secs_f64())
}

/// The name of an Instance's log stream: `YYYY/MM/DD/[VERSION]HEX`, and before the version the
/// function's name in a log group that others may share.
pub(crate) fn stream_name(at: Timestamp, function: &Function, unique: uuid::Uuid) -> String {
    let date = at.to_jiff().strftime("%Y/%m/%d");
    let name = &function.key.name;
    let is_shared = function.config.logging.other_group(name).is_some();
    let name = if is_shared { name.as_str() } else { "" };
    format!("{date}/{name}[{}]{}", function.version, unique.simple())
}

/// The time that is billed: the sum rounded up to whole milliseconds. The init phase is billed
/// too: <https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/>.
pub(crate) fn billed(duration: Duration, init: Option<Duration>) -> Duration {
    let total = duration + init.unwrap_or_default();
    let millis = total.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

// === InitStart, Phase ===

impl InitStart<'_> {
    fn runtime_version(&self) -> RuntimeVersion {
        RuntimeVersion::new(self.serving, self.version)
    }

    fn substitute_for(&self) -> Option<RuntimeId> {
        let wanted = self.function.config.runtime;
        (wanted != self.serving).then_some(wanted)
    }
}

impl Initialization {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Provisioned => "provisioned-concurrency",
            Self::SnapStart => "snap-start",
        }
    }
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Invoke => "invoke",
        }
    }
}

/// Milliseconds with two decimals.
fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1_000.0)
}

fn push_status(line: &mut String, status: Status<'_>) {
    match status {
        Status::Success => {}
        Status::Timeout => line.push_str("Status: timeout"),
        Status::Error(error_type) => {
            line.push_str("Status: error\tError Type: ");
            line.push_str(error_type);
        }
    }
}

#[cfg(test)]
mod tests;
