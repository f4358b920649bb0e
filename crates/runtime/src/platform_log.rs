//! The lines that the platform itself writes into a function's log, as pure functions.
//!
//! Source of the shapes: "Understanding the Lambda execution environment lifecycle",
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>, and "Lambda
//! logs", <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-view.html>.
//! Fields are separated by tabs; none of the lines ends with a line feed here.

use std::fmt::Write;
use std::time::Duration;

use lacewing_model::{Family, Region, RequestId, RuntimeId, Timestamp, Version};

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
    pub(crate) status: Status<'a>,
}

/// `INIT_START`: which version of the runtime starts, and for which it stands in.
pub(crate) fn init_start(
    region: &Region,
    wanted: RuntimeId,
    serving: RuntimeId,
    version: &str,
) -> String {
    let name = version_name(serving, version);
    let hash = version_hash(&name);
    let mut line = format!(
        "INIT_START Runtime Version: {name}\tRuntime Version ARN: \
         arn:aws:lambda:{region}::runtime:{hash}"
    );
    if wanted != serving {
        let _infallible = write!(line, "\tSubstitute for: {wanted}");
    }
    line
}

/// `INIT_REPORT`, written when an init failed.
pub(crate) fn init_report(init: Duration, phase: Phase, status: Status<'_>) -> String {
    let phase = match phase {
        Phase::Init => "init",
        Phase::Invoke => "invoke",
    };
    let mut line = format!("INIT_REPORT Init Duration: {} ms\tPhase: {phase}\t", millis(init));
    push_status(&mut line, status);
    line
}

/// `START`.
pub(crate) fn start(request_id: RequestId, version: Version) -> String {
    format!("START RequestId: {request_id} Version: {version}")
}

/// `END`.
pub(crate) fn end(request_id: RequestId) -> String {
    format!("END RequestId: {request_id}")
}

/// `REPORT`.
pub(crate) fn report(report: &Report<'_>) -> String {
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
        let _infallible = write!(line, "Init Duration: {} ms\t", millis(init));
    }
    push_status(&mut line, report.status);
    line
}

/// The line that says that an invocation took too long.
pub(crate) fn timed_out(at: Timestamp, request_id: RequestId, timeout: Duration) -> String {
    format!("{at} {request_id} {}", task_timed_out(timeout))
}

/// `Task timed out after 3.00 seconds`.
pub(crate) fn task_timed_out(timeout: Duration) -> String {
    format!("Task timed out after {:.2} seconds", timeout.as_secs_f64())
}

/// The name of an Instance's log stream: `YYYY/MM/DD/[VERSION]HEX`.
pub(crate) fn stream_name(at: Timestamp, version: Version, unique: uuid::Uuid) -> String {
    let date = at.to_jiff().strftime("%Y/%m/%d");
    format!("{date}/[{version}]{}", unique.simple())
}

/// The time that is billed: the sum rounded up to whole milliseconds. The init phase is billed
/// too: <https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/>.
pub(crate) fn billed(duration: Duration, init: Option<Duration>) -> Duration {
    let total = duration + init.unwrap_or_default();
    let millis = total.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// `3.11.7` of `python3.11` is `python:3.11.v7`; `20.20.1` of `nodejs20.x` is `nodejs:20.v20`.
fn version_name(runtime: RuntimeId, version: &str) -> String {
    let (major, minor) = runtime.version;
    let part = |index: usize| version.split('.').nth(index).unwrap_or("0");
    match runtime.family {
        Family::Python => format!("python:{major}.{minor}.v{}", part(2)),
        Family::Node => format!("nodejs:{major}.v{}", part(1)),
        Family::Provided => format!("provided:al{major}.v1"),
    }
}

/// 64 hexadecimal digits that are equal for equal names: an identifier, no proof of anything.
fn version_hash(name: &str) -> String {
    let fnv = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    // The steps and the finaliser of the generator SplitMix64.
    let word = |step: u64| {
        let mut word = start.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    (1..=4).map(|step| format!("{:016x}", word(step))).collect()
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
mod tests {
    use super::*;

    fn id() -> RequestId {
        "6bc28136-ec24-4b1e-9d30-0b1bd5a7bf92".parse().expect("a request id")
    }

    fn a_report() -> Report<'static> {
        Report {
            request_id: id(),
            duration: Duration::from_micros(3_010),
            billed: Duration::from_millis(4),
            memory_mb: 128,
            max_memory_mb: 36,
            init: None,
            status: Status::Success,
        }
    }

    #[test]
    fn a_warm_report_ends_with_a_tab() {
        let expected = "REPORT RequestId: 6bc28136-ec24-4b1e-9d30-0b1bd5a7bf92\t\
            Duration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t";
        assert_eq!(report(&a_report()), expected);
    }

    #[test]
    fn a_cold_report_says_how_long_the_init_took() {
        let line = report(&Report { init: Some(Duration::from_micros(110_104)), ..a_report() });
        assert!(line.ends_with("Max Memory Used: 36 MB\tInit Duration: 110.10 ms\t"), "{line}");
    }

    #[test]
    fn a_failed_report_says_why() {
        let line = report(&Report { status: Status::Timeout, ..a_report() });
        assert!(line.ends_with("36 MB\tStatus: timeout"), "{line}");
        let line = report(&Report { status: Status::Error("Runtime.OutOfMemory"), ..a_report() });
        assert!(line.ends_with("36 MB\tStatus: error\tError Type: Runtime.OutOfMemory"), "{line}");
    }

    #[test]
    fn a_failed_init_is_reported_with_its_phase() {
        let status = Status::Error("Runtime.InvalidEntrypoint");
        assert_eq!(
            init_report(Duration::from_micros(790), Phase::Init, status),
            "INIT_REPORT Init Duration: 0.79 ms\tPhase: init\tStatus: error\t\
             Error Type: Runtime.InvalidEntrypoint"
        );
        assert_eq!(
            init_report(Duration::from_millis(10_000), Phase::Invoke, Status::Timeout),
            "INIT_REPORT Init Duration: 10000.00 ms\tPhase: invoke\tStatus: timeout"
        );
    }

    #[test]
    fn start_and_end_name_the_request() {
        let text = id().to_string();
        assert_eq!(
            start(id(), Version::Latest),
            format!("START RequestId: {text} Version: $LATEST")
        );
        assert_eq!(end(id()), format!("END RequestId: {text}"));
    }

    #[test]
    fn a_timeout_has_two_decimals() {
        let line = timed_out(Timestamp::from_seconds(0), id(), Duration::from_secs(3));
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z 6bc28136-ec24-4b1e-9d30-0b1bd5a7bf92 \
             Task timed out after 3.00 seconds"
        );
    }

    #[test]
    fn billing_rounds_the_sum_up_and_includes_the_init() {
        let micros = Duration::from_micros;
        assert_eq!(billed(micros(3_010), None), Duration::from_millis(4));
        assert_eq!(billed(micros(3_000), None), Duration::from_millis(3));
        assert_eq!(billed(micros(1_870), Some(micros(153_660))), Duration::from_millis(156));
        assert_eq!(billed(Duration::from_nanos(1), None), Duration::from_millis(1));
    }

    #[test]
    fn init_start_names_version_and_substitution() {
        let region = Region::new("eu-west-1").expect("valid");
        let python = RuntimeId::python(3, 11);
        let line = init_start(&region, python, python, "3.11.7");
        let (head, hash) = line.rsplit_once(':').expect("an ARN");
        assert_eq!(
            head,
            "INIT_START Runtime Version: python:3.11.v7\tRuntime Version ARN: \
             arn:aws:lambda:eu-west-1::runtime"
        );
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let line = init_start(&region, RuntimeId::python(3, 14), python, "3.11.7");
        assert!(line.ends_with("\tSubstitute for: python3.14"), "{line}");
    }

    #[test]
    fn a_stream_is_named_by_day_and_version() {
        let name =
            |version| stream_name(Timestamp::from_seconds(86_400), version, uuid::Uuid::nil());
        let unique = "00000000000000000000000000000000";
        assert_eq!(name(Version::Latest), format!("1970/01/02/[$LATEST]{unique}"));
        assert_eq!(name(Version::Published(7)), format!("1970/01/02/[7]{unique}"));
    }
}
