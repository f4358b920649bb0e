//! Lines, tails and losses.

use lacewing_model::time::ManualClock;
use lacewing_model::{AccountId, FunctionName, Region, Version};

use super::*;
use crate::platform_log::{Report, Status};

fn writer() -> (LogWriter, LogReceiver, Arc<ManualClock>) {
    let (sender, receiver) = channel();
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(10)));
    let function = FunctionKey {
        account: AccountId::new("000000000000").expect("valid"),
        region: Region::new("us-east-1").expect("valid"),
        name: FunctionName::new("hello").expect("valid"),
    };
    (LogWriter::new(sender, clock.clone(), function, "stream".into()), receiver, clock)
}

async fn texts(receiver: &mut LogReceiver) -> Vec<String> {
    texts_of(&receiver.next().await.expect("a batch"))
}

fn texts_of(batch: &LogBatch) -> Vec<String> {
    let text = |line: &LogLine| String::from_utf8(line.text.to_vec()).expect("UTF-8");
    batch.lines.iter().map(text).collect()
}

#[tokio::test]
async fn a_line_that_comes_in_parts_is_one_record() {
    let (mut log, mut receiver, _clock) = writer();
    log.output(b"one\ntw");
    log.output(b"o\n\nthr");
    assert!(log.finish().is_none());
    assert_eq!(texts(&mut receiver).await, ["one", "two", "", "thr"]);
}

#[tokio::test]
async fn a_platform_line_ends_the_line_before_it() {
    let (mut log, mut receiver, clock) = writer();
    let id = RequestId::random();
    log.output(b"init");
    clock.advance(Duration::from_secs(1));
    log.begin(id, false);
    log.platform(&Event::Start { request_id: id, version: Version::Latest });
    log.finish();
    let batch = receiver.next().await.expect("a batch");
    let seen: Vec<_> =
        batch.lines.iter().map(|line| (line.at.as_seconds(), line.request_id)).collect();
    assert_eq!(seen, [(11, None), (11, Some(id))]);
}

#[tokio::test]
async fn a_very_long_line_is_cut_and_nothing_of_it_lost() {
    let (mut log, mut receiver, _clock) = writer();
    log.output(&vec![b'x'; LINE + 10]);
    log.output(b"y\n");
    log.finish();
    let mut lines = texts(&mut receiver).await;
    if lines.len() < 2 {
        lines.extend(texts(&mut receiver).await);
    }
    assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE, 11]);
}

#[tokio::test]
async fn the_tail_is_the_last_4_kb_of_this_invocation_only() {
    let (mut log, _receiver, _clock) = writer();
    log.begin(RequestId::random(), true);
    log.output(b"of the first\n");
    assert_eq!(log.finish().expect("a tail"), "of the first\n");
    log.begin(RequestId::random(), true);
    for number in 0..10_000 {
        log.output(format!("line {number}\n").as_bytes());
    }
    let tail = log.finish().expect("a tail");
    assert_eq!(tail.len(), limits::LOG_TAIL);
    assert!(tail.ends_with(b"line 9998\nline 9999\n"));
    log.begin(RequestId::random(), false);
    assert!(log.finish().is_none());
}

#[tokio::test]
async fn a_framed_record_stays_whole_and_keeps_its_time() {
    let (mut log, mut receiver, _clock) = writer();
    log.record(Timestamp::from_seconds(7), None, Bytes::from_static(b"a\nb"));
    log.record(Timestamp::from_seconds(1_000), None, Bytes::from_static(b"from the future"));
    log.finish();
    let batch = receiver.next().await.expect("a batch");
    assert_eq!(batch.lines.len(), 2);
    assert_eq!(batch.lines[0].at, Timestamp::from_seconds(7));
    assert_eq!(batch.lines[1].at, Timestamp::from_seconds(10));
    assert_eq!(batch.lines[0].text, "a\nb");
}

#[tokio::test]
async fn a_json_log_keeps_records_of_its_level_and_lines_without_one() {
    let (log, mut receiver, clock) = writer();
    let (application, system) = (LogLevel::Warn, LogLevel::Warn);
    let mut log = log.in_format(LogFormat::Json { application, system });
    let request_id = RequestId::random();
    log.begin(request_id, false);
    log.platform(&Event::Start { request_id, version: Version::Latest });
    for (level, text) in
        [(None, "none"), (Some(LogLevel::Info), "info"), (Some(LogLevel::Error), "error")]
    {
        log.record(clock.now(), level, text.into());
    }
    log.output(b"{\"level\":\"INFO\"}\nplain\n");
    log.finish();
    assert_eq!(texts(&mut receiver).await, ["none", "error", "plain"]);
}

#[tokio::test]
async fn what_nobody_takes_is_bounded_and_the_loss_is_told() {
    let (mut log, mut receiver, _clock) = writer();
    let line = [b'x'; 1_000];
    for _ in 0..WAITING {
        log.output(b"fill\n");
        log.flush();
    }
    for _ in 0..2_000 {
        log.output(&line);
        log.output(b"\n");
    }
    assert!(log.pending_bytes <= KEPT + OVERHEAD && log.lost > 0);
    let lost = log.lost;
    for _ in 0..WAITING {
        receiver.next().await.expect("a batch");
    }
    log.flush();
    let last = texts(&mut receiver).await.pop().expect("a line");
    assert_eq!(last, format!("LACEWING_WARNING: {lost} log records were lost."));
}

#[tokio::test]
async fn a_function_that_floods_its_log_leaves_room_for_others_and_is_told_what_was_lost() {
    let (sender, mut receiver) = channel();
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(10)));
    let log_of = |name: &str| {
        let function = FunctionKey {
            account: AccountId::new("000000000000").expect("valid"),
            region: Region::new("us-east-1").expect("valid"),
            name: FunctionName::new(name).expect("valid"),
        };
        LogWriter::new(sender.clone(), clock.clone(), function, "stream".into())
    };
    let mut instances = [log_of("flood"), log_of("flood")];
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let mut kept = 0;
    for _ in 0..100 {
        for instance in &mut instances {
            (0..1_000).for_each(|_| instance.output(&line));
        }
        // As fast as they are written: the rate is the bound, not the room.
        let mut batches = Vec::new();
        receiver.take_waiting(&mut batches, WAITING);
        kept += batches.iter().flat_map(|batch| &batch.lines).map(|l| l.text.len()).sum::<usize>();
    }
    assert!((16 << 20..=32 << 20).contains(&kept), "{kept} bytes in no time, by two Instances");
    assert!(receiver.lost() > 100_000);
    let mut quiet = log_of("quiet");
    quiet.output(b"kept\n");
    quiet.finish();
    assert_eq!(texts(&mut receiver).await, ["kept"]);
    clock.advance(Duration::from_secs(1));
    instances[0].finish();
    let last = texts(&mut receiver).await.pop().expect("a line");
    assert!(last.starts_with("LACEWING_WARNING: "), "{last}");
}

#[tokio::test]
async fn batches_that_nobody_takes_have_little_room_together() {
    let (mut log, mut receiver, _clock) = writer();
    let line = [b'x'; LINE - 1];
    while log.lost == 0 {
        log.output(&line);
        log.output(b"\n");
    }
    let mut batches = Vec::new();
    receiver.take_waiting(&mut batches, WAITING);
    let bytes: usize = batches.iter().flat_map(|batch| &batch.lines).map(|l| l.text.len()).sum();
    assert!(bytes <= WAITING_KB * 1024 && batches.len() < WAITING);
    log.flush();
    let last = texts(&mut receiver).await.pop().expect("a line");
    assert!(last.starts_with("LACEWING_WARNING: "));
}

/// Prints so much that records are lost, then ends the invocation.
fn flood_to_the_end(log: &mut LogWriter, is_taken: bool, mut each: impl FnMut()) {
    let line = [&[b'x'; 999][..], b"\n"].concat();
    for _ in 0..60_000 {
        log.output(&line);
        each();
    }
    assert!(log.lost > 0);
    assert!(is_taken || log.pending_bytes > BATCH);
    let (request_id, duration) = (RequestId::random(), Duration::ZERO);
    log.platform(&Event::End { request_id, duration, produced: 0, status: Status::Success });
    log.platform(&Event::Report(Report {
        request_id,
        duration,
        billed: duration,
        memory_mb: 128,
        max_memory_mb: 1,
        init: None,
        is_restored: false,
        status: Status::Success,
    }));
    log.finish();
    assert_eq!((log.lost, log.pending.len()), (0, 0), "nothing waits for somebody to come by");
}

fn assert_is_an_end(lines: &[String], lost: u64) {
    let [.., end, report, told] = lines else { panic!("{lines:?}") };
    assert!(end.starts_with("END RequestId: ") && report.starts_with("REPORT RequestId: "));
    assert_eq!(*told, format!("LACEWING_WARNING: {lost} log records were lost."));
}

#[tokio::test]
async fn an_invocation_that_used_up_its_rate_still_ends_in_the_log() {
    let (mut log, mut receiver, _clock) = writer();
    let mut batches = Vec::new();
    flood_to_the_end(&mut log, true, || receiver.take_waiting(&mut batches, WAITING));
    receiver.take_waiting(&mut batches, WAITING);
    let last = texts_of(batches.last().expect("a batch"));
    assert_is_an_end(&last, receiver.lost());
}

#[tokio::test]
async fn an_invocation_whose_output_fills_all_room_still_ends_in_the_log() {
    let (mut log, mut receiver, _clock) = writer();
    flood_to_the_end(&mut log, false, || {});
    let mut batches = Vec::new();
    receiver.take_waiting(&mut batches, WAITING);
    let last = texts_of(batches.last().expect("a batch"));
    assert_is_an_end(&last, receiver.lost());
}
