//! Lines of text and JSON records, as Lambda writes them.

use lacewing_model::LogLevel;

use super::*;

#[expect(non_upper_case_globals, reason = "stands for a field in many literals")]
const initialization: Initialization = Initialization::OnDemand;
use crate::testing;

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
        is_restored: false,
        status: Status::Success,
    }
}

fn at() -> Timestamp {
    Timestamp::from_seconds(0)
}

fn text(event: &Event<'_>) -> String {
    line(event, LogFormat::Text, at).expect("it has a line of text")
}

fn report(report: Report<'_>) -> String {
    text(&Event::Report(report))
}

#[test]
fn a_warm_report_ends_with_a_tab() {
    let expected = "REPORT RequestId: 6bc28136-ec24-4b1e-9d30-0b1bd5a7bf92\t\
        Duration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t";
    assert_eq!(report(a_report()), expected);
}

#[test]
fn a_cold_report_says_how_long_the_init_took() {
    let line = report(Report { init: Some(Duration::from_micros(110_104)), ..a_report() });
    assert!(line.ends_with("Max Memory Used: 36 MB\tInit Duration: 110.10 ms\t"), "{line}");
}

#[test]
fn a_failed_report_says_why() {
    let line = report(Report { status: Status::Timeout, ..a_report() });
    assert!(line.ends_with("36 MB\tStatus: timeout"), "{line}");
    let line = report(Report { status: Status::Error("Runtime.OutOfMemory"), ..a_report() });
    assert!(line.ends_with("36 MB\tStatus: error\tError Type: Runtime.OutOfMemory"), "{line}");
}

#[test]
fn a_failed_init_is_reported_with_its_phase() {
    let status = Status::Error("Runtime.InvalidEntrypoint");
    let (took, phase) = (Duration::from_micros(790), Phase::Init);
    assert_eq!(
        text(&Event::InitReport { initialization, took, phase, status }),
        "INIT_REPORT Init Duration: 0.79 ms\tPhase: init\tStatus: error\t\
         Error Type: Runtime.InvalidEntrypoint"
    );
    let (took, phase) = (Duration::from_millis(10_000), Phase::Invoke);
    assert_eq!(
        text(&Event::InitReport { initialization, took, phase, status: Status::Timeout }),
        "INIT_REPORT Init Duration: 10000.00 ms\tPhase: invoke\tStatus: timeout"
    );
    let good = Event::InitReport { initialization, took, phase, status: Status::Success };
    assert_eq!(line(&good, LogFormat::Text, at), None);
}

#[test]
fn start_and_end_name_the_request() {
    let request_id = id();
    let start = Event::Start { request_id, version: Version::Latest };
    assert_eq!(text(&start), format!("START RequestId: {request_id} Version: $LATEST"));
    assert_eq!(text(&an_end(Status::Success)), format!("END RequestId: {request_id}"));
}

#[test]
fn a_timeout_has_two_decimals() {
    let timed_out = Event::TimedOut { request_id: id(), timeout: Duration::from_secs(3) };
    assert_eq!(
        text(&timed_out),
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
fn a_restore_has_lines_and_records_of_its_own() {
    let region = Region::new("eu-west-1").expect("valid");
    let function = testing::function("python3.12");
    let (serving, version) = (RuntimeId::python(3, 12), "3.12.1");
    let start = InitStart {
        region: &region,
        function: &function,
        serving,
        initialization: Initialization::SnapStart,
        version,
    };
    let line = text(&Event::RestoreStart(start));
    assert!(line.starts_with("RESTORE_START Runtime Version: python:3.12.v1\t"), "{line}");
    let record = json(LogLevel::Info, &Event::RestoreStart(start)).expect("written");
    let told =
        r#""platform.restoreStart","record":{"initializationType":"snap-start","phase":"restore""#;
    assert!(record.contains(told), "{record}");
    let took = Duration::from_micros(4_321);
    let report = |status| text(&Event::RestoreReport { took, status });
    assert_eq!(report(Status::Success), "RESTORE_REPORT Restore Duration: 4.32 ms");
    assert_eq!(
        report(Status::Timeout),
        "RESTORE_REPORT Restore Duration: 4.32 ms\tStatus: timeout"
    );
    let restored = Report { init: Some(took), is_restored: true, ..a_report() };
    let line = text(&Event::Report(restored));
    assert!(
        line.ends_with("\tRestore Duration: 4.32 ms\tBilled Restore Duration: 5 ms\t"),
        "{line}"
    );
    let record = json(LogLevel::Info, &Event::Report(restored)).expect("written");
    assert!(record.contains(r#""restoreDurationMs":4.32,"billedRestoreDurationMs":5"#), "{record}");
    assert!(!record.contains("initDurationMs"), "{record}");
    let none = Event::NoSnapshot { why: "it has started threads: 1" };
    let line = "LACEWING_WARNING: SnapStart is off for this version: it has started threads: 1.";
    assert_eq!(text(&none), line);
    assert!(json(LogLevel::Warn, &none).expect("written").contains("lacewing.noSnapshot"));
}

#[test]
fn init_start_names_version_and_substitution() {
    let region = Region::new("eu-west-1").expect("valid");
    let (asked, other) = (testing::function("python3.11"), testing::function("python3.14"));
    let (serving, version) = (RuntimeId::python(3, 11), "3.11.7");
    let start =
        |function| InitStart { region: &region, function, serving, initialization, version };
    let line = text(&Event::InitStart(start(&asked)));
    let (head, hash) = line.rsplit_once(':').expect("an ARN");
    assert_eq!(
        head,
        "INIT_START Runtime Version: python:3.11.v7\tRuntime Version ARN: \
         arn:aws:lambda:eu-west-1::runtime"
    );
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let line = text(&Event::InitStart(start(&other)));
    assert!(line.ends_with("\tSubstitute for: python3.14"), "{line}");
    let record = json(LogLevel::Info, &Event::InitStart(start(&other))).expect("written");
    let (head, tail) = record.split_once("runtimeVersionArn").expect("an ARN");
    assert_eq!(
        head,
        r#"{"time":"1970-01-01T00:00:00.000Z","type":"platform.initStart","record":"#.to_owned()
            + r#"{"initializationType":"on-demand","phase":"init","runtimeVersion":"python:3.11.v7",""#
    );
    let end =
        r#","functionName":"hello","functionVersion":"$LATEST","substituteFor":"python3.14"}}"#;
    assert!(tail.ends_with(end), "{tail}");
}

#[test]
fn a_stream_is_named_by_day_and_version() {
    let name = |version, group: Option<&str>| {
        let mut function = testing::function("python3.11");
        function.version = version;
        function.config.logging.group = group.map(str::to_owned);
        stream_name(Timestamp::from_seconds(86_400), &function, uuid::Uuid::nil())
    };
    let unique = "00000000000000000000000000000000";
    assert_eq!(name(Version::Latest, None), format!("1970/01/02/[$LATEST]{unique}"));
    assert_eq!(name(Version::Published(7), None), format!("1970/01/02/[7]{unique}"));
    let default = Some("/aws/lambda/hello");
    assert_eq!(name(Version::Latest, default), format!("1970/01/02/[$LATEST]{unique}"));
    let shared = name(Version::Latest, Some("/all"));
    assert_eq!(shared, format!("1970/01/02/hello[$LATEST]{unique}"));
}

fn an_end(status: Status<'_>) -> Event<'_> {
    Event::End { request_id: id(), duration: Duration::from_micros(3_014), produced: 17, status }
}

fn json(system: LogLevel, event: &Event<'_>) -> Option<String> {
    line(event, LogFormat::Json { application: LogLevel::Fatal, system }, at)
}

#[test]
fn json_records_have_lambdas_members() {
    let request_id = id();
    let (took, phase) = (Duration::from_micros(125_336), Phase::Invoke);
    let init = Some(took);
    let events = [
        Event::Start { request_id, version: Version::Published(3) },
        Event::InitDone { initialization, phase, status: Status::Success },
        Event::InitReport { initialization, took, phase, status: Status::Timeout },
        an_end(Status::Success),
        Event::Report(Report { init, ..a_report() }),
        Event::Report(Report { status: Status::Error("Runtime.ExitError"), ..a_report() }),
        Event::Lost { records: 3 },
    ];
    let id = format!(r#""requestId":"{request_id}""#);
    let report = |metrics: &str| {
        format!(
            r#""metrics":{{"durationMs":3.01,"billedDurationMs":4,"memorySizeMB":128,{metrics}}}"#
        )
    };
    let expected = [
        format!(r#"start","record":{{{id},"version":"3"}}"#),
        r#"initRuntimeDone","record":{"initializationType":"on-demand","phase":"invoke","status":"success"}"#
            .to_owned(),
        r#"initReport","record":{"initializationType":"on-demand","phase":"invoke","status":"timeout","#
            .to_owned()
            + r#""metrics":{"durationMs":125.34}}"#,
        format!(r#"runtimeDone","record":{{{id},"status":"success","#)
            + r#""metrics":{"durationMs":3.01,"producedBytes":17}}"#,
        format!(r#"report","record":{{{id},"status":"success","#)
            + &report(r#""maxMemoryUsedMB":36,"initDurationMs":125.34"#)
            + "}",
        format!(r#"report","record":{{{id},"status":"error","errorType":"Runtime.ExitError","#)
            + &report(r#""maxMemoryUsedMB":36"#)
            + "}",
        r#"logsDropped","record":{"reason":"The log was written faster than it could be kept.","#
            .to_owned()
            + r#""droppedRecords":3}"#,
    ];
    for (event, expected) in events.iter().zip(expected) {
        let head = r#"{"time":"1970-01-01T00:00:00.000Z","type":"platform."#;
        let written = json(LogLevel::Debug, event).expect("written");
        assert_eq!(written, format!("{head}{expected}}}"));
    }
}

#[test]
fn the_system_level_decides_what_is_written() {
    let (took, phase, status) = (Duration::ZERO, Phase::Init, Status::Success);
    let failed = Status::Error("Runtime.ExitError");
    let request_id = id();
    let events = [
        (LogLevel::Debug, Event::InitDone { initialization, phase, status }),
        (LogLevel::Debug, Event::InitReport { initialization, took, phase, status }),
        (LogLevel::Debug, an_end(status)),
        (LogLevel::Info, Event::Start { request_id, version: Version::Latest }),
        (LogLevel::Info, Event::Report(a_report())),
        (LogLevel::Warn, Event::InitDone { initialization, phase, status: failed }),
        (
            LogLevel::Warn,
            Event::InitReport { initialization, took, phase, status: Status::Timeout },
        ),
        (LogLevel::Warn, an_end(failed)),
        (LogLevel::Warn, Event::Report(Report { status: failed, ..a_report() })),
    ];
    for (level, event) in events {
        for system in [LogLevel::Debug, LogLevel::Info, LogLevel::Warn] {
            assert_eq!(json(system, &event).is_some(), level >= system, "{event:?} {system}");
        }
    }
    let timed_out = Event::TimedOut { request_id, timeout: Duration::ZERO };
    assert_eq!(json(LogLevel::Debug, &timed_out), None);
}
