//! Events as the JSON records of a log in that format, and how much each matters.
//!
//! Sources: "Lambda Telemetry API Event schema reference",
//! <https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html>, and the levels of
//! "Log-level filtering",
//! <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.

use std::time::Duration;

use serde::Serialize;

use lacewing_model::{LogLevel, RequestId, Timestamp};

use super::{Event, InitStart, Initialization, Phase, Report, Status, billed};

#[derive(Serialize)]
struct Record<R> {
    time: String,
    r#type: &'static str,
    record: R,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitStartRecord<'a> {
    initialization_type: &'static str,
    phase: &'static str,
    runtime_version: String,
    runtime_version_arn: String,
    function_name: &'a str,
    function_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    substitute_for: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitRecord<'a> {
    initialization_type: &'static str,
    phase: &'static str,
    #[serde(flatten)]
    outcome: Outcome<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<InitMetrics>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitMetrics {
    duration_ms: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestoreRecord<'a> {
    #[serde(flatten)]
    outcome: Outcome<'a>,
    metrics: InitMetrics,
}

#[derive(Serialize)]
struct NoSnapshotRecord<'a> {
    reason: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InvokeRecord<'a, M> {
    request_id: RequestId,
    #[serde(flatten)]
    outcome: Outcome<'a>,
    metrics: M,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartRecord {
    request_id: RequestId,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndMetrics {
    duration_ms: f64,
    produced_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportMetrics {
    duration_ms: f64,
    billed_duration_ms: u128,
    #[serde(rename = "memorySizeMB")]
    memory_size_mb: u32,
    #[serde(rename = "maxMemoryUsedMB")]
    max_memory_used_mb: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    init_duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billed_restore_duration_ms: Option<u128>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LostRecord {
    reason: &'static str,
    dropped_records: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
}

/// How much an event matters; `None` for what other records say in this form.
pub(super) fn level(event: &Event<'_>) -> Option<LogLevel> {
    let unless_failed = |status: &Status<'_>, level| match status {
        Status::Success => level,
        Status::Timeout | Status::Error(_) => LogLevel::Warn,
    };
    Some(match event {
        Event::InitStart(_) | Event::RestoreStart(_) | Event::Start { .. } => LogLevel::Info,
        Event::InitDone { status, .. }
        | Event::InitReport { status, .. }
        | Event::RestoreReport { status, .. }
        | Event::End { status, .. } => unless_failed(status, LogLevel::Debug),
        Event::Report(report) => unless_failed(&report.status, LogLevel::Info),
        Event::Lost { .. } | Event::NoSnapshot { .. } => LogLevel::Warn,
        Event::TimedOut { .. } => return None,
    })
}

/// The record of an event.
pub(super) fn record(event: &Event<'_>, at: Timestamp) -> Option<String> {
    match *event {
        Event::InitStart(start) => write(at, "platform.initStart", init_start(&start, "init")),
        Event::RestoreStart(start) => {
            write(at, "platform.restoreStart", init_start(&start, "restore"))
        }
        Event::RestoreReport { took, status } => {
            let metrics = InitMetrics { duration_ms: millis(took) };
            let record = RestoreRecord { outcome: outcome(status), metrics };
            write(at, "platform.restoreReport", record)
        }
        Event::NoSnapshot { why } => {
            write(at, "lacewing.noSnapshot", NoSnapshotRecord { reason: why })
        }
        Event::InitDone { initialization, phase, status } => {
            write(at, "platform.initRuntimeDone", init(initialization, phase, status, None))
        }
        Event::InitReport { initialization, took, phase, status } => {
            write(at, "platform.initReport", init(initialization, phase, status, Some(took)))
        }
        Event::Start { request_id, version } => {
            let version = version.to_string();
            write(at, "platform.start", StartRecord { request_id, version })
        }
        Event::End { request_id, duration, produced, status } => {
            let metrics = EndMetrics { duration_ms: millis(duration), produced_bytes: produced };
            let outcome = outcome(status);
            write(at, "platform.runtimeDone", InvokeRecord { request_id, outcome, metrics })
        }
        Event::Report(numbers) => write(at, "platform.report", report(&numbers)),
        Event::Lost { records } => {
            let reason = "The log was written faster than it could be kept.";
            write(at, "platform.logsDropped", LostRecord { reason, dropped_records: records })
        }
        Event::TimedOut { .. } => None,
    }
}

fn init_start<'a>(start: &InitStart<'a>, phase: &'static str) -> InitStartRecord<'a> {
    InitStartRecord {
        initialization_type: start.initialization.name(),
        phase,
        runtime_version: start.runtime_version().to_string(),
        runtime_version_arn: start.runtime_version().arn(start.region),
        function_name: start.function.key.name.as_str(),
        function_version: start.function.version.to_string(),
        substitute_for: start.substitute_for().map(|wanted| wanted.to_string()),
    }
}

fn init<'a>(
    initialization: Initialization,
    phase: Phase,
    status: Status<'a>,
    took: Option<Duration>,
) -> InitRecord<'a> {
    InitRecord {
        initialization_type: initialization.name(),
        phase: phase.name(),
        outcome: outcome(status),
        metrics: took.map(|took| InitMetrics { duration_ms: millis(took) }),
    }
}

fn report<'a>(report: &Report<'a>) -> InvokeRecord<'a, ReportMetrics> {
    let restore = report.init.filter(|_| report.is_restored);
    let init = report.init.filter(|_| !report.is_restored);
    InvokeRecord {
        request_id: report.request_id,
        outcome: outcome(report.status),
        metrics: ReportMetrics {
            duration_ms: millis(report.duration),
            billed_duration_ms: report.billed.as_millis(),
            memory_size_mb: report.memory_mb,
            max_memory_used_mb: report.max_memory_mb,
            init_duration_ms: init.map(millis),
            restore_duration_ms: restore.map(millis),
            billed_restore_duration_ms: restore.map(|it| billed(it, None).as_millis()),
        },
    }
}

fn outcome(status: Status<'_>) -> Outcome<'_> {
    let (status, error_type) = match status {
        Status::Success => ("success", None),
        Status::Timeout => ("timeout", None),
        Status::Error(error_type) => ("error", Some(error_type)),
    };
    Outcome { status, error_type }
}

fn write(at: Timestamp, r#type: &'static str, record: impl Serialize) -> Option<String> {
    serde_json::to_string(&Record { time: at.to_rfc3339_millis(), r#type, record }).ok()
}

/// Milliseconds with two decimals.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
