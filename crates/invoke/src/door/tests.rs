//! Tests of `door`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use tokio_util::task::TaskTracker;

use lacewing_model::error::Throttle;
use lacewing_model::usage::Trigger;
use lacewing_model::{FunctionKey, Qualifier, RuntimeVersion, SystemClock};
use lacewing_runtime::{LogBatch, LogLine};
use lacewing_services::{ConfigPatch, LogQuery, NewFunction, Serving};
use lacewing_store::seal::{Sealer, TokenSealer};

use super::*;
use crate::background;
use crate::pool::driver::tests::{FakeSource, Fakes};
use crate::testing;

/// A door with real services on a store in memory, and Instances that are no sandboxes.
pub(crate) struct Bench {
    pub(crate) door: Arc<Door<FakeSource>>,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) store: Store,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = lacewing_store::memory::open(clock.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let key = key("x");
        let services = Services::open(
            lacewing_services::Options::new(key.region, key.account, directory.path().to_owned()),
            store.clone(),
            Arc::new(Sealer::new([7; 32])),
            Arc::new(TokenSealer::new(&[7; 32])),
            clock.clone(),
            Arc::new(|runtime| {
                let version = RuntimeVersion::new(runtime, "3.13.0");
                Ok(Serving { version, note: None })
            }),
        );
        let services = services.await.expect("opens");
        tasks.spawn(services.clone().run(stop.clone()));
        let fakes = Arc::new(Fakes::default());
        let mut options = Options::new(directory.path().to_owned(), ByteSize::mebibytes(4_000));
        change(&mut options);
        let source = FakeSource(fakes.clone());
        let door = Door::open(&options, services, source, store.clone(), clock).expect("opens");
        Self { door: Arc::new(door), fakes, store, stop, tasks, directory }
    }

    pub(crate) async fn create(&self, name: &str) {
        let file = self.directory.path().join("app.py");
        std::fs::write(&file, name).expect("writes");
        let mut zip = std::io::Cursor::new(Vec::new());
        let files = [PathBuf::from("app.py")];
        lacewing_archive::pack(self.directory.path(), &files, &mut zip, &mut |_| {})
            .expect("packs");
        let zip = Bytes::from(zip.into_inner());
        let new = NewFunction { config: testing::config(), zip, publish: false };
        self.door.services.functions.create(&key(name), new).await.expect("created");
    }

    pub(crate) async fn invoke(&self, name: &str, payload: &str) -> Result<String> {
        let reply = self.door.invoke(testing::call(key(name), payload)).await?;
        match reply.outcome {
            Outcome::Returned(answer) => Ok(String::from_utf8(answer.to_vec()).expect("text")),
            Outcome::Failed(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) fn key(name: &str) -> FunctionKey {
    testing::key("000000000000", name)
}

#[tokio::test]
async fn a_call_is_served_and_its_usage_counted_once() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[0,1]");
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[0,2]");
    let usage = &bench.door.services.usage;
    assert_eq!(bench.door.hand_over_usage().await.expect("drains"), 2);
    assert_eq!(bench.door.hand_over_usage().await.expect("drains"), 0);
    let records = testing::records(usage).await;
    let inits: Vec<_> = records.iter().map(|record| record.init_us).collect();
    assert_eq!(inits, [Some(5_000), None]);
    let first = &records[0];
    assert_eq!((first.billed_ms, first.duration_us, first.max_memory_mb), (1, 900, 20));
    assert_eq!((first.bytes_in, first.bytes_out, first.trigger), (2, 5, Trigger::Sync));
}

#[tokio::test]
async fn usage_that_was_handed_over_before_a_crash_is_not_counted_again() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    bench.invoke("hello", "{}").await.expect("served");
    let segment = bench.door.journal.rotate().expect("rotates").remove(0);
    let copy = std::fs::read(&segment).expect("reads");
    let usage = &bench.door.services.usage;
    bench.door.hand_over_usage().await.expect("drains");
    // The crash came after the records were taken, before the segment was unlinked.
    std::fs::write(&segment, copy).expect("writes");
    bench.door.hand_over_usage().await.expect("drains");
    assert_eq!(testing::records(usage).await.len(), 1);
}

#[tokio::test]
async fn usage_of_a_caller_that_went_away_is_counted() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    bench.invoke("hello", "{}").await.expect("served");
    let wait = bench.invoke("hello", "\"wait\"");
    assert!(tokio::time::timeout(Duration::from_millis(30), wait).await.is_err());
    bench.fakes.finish.add_permits(1);
    assert_eq!(background::drain(&bench.door, Duration::from_secs(5)).await, 0);
    let handed_over = bench.door.hand_over_usage().await;
    assert_eq!(handed_over.expect("drains"), 2);
}

#[tokio::test]
async fn a_new_function_is_waited_for() {
    let bench = Bench::new().await;
    // Pending when it is answered; how soon it is Active is the reconciler's matter.
    bench.create("hello").await;
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[0,1]");
}

#[tokio::test]
async fn what_is_reserved_is_followed_and_goes_with_its_function() {
    let bench = Bench::new().await;
    let door = bench.door.clone();
    let follower = bench.tasks.spawn(async move { background::follow_catalog(&door).await });
    bench.create("hello").await;
    let functions = &bench.door.services.functions;
    let is_told = |told: Vec<FunctionKey>| {
        let pool = &bench.door.pool;
        let wait = async move {
            while pool.reserving() != told {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
    };
    functions.reserve(&key("hello"), 0).await.expect("reserved");
    is_told(vec![key("hello")]).await.expect("told");
    let refused = bench.invoke("hello", "{}").await.expect_err("it is off");
    assert_eq!(refused.kind(), Kind::Throttled(Throttle::ReservedConcurrency));
    functions.delete(&key("hello")).await.expect("deleted");
    is_told(vec![]).await.expect("told");
    bench.create("hello").await;
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[0,1]");
    follower.abort();
}

#[tokio::test]
async fn who_missed_changes_is_told_what_is_reserved_by_now() {
    let bench = Bench::new().await;
    bench.create("on").await;
    bench.create("off").await;
    bench.door.pool.reserve(key("on"), Some(0));
    bench.door.services.functions.reserve(&key("off"), 0).await.expect("reserved");
    crate::concurrency::tell_all(&bench.door);
    assert_eq!(bench.door.pool.reserving(), [key("off")]);
    assert!(bench.invoke("off", "{}").await.is_err());
    assert!(bench.invoke("on", "{}").await.is_ok());
}

#[test]
fn a_function_that_is_not_active_is_a_conflict() {
    let pending = Function { state: State::Pending, ..testing::function(key("slow"), 1) };
    let error = admission::ready(Arc::new(pending)).expect_err("pending");
    assert_eq!(error.kind(), Kind::Conflict);
    let message = "The operation cannot be performed at this time. The function is currently in \
                   the following state: Pending";
    assert_eq!(error.public(), message);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let bench = Bench::new().await;
    let error = bench.invoke("nobody", "{}").await.expect_err("unknown");
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:";
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.public(), format!("Function not found: {arn}nobody"));
    bench.create("hello").await;
    for (qualifier, text) in
        [(Qualifier::Version(3), "3"), (Qualifier::Alias("live".into()), "live")]
    {
        let mut call = testing::call(key("hello"), "{}");
        call.qualifier = Some(qualifier);
        let error = bench.door.invoke(call).await.expect_err("unknown");
        assert_eq!(error.public(), format!("Function not found: {arn}hello:{text}"));
    }
    let mut call = testing::call(key("hello"), "{}");
    call.qualifier = Some(Qualifier::Latest);
    assert_eq!(bench.door.invoke(call).await.expect("served").executed_version, "$LATEST");
}

#[tokio::test]
async fn payloads_are_bounded_by_how_they_come() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    let large = format!("\"{}\"", "x".repeat(1024 * 1024));
    assert!(bench.invoke("hello", &large).await.is_ok());
    let mut event = testing::call(key("hello"), &large);
    event.trigger = Trigger::Async;
    let error = bench.door.enqueue(event).await.expect_err("too large");
    assert_eq!(error.kind(), Kind::PayloadTooLarge);
    let error = bench.invoke("hello", "no json").await.expect_err("no json");
    assert_eq!(error.kind(), Kind::InvalidContent);
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_update_is_served_by_new_instances_only() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[0,1]");
    let patch = ConfigPatch { memory_mb: Some(256), ..ConfigPatch::default() };
    bench.door.services.functions.update_config(&key("hello"), patch).await.expect("updated");
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[1,1]");
}

#[tokio::test]
async fn log_batches_reach_the_functions_log_in_order() {
    let bench = Bench::new().await;
    let line = |text: &'static str| LogLine {
        at: bench.door.clock.now(),
        request_id: None,
        text: Bytes::from_static(text.as_bytes()),
    };
    let batch = |stream: &str, text| LogBatch {
        function: key("hello"),
        stream: stream.to_owned(),
        lines: vec![line(text)],
    };
    let batches = vec![batch("a", "one"), batch("b", "other"), batch("a", "two")];
    background::keep(&bench.door, batches).await;
    let query = LogQuery {
        since: None,
        cursor: None,
        stream: Some("a".into()),
        limit: 10,
        wait: Duration::ZERO,
    };
    let page = bench.door.services.logs.read(&key("hello"), query).await.expect("reads");
    let texts: Vec<_> = page.events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
}

#[tokio::test]
async fn a_streamed_answer_begins_before_its_function_is_over_and_is_counted_whole() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    let call = testing::call(key("hello"), "\"stream\"");
    let mut streamed = bench.door.stream(call).await.expect("it begins");
    assert_eq!(streamed.content_type(), Some("text/plain"));
    assert_eq!(streamed.executed_version(), "$LATEST");
    for text in ["one", "two", "three"] {
        assert_eq!(streamed.next().await, Some(Bytes::from_static(text.as_bytes())));
        assert_eq!(bench.door.pool.counts().busy, 1);
        bench.fakes.finish.add_permits(1);
    }
    assert_eq!(streamed.next().await, None);
    let reply = streamed.end().await.expect("in time");
    assert!(matches!(reply.outcome, Outcome::Returned(_)));
    assert_eq!(bench.door.pool.counts().busy, 0, "it is free before the caller hears of the end");
    let usage = &bench.door.services.usage;
    assert_eq!(bench.door.hand_over_usage().await.expect("drains"), 1);
    let records = testing::records(usage).await;
    // What the fake returns beside it is `[0,1]`.
    assert_eq!(records[0].bytes_out, 11 + 5);
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_comes_with_the_end() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    let call = testing::call(key("hello"), "{}");
    let mut streamed = bench.door.stream(call).await.expect("it begins");
    assert_eq!(streamed.content_type(), None);
    assert_eq!(streamed.next().await, None);
    let Outcome::Returned(payload) = streamed.end().await.expect("in time").outcome else {
        panic!("it failed")
    };
    assert_eq!(payload, "[0,1]");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_what_it_streams() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    let call = testing::call(key("hello"), "\"stream\"");
    let mut streamed = bench.door.stream(call).await.expect("it begins");
    assert_eq!(streamed.next().await, Some(Bytes::from_static(b"one")));
    drop(streamed);
    bench.fakes.finish.add_permits(3);
    assert_eq!(bench.door.pool.drain(Duration::from_secs(10)).await, 0);
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 1);
    let usage = &bench.door.services.usage;
    assert_eq!(bench.door.hand_over_usage().await.expect("drains"), 1);
    let records = testing::records(usage).await;
    assert_eq!(records[0].bytes_out, 11 + 5);
}

#[tokio::test]
async fn a_streamed_invocation_that_panics_ends_its_answer() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    let call = testing::call(key("hello"), "\"panic\"");
    let error = bench.door.stream(call).await.expect_err("nothing has begun");
    assert_eq!(error.kind(), Kind::Internal);
    assert_eq!(bench.invoke("hello", "{}").await.expect("served"), "[1,1]");
}

#[tokio::test]
async fn a_streamed_call_of_nobody_is_refused_before_it_begins() {
    let bench = Bench::new().await;
    let error = bench.door.stream(testing::call(key("nobody"), "{}")).await.expect_err("unknown");
    assert_eq!(error.kind(), Kind::NotFound);
}
