//! Records and queues against the simplest thing that could keep their promises.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::{Clock, Timestamp};
use lacewing_store::{
    Change, Dedup, Expect, Load, Message, MessageId, Prefix, Receipt, Revision, StoreError,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::side::{Bed, Embedded, Memory, Side, account, key, prefix};

const HIDDEN: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(7);

fn check<S: Side, T: std::fmt::Debug>(
    cases: u32,
    steps: impl Strategy<Value = Vec<T>>,
    run: &impl AsyncFn(&Bed, Vec<T>),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let bed = S::make().expect("a store");
            run(&bed, steps).await;
            bed.end().await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[derive(Clone, Debug)]
enum RecordStep {
    Put(u8, u8, Guess),
    Delete(u8, Guess),
    List(u8, usize),
    Watch,
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    Any,
    Absent,
    Right,
    Stale,
}

fn record_steps() -> impl Strategy<Value = Vec<RecordStep>> {
    let guess =
        prop_oneof![Just(Guess::Any), Just(Guess::Absent), Just(Guess::Right), Just(Guess::Stale)];
    let step = prop_oneof![
        4 => (0..6_u8, any::<u8>(), guess.clone()).prop_map(|(k, v, g)| RecordStep::Put(k, v, g)),
        2 => (0..6_u8, guess).prop_map(|(k, g)| RecordStep::Delete(k, g)),
        1 => (0..6_u8, 0..5_usize).prop_map(|(k, n)| RecordStep::List(k, n)),
        1 => Just(RecordStep::Watch),
    ];
    prop::collection::vec(step, 1..60)
}

async fn records_keep_their_promise(bed: &Bed, steps: Vec<RecordStep>) {
    let records = &bed.store.records;
    let mut model: BTreeMap<u8, (u8, Revision)> = BTreeMap::new();
    let mut watched: BTreeMap<u8, (u8, Revision)> = BTreeMap::new();
    let mut watch = records.watch(&Prefix::all(), Revision::ZERO).await.expect("watched");
    let mut told = Revision::ZERO;
    let name = |at: u8| key(&["r", &at.to_string()]);
    let mut last = Revision::ZERO;
    for step in steps {
        match step {
            RecordStep::Put(at, value, guess) => {
                let (expect, holds) = expectation(guess, model.get(&at));
                let put = records.put(&name(at), vec![value].into(), expect).await;
                match put {
                    Ok(revision) => {
                        assert!(holds && revision > last);
                        last = revision;
                        model.insert(at, (value, revision));
                    }
                    Err(StoreError::Conflict { current }) => {
                        assert!(!holds);
                        assert_eq!(current, model.get(&at).map(|(_, revision)| *revision));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            RecordStep::Delete(at, guess) => {
                let (expect, holds) = expectation(guess, model.get(&at));
                match records.delete(&name(at), expect).await {
                    Ok(revision) => {
                        assert!(holds && revision > last && model.remove(&at).is_some());
                        last = revision;
                    }
                    Err(StoreError::NotFound) => assert!(holds && !model.contains_key(&at)),
                    Err(StoreError::Conflict { .. }) => assert!(!holds),
                    Err(error) => panic!("{error}"),
                }
            }
            RecordStep::List(after, limit) => {
                let after_key = name(after);
                let listed = records.list(&prefix(&["r"]), Some(&after_key), limit).await;
                let listed = listed.expect("listed").into_iter();
                let listed: Vec<_> =
                    listed.map(|record| (record.value[0], record.revision)).collect();
                let expected: Vec<_> =
                    model.range(after + 1..).take(limit).map(|(_, state)| *state).collect();
                assert_eq!(listed, expected);
            }
            RecordStep::Watch => {
                while told < last {
                    let change = watch.next().await.expect("a change");
                    assert!(change.revision() > told);
                    told = change.revision();
                    let at = change.key().segments()[1].parse().expect("a number");
                    match change {
                        Change::Put(record) => {
                            watched.insert(at, (record.value[0], record.revision));
                        }
                        Change::Deleted { .. } => drop(watched.remove(&at)),
                    }
                }
                assert_eq!(watched, model);
            }
        }
    }
}

fn expectation(guess: Guess, current: Option<&(u8, Revision)>) -> (Expect, bool) {
    match (guess, current) {
        (Guess::Any, _) => (Expect::Any, true),
        (Guess::Absent, current) => (Expect::Absent, current.is_none()),
        (Guess::Right, Some((_, revision))) => (Expect::Revision(*revision), true),
        (Guess::Right | Guess::Stale, None) => (Expect::Revision(Revision::new(1)), false),
        (Guess::Stale, Some((_, revision))) => {
            (Expect::Revision(Revision::new(revision.as_u64() + 1_000_000)), false)
        }
    }
}

#[test]
fn records_in_memory_keep_their_promise() {
    check::<Memory, _>(256, record_steps(), &records_keep_their_promise);
}

#[test]
fn embedded_records_keep_their_promise() {
    check::<Embedded, _>(24, record_steps(), &records_keep_their_promise);
}

#[derive(Clone, Debug)]
enum QueueStep {
    Put { group: Option<u8>, delay: u64, dedup: Option<u8> },
    Take(usize),
    Ack(usize),
    Release(usize, u64),
    Extend(usize),
    Pass(u64),
}

fn queue_steps() -> impl Strategy<Value = Vec<QueueStep>> {
    let step = prop_oneof![
        4 => (prop::option::of(0..3_u8), 0..4_u64, prop::option::weighted(0.3, 0..3_u8))
            .prop_map(|(group, delay, dedup)| QueueStep::Put {
                group,
                delay: delay.saturating_sub(2),
                dedup
            }),
        4 => (0..4_usize).prop_map(QueueStep::Take),
        3 => (0..9_usize).prop_map(QueueStep::Ack),
        1 => (0..9_usize, 0..3_u64).prop_map(|(at, delay)| QueueStep::Release(at, delay)),
        1 => (0..9_usize).prop_map(QueueStep::Extend),
        2 => (1..6_u64).prop_map(QueueStep::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Debug)]
struct Held {
    id: MessageId,
    group: Option<u8>,
    due: Timestamp,
    attempts: u32,
    token: Option<u64>,
}

/// What a queue should do: messages in the order of their puts.
#[derive(Debug, Default)]
struct Expected {
    held: Vec<Held>,
    calls: HashMap<u8, (MessageId, Timestamp)>,
}

impl Expected {
    fn takeable(&self, now: Timestamp, max: usize) -> Vec<usize> {
        let is_first = |at: usize| {
            let group = self.held[at].group;
            group.is_none() || self.held[..at].iter().all(|earlier| earlier.group != group)
        };
        let mut due: Vec<usize> =
            (0..self.held.len()).filter(|at| self.held[*at].due <= now && is_first(*at)).collect();
        due.sort_by_key(|at| (self.held[*at].due, self.held[*at].id));
        due.truncate(max);
        due
    }

    fn position(&self, receipt: &Receipt) -> Option<usize> {
        self.held.iter().position(|held| held.id == receipt.id && held.token == Some(receipt.token))
    }
}

async fn queues_keep_their_promise(bed: &Bed, steps: Vec<QueueStep>) {
    let (queue, name) = (&bed.store.queue, key(&["q"]));
    let mut expected = Expected::default();
    let mut receipts: Vec<Receipt> = Vec::new();
    for step in steps {
        let now = bed.clock.now();
        match step {
            QueueStep::Put { group, delay, dedup } => {
                let due = now.plus(Duration::from_secs(delay));
                let message = Message {
                    body: Bytes::from(vec![group.unwrap_or(9)]),
                    not_before: (delay > 0).then_some(due),
                    group: group.map(|group| group.to_string()),
                    dedup: dedup.map(|id| Dedup { id: id.to_string(), window: WINDOW }),
                    within: None,
                };
                let id = queue.put(&name, message).await.expect("put");
                let before = dedup.and_then(|id| expected.calls.get(&id).copied());
                if let Some((first, _)) = before.filter(|(_, until)| *until > now) {
                    assert_eq!(id, first);
                    continue;
                }
                assert!(expected.held.last().is_none_or(|last| last.id < id));
                if let Some(dedup) = dedup {
                    expected.calls.insert(dedup, (id, now.plus(WINDOW)));
                }
                expected.held.push(Held { id, group, due, attempts: 0, token: None });
            }
            QueueStep::Take(max) => {
                let taken = queue.take(&name, max, Duration::ZERO, HIDDEN).await.expect("taken");
                let takeable = expected.takeable(now, max);
                let ids: Vec<_> = takeable.iter().map(|at| expected.held[*at].id).collect();
                assert_eq!(taken.iter().map(|receipt| receipt.id).collect::<Vec<_>>(), ids);
                for (at, receipt) in takeable.into_iter().zip(taken) {
                    let held = &mut expected.held[at];
                    held.attempts += 1;
                    assert_eq!(receipt.attempts, held.attempts);
                    assert_eq!(receipt.body[0], held.group.unwrap_or(9));
                    (held.token, held.due) = (Some(receipt.token), now.plus(HIDDEN));
                    receipts.push(receipt);
                }
            }
            QueueStep::Ack(at) => {
                let Some(receipt) = receipts.get(at) else { continue };
                let at = expected.position(receipt);
                assert_eq!(queue.ack(receipt).await.is_ok(), at.is_some());
                at.map(|at| expected.held.remove(at));
            }
            QueueStep::Release(at, delay) => {
                let Some(receipt) = receipts.get(at) else { continue };
                let at = expected.position(receipt);
                let delay = Duration::from_secs(delay);
                assert_eq!(queue.release(receipt, delay).await.is_ok(), at.is_some());
                if let Some(held) = at.and_then(|at| expected.held.get_mut(at)) {
                    (held.token, held.due) = (None, now.plus(delay));
                }
            }
            QueueStep::Extend(at) => {
                let Some(receipt) = receipts.get(at) else { continue };
                let at = expected.position(receipt);
                assert_eq!(queue.extend(receipt, HIDDEN).await.is_ok(), at.is_some());
                if let Some(held) = at.and_then(|at| expected.held.get_mut(at)) {
                    held.due = now.plus(HIDDEN);
                }
            }
            QueueStep::Pass(seconds) => bed.advance(seconds),
        }
        let depth = queue.depth(&name).await.expect("counted");
        let all = depth.ready + depth.in_flight + depth.delayed;
        assert_eq!(all, expected.held.len() as u64);
        let load = queue.load(&account()).await.expect("counted");
        assert_eq!(load, Load { messages: all, bytes: all }, "each body is one byte");
    }
}

#[test]
fn queues_in_memory_keep_their_promise() {
    check::<Memory, _>(256, queue_steps(), &queues_keep_their_promise);
}

#[test]
fn embedded_queues_keep_their_promise() {
    check::<Embedded, _>(24, queue_steps(), &queues_keep_their_promise);
}
