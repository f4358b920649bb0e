//! Tests of `events`.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use proptest::prelude::*;

use lacewing_model::usage::Trigger;
use lacewing_model::{Qualifier, RequestId};
use lacewing_store::queue::Depth;

use super::*;
use crate::background;
use crate::door::tests::{Bench, key};
use crate::testing;

fn event(name: &str, payload: &str) -> Invocation {
    Invocation { trigger: Trigger::Async, ..testing::call(key(name), payload) }
}

async fn depth(bench: &Bench, name: &str) -> Depth {
    bench.store.queue.depth(&queue_of(&key(name))).await.expect("counts")
}

async fn until_depth(bench: &Bench, name: &str, wanted: Depth) {
    let wait = async {
        while depth(bench, name).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(15), wait).await;
    assert!(in_time.is_ok(), "{:?} instead of {wanted:?}", depth(bench, name).await);
}

fn start_worker(bench: &Bench) {
    let (door, stop) = (bench.door.clone(), bench.stop.clone());
    bench.tasks.spawn(async move { run_worker(door, &stop).await });
}

const NOTHING: Depth = Depth { ready: 0, in_flight: 0, delayed: 0 };

#[tokio::test]
async fn an_event_is_served_once_and_acknowledged() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    start_worker(&bench);
    let event = event("hello", "{}");
    let id = bench.door.enqueue(event.clone()).await.expect("taken");
    assert_eq!(id, event.request_id);
    until_depth(&bench, "hello", NOTHING).await;
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 1);
    bench.door.hand_over_usage().await.expect("drains");
    let usage = &bench.door.services.usage;
    let records = testing::records(usage).await;
    assert_eq!((records[0].request_id, records[0].trigger), (id, Trigger::Async));
}

#[tokio::test]
async fn events_of_a_former_process_are_found() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    for _ in 0..20 {
        bench.door.enqueue(event("hello", "{}")).await.expect("taken");
    }
    // A worker that starts anew was told of nothing.
    bench.door.events.fresh.lock().clear();
    start_worker(&bench);
    until_depth(&bench, "hello", NOTHING).await;
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn an_event_that_failed_by_our_fault_is_put_off_not_lost() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    bench.fakes.start_fails.store(true, Ordering::SeqCst);
    start_worker(&bench);
    bench.door.enqueue(event("hello", "{}")).await.expect("taken");
    until_depth(&bench, "hello", Depth { delayed: 1, ..NOTHING }).await;
    bench.fakes.start_fails.store(false, Ordering::SeqCst);
    until_depth(&bench, "hello", NOTHING).await;
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 1);
    bench.door.enqueue(event("hello", "\"fault\"")).await.expect("taken");
    until_depth(&bench, "hello", Depth { delayed: 1, ..NOTHING }).await;
}

#[tokio::test]
async fn events_of_a_deleted_function_are_dropped() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    bench.door.enqueue(event("hello", "{}")).await.expect("taken");
    bench.door.services.functions.delete(&key("hello")).await.expect("deleted");
    start_worker(&bench);
    until_depth(&bench, "hello", NOTHING).await;
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_account_with_full_queues_is_refused_by_its_bound_until_events_are_done() {
    let bound = Load { messages: 3, bytes: 1 << 20 };
    let bench = Bench::with(|options| options.events = bound).await;
    for name in ["one", "two"] {
        bench.create(name).await;
        bench.door.enqueue(event(name, "{}")).await.expect("taken");
    }
    let payload = format!("\"{}\"", "x".repeat(1 << 20).split_at(3).1);
    let refused = bench.door.enqueue(event("one", &payload)).await.expect_err("too many bytes");
    assert_eq!(refused.kind(), Kind::Throttled(Throttle::CallerRate));
    assert!(refused.public().contains("3 events and 1 MB"), "{refused}");
    assert!(refused.retry_after().is_some());
    bench.door.enqueue(event("one", "{}")).await.expect("taken");
    bench.door.enqueue(event("two", "{}")).await.expect_err("too many events");
    bench.invoke("two", "{}").await.expect("a call keeps nothing");
    start_worker(&bench);
    until_depth(&bench, "one", NOTHING).await;
    until_depth(&bench, "two", NOTHING).await;
    bench.door.enqueue(event("two", "{}")).await.expect("there is room again");
}

#[tokio::test]
async fn a_slow_function_does_not_hold_up_another() {
    let bench = Bench::new().await;
    bench.create("slow").await;
    bench.create("quick").await;
    for _ in 0..100 {
        bench.door.enqueue(event("slow", "\"wait\"")).await.expect("taken");
    }
    start_worker(&bench);
    until_depth(&bench, "slow", Depth { ready: 68, in_flight: 32, delayed: 0 }).await;
    bench.door.enqueue(event("quick", "{}")).await.expect("taken");
    until_depth(&bench, "quick", NOTHING).await;
    bench.fakes.finish.add_permits(100);
    until_depth(&bench, "slow", NOTHING).await;
    assert_eq!(bench.fakes.served.load(Ordering::SeqCst), 101);
}

#[tokio::test]
async fn a_drain_waits_until_events_in_flight_are_acknowledged() {
    let bench = Bench::new().await;
    bench.create("hello").await;
    start_worker(&bench);
    bench.door.enqueue(event("hello", "\"wait\"")).await.expect("taken");
    until_depth(&bench, "hello", Depth { in_flight: 1, ..NOTHING }).await;
    while bench.door.pool.counts().busy == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.fakes.finish.add_permits(1);
    assert_eq!(background::drain(&bench.door, Duration::from_secs(10)).await, 0);
    assert_eq!(depth(&bench, "hello").await, NOTHING);
    bench.door.enqueue(event("hello", "{}")).await.expect("still kept");
    assert_eq!(depth(&bench, "hello").await, Depth { ready: 1, ..NOTHING });
}

#[test]
fn the_queue_names_the_function() {
    let hello = key("hello");
    assert_eq!(function_of(&queue_of(&hello)), Some(hello.clone()));
    let other = Key::new(&hello.account, &hello.region, &["other", "hello"]);
    assert_eq!(function_of(&other), None);
    assert_eq!(function_of(&Key::global(&[SEGMENT, "hello"])), None);
}

proptest! {
    #[test]
    fn an_event_survives_its_stored_form(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        qualifier in prop::option::of(Just(Qualifier::Latest)),
        trace in prop::option::of("\\PC{0,40}"),
        at in 0..2_000_000_000_i64,
    ) {
        let call = Invocation {
            request_id: RequestId::random(),
            payload: Bytes::from(payload),
            qualifier,
            trace,
            ..event("hello", "")
        };
        let now = Timestamp::from_seconds(at);
        let stored = envelope::encode(&call, now).expect("encodes");
        let (read, accepted) = envelope::decode(key("hello"), &stored).expect("decodes");
        prop_assert_eq!(read.request_id, call.request_id);
        prop_assert_eq!(read.payload, call.payload);
        prop_assert_eq!((read.qualifier, read.trace), (call.qualifier, call.trace));
        prop_assert_eq!((read.trigger, accepted), (Trigger::Async, now));
    }

    #[test]
    fn a_hostile_stored_form_is_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        prop_assert!(envelope::decode(key("hello"), &Bytes::from(bytes)).is_err());
    }
}
