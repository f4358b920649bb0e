//! What queues promise.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lacewing_model::{AccountId, Clock, Timestamp};
use lacewing_store::{Dedup, Depth, Load, Message, MessageId, Receipt, StoreError};

use crate::side::{Bed, account, key, large, prefix};

const HIDDEN: Duration = Duration::from_secs(30);
const NOW: Duration = Duration::ZERO;

fn message(body: &'static str) -> Message {
    Message { body: Bytes::from_static(body.as_bytes()), ..Message::default() }
}

fn grouped(body: &'static str, group: &str) -> Message {
    Message { group: Some(group.to_owned()), ..message(body) }
}

async fn put(bed: &Bed, message: Message) -> MessageId {
    bed.store.queue.put(&key(&["q"]), message).await.expect("put")
}

async fn take(bed: &Bed, max: usize) -> Vec<Receipt> {
    bed.store.queue.take(&key(&["q"]), max, NOW, HIDDEN).await.expect("taken")
}

fn bodies(receipts: &[Receipt]) -> Vec<&str> {
    receipts.iter().map(|receipt| std::str::from_utf8(&receipt.body).expect("text")).collect()
}

async fn depth(bed: &Bed) -> Depth {
    bed.store.queue.depth(&key(&["q"])).await.expect("counted")
}

pub async fn messages_come_in_the_order_of_their_puts(bed: &Bed) {
    let mut ids = Vec::new();
    for body in ["a", "b", "c"] {
        ids.push(put(bed, message(body)).await);
    }
    bed.store.queue.put(&key(&["other"]), message("x")).await.expect("put");
    assert!(ids.is_sorted_by(|one, two| one < two));
    let taken = take(bed, 2).await;
    assert_eq!(bodies(&taken), ["a", "b"]);
    assert_eq!((taken[0].id, taken[0].attempts), (ids[0], 1));
    assert_eq!(bodies(&take(bed, 9).await), ["c"]);
    assert_eq!(take(bed, 9).await, []);
}

pub async fn a_hidden_message_comes_back_with_another_token(bed: &Bed) {
    put(bed, message("a")).await;
    let first = take(bed, 1).await.remove(0);
    bed.advance(29);
    assert_eq!(take(bed, 1).await, []);
    bed.advance(1);
    let second = take(bed, 1).await.remove(0);
    assert_eq!((second.id, second.attempts), (first.id, 2));
    assert_ne!(second.token, first.token);
    bed.store.queue.ack(&second).await.expect("acknowledged");
    bed.advance(100);
    assert_eq!(take(bed, 1).await, []);
}

pub async fn a_void_receipt_is_refused(bed: &Bed) {
    let queue = &bed.store.queue;
    put(bed, message("a")).await;
    let first = take(bed, 1).await.remove(0);
    queue.release(&first, NOW).await.expect("released");
    let second = take(bed, 1).await.remove(0);
    for refused in [
        queue.ack(&first).await,
        queue.extend(&first, HIDDEN).await,
        queue.release(&first, NOW).await,
    ] {
        assert!(matches!(refused, Err(StoreError::NotFound)));
    }
    // Late, but nobody else has it.
    bed.advance(60);
    queue.ack(&second).await.expect("acknowledged");
    assert!(matches!(queue.ack(&second).await, Err(StoreError::NotFound)));
}

pub async fn a_delayed_message_is_not_taken_early(bed: &Bed) {
    let not_before = Some(bed.clock.now().plus(Duration::from_secs(10)));
    put(bed, Message { not_before, ..message("late") }).await;
    put(bed, message("now")).await;
    assert_eq!(bodies(&take(bed, 9).await), ["now"]);
    bed.advance(9);
    assert_eq!(take(bed, 9).await, []);
    bed.advance(1);
    let taken = take(bed, 9).await;
    assert_eq!(bodies(&taken), ["late"]);
    bed.store.queue.release(&taken[0], Duration::from_secs(5)).await.expect("released");
    assert_eq!(take(bed, 9).await, []);
    bed.advance(5);
    assert_eq!(take(bed, 9).await[0].attempts, 2);
}

pub async fn an_extended_message_stays_hidden(bed: &Bed) {
    put(bed, message("a")).await;
    let receipt = take(bed, 1).await.remove(0);
    bed.advance(29);
    bed.store.queue.extend(&receipt, HIDDEN).await.expect("extended");
    bed.advance(29);
    assert_eq!(take(bed, 1).await, []);
    bed.advance(1);
    assert_eq!(bodies(&take(bed, 1).await), ["a"]);
}

pub async fn a_group_is_handed_out_one_at_a_time_and_in_order(bed: &Bed) {
    let queue = &bed.store.queue;
    for (body, group) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
        put(bed, grouped(body, group)).await;
    }
    put(bed, message("free")).await;
    let taken = take(bed, 9).await;
    assert_eq!(bodies(&taken), ["a1", "b1", "free"]);
    assert_eq!(take(bed, 9).await, []);
    queue.release(&taken[0], Duration::from_secs(5)).await.expect("released");
    assert_eq!(take(bed, 9).await, [], "a delayed message holds up its group");
    bed.advance(5);
    let again = take(bed, 9).await;
    assert_eq!(bodies(&again), ["a1"]);
    queue.ack(&again[0]).await.expect("acknowledged");
    let next = take(bed, 9).await;
    assert_eq!(bodies(&next), ["a2"]);
    bed.advance(30);
    let mut after = take(bed, 9).await;
    after.sort_by_key(|receipt| receipt.id);
    assert_eq!(bodies(&after), ["a2", "b1", "free"], "what was not acknowledged comes back");
    queue.ack(&after[0]).await.expect("acknowledged");
    assert_eq!(bodies(&take(bed, 9).await), ["a3"]);
}

pub async fn a_repeated_put_adds_nothing_within_the_window(bed: &Bed) {
    let call = || {
        let dedup = Dedup { id: "call".to_owned(), window: Duration::from_secs(10) };
        Message { dedup: Some(dedup), ..message("a") }
    };
    let first = put(bed, call()).await;
    assert_eq!(put(bed, call()).await, first);
    let taken = take(bed, 9).await;
    assert_eq!(taken.len(), 1);
    bed.store.queue.ack(&taken[0]).await.expect("acknowledged");
    assert_eq!(put(bed, call()).await, first, "also when the message is gone");
    assert_eq!(take(bed, 9).await, []);
    bed.advance(10);
    assert_ne!(put(bed, call()).await, first);
    assert_eq!(take(bed, 9).await.len(), 1);
}

pub async fn a_taker_waits_for_a_message(bed: &Bed) {
    let name = key(&["q"]);
    let wait = bed.store.queue.take(&name, 1, Duration::from_secs(10), HIDDEN);
    let late = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        put(bed, message("a")).await
    };
    let (taken, _) = tokio::join!(wait, late);
    assert_eq!(bodies(&taken.expect("taken")), ["a"]);
    let wait = Duration::from_millis(20);
    assert_eq!(bed.store.queue.take(&name, 1, wait, HIDDEN).await.expect("taken"), []);
}

pub async fn a_taker_wakes_when_a_delay_ends(bed: &Bed) {
    let not_before = Some(bed.clock.now().plus(Duration::from_millis(200)));
    put(bed, Message { not_before, ..message("a") }).await;
    let name = key(&["q"]);
    let wait = bed.store.queue.take(&name, 1, Duration::from_secs(10), HIDDEN);
    let pass = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        bed.clock.advance(Duration::from_millis(200));
    };
    let (taken, ()) = tokio::join!(wait, pass);
    assert_eq!(bodies(&taken.expect("taken")), ["a"]);
}

pub async fn depth_counts_each_message_once(bed: &Bed) {
    assert_eq!(depth(bed).await, Depth::default());
    let not_before = Some(bed.clock.now().plus(Duration::from_secs(10)));
    put(bed, Message { not_before, ..message("late") }).await;
    for body in ["a", "b", "c"] {
        put(bed, grouped(body, "g")).await;
    }
    take(bed, 9).await;
    assert_eq!(depth(bed).await, Depth { ready: 2, in_flight: 1, delayed: 1 });
    bed.advance(30);
    assert_eq!(depth(bed).await, Depth { ready: 4, in_flight: 0, delayed: 0 });
}

pub async fn a_purged_queue_is_empty_and_its_receipts_void(bed: &Bed) {
    for body in ["a", "b", "c"] {
        put(bed, grouped(body, "g")).await;
    }
    put(bed, Message { body: large(1), ..Message::default() }).await;
    let taken = take(bed, 1).await;
    assert_eq!(bed.store.queue.purge(&key(&["q"])).await.expect("purged"), 4);
    assert_eq!(depth(bed).await, Depth::default());
    assert!(matches!(bed.store.queue.ack(&taken[0]).await, Err(StoreError::NotFound)));
    put(bed, grouped("d", "g")).await;
    assert_eq!(bodies(&take(bed, 9).await), ["d"]);
}

pub async fn peek_takes_nothing(bed: &Bed) {
    let not_before = Some(bed.clock.now().plus(Duration::from_secs(10)));
    let first = put(bed, Message { not_before, ..grouped("a", "g") }).await;
    put(bed, message("b")).await;
    let peeked = bed.store.queue.peek(&key(&["q"]), 9).await.expect("peeked");
    assert_eq!(peeked.len(), 2);
    assert_eq!((peeked[0].id, peeked[0].attempts), (first, 0));
    assert_eq!((peeked[0].group.as_deref(), Some(peeked[0].due)), (Some("g"), not_before));
    assert_eq!((peeked[1].body.as_ref(), peeked[1].due), (&b"b"[..], bed.clock.now()));
    assert_eq!(bed.store.queue.peek(&key(&["q"]), 1).await.expect("peeked").len(), 1);
    assert_eq!(bodies(&take(bed, 9).await), ["b"]);
    assert_ne!(peeked[0].due, Timestamp::default());
}

pub async fn queues_that_hold_messages_are_listed(bed: &Bed) {
    let queue = &bed.store.queue;
    for name in ["b", "a", "c"] {
        queue.put(&key(&["async", name]), message("x")).await.expect("put");
    }
    put(bed, message("x")).await;
    let taken = queue.take(&key(&["async", "c"]), 1, NOW, HIDDEN).await.expect("taken");
    queue.ack(&taken[0]).await.expect("acknowledged");
    let listed = queue.queues(&prefix(&["async"])).await.expect("listed");
    assert_eq!(listed, [key(&["async", "a"]), key(&["async", "b"])]);
}

pub async fn a_large_body_comes_back_whole(bed: &Bed) {
    put(bed, Message { body: large(3), ..Message::default() }).await;
    put(bed, message("small")).await;
    let taken = take(bed, 9).await;
    assert_eq!(taken[0].body, large(3));
    bed.store.queue.ack(&taken[0]).await.expect("acknowledged");
    let peeked = bed.store.queue.peek(&key(&["q"]), 9).await.expect("peeked");
    assert_eq!(peeked.len(), 1);
}

pub async fn no_message_is_taken_twice_by_concurrent_takers(bed: &Bed) {
    join_all((0..200).map(|_| put(bed, message("x")))).await;
    let taker = async || {
        let mut ids = Vec::new();
        loop {
            let taken = take(bed, 7).await;
            if taken.is_empty() {
                return ids;
            }
            for receipt in taken {
                bed.store.queue.ack(&receipt).await.expect("acknowledged");
                ids.push(receipt.id);
            }
        }
    };
    let taken: Vec<MessageId> = join_all((0..4).map(|_| taker())).await.concat();
    assert_eq!(taken.len(), 200);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 200);
}

pub async fn what_an_account_has_in_its_queues_is_counted_and_bounded(bed: &Bed) {
    let queue = &bed.store.queue;
    let bound = Load { messages: 3, bytes: 400 * 1024 };
    let bounded = |body: Bytes| Message { body, within: Some(bound), ..Message::default() };
    let load = async || queue.load(&account()).await.expect("counted");
    queue.put(&key(&["one"]), bounded(large(1))).await.expect("put");
    let refused = queue.put(&key(&["two"]), bounded(large(2))).await;
    assert!(matches!(refused, Err(StoreError::OverLoad)), "too many bytes: {refused:?}");
    assert_eq!(queue.queues(&prefix(&[])).await.expect("listed"), [key(&["one"])]);
    for name in ["one", "two"] {
        queue.put(&key(&[name]), bounded("abc".into())).await.expect("put");
    }
    let full = Load { messages: 3, bytes: large(1).len() as u64 + 6 };
    assert_eq!(load().await, full);
    let dedup = Some(Dedup { id: "once".to_owned(), window: HIDDEN });
    let again = Message { dedup, ..bounded(Bytes::new()) };
    let refused = queue.put(&key(&["two"]), again.clone()).await;
    assert!(matches!(refused, Err(StoreError::OverLoad)), "too many messages: {refused:?}");
    // Others are not concerned.
    let stranger = AccountId::new("999999999999").expect("valid");
    let other = lacewing_store::Key::new(&stranger, &crate::side::region(), &["one"]);
    queue.put(&other, bounded("x".into())).await.expect("put");
    assert_eq!(load().await, full);
    let taken = queue.take(&key(&["one"]), 1, NOW, HIDDEN).await.expect("taken").remove(0);
    assert_eq!(load().await, full, "in flight, not gone");
    queue.ack(&taken).await.expect("acknowledged");
    queue.ack(&taken).await.expect_err("only once");
    assert_eq!(load().await, Load { messages: 2, bytes: 6 });
    let first = queue.put(&key(&["two"]), again.clone()).await.expect("there is room");
    assert_eq!(queue.put(&key(&["two"]), again).await.expect("known"), first);
    assert_eq!(load().await, Load { messages: 3, bytes: 6 });
    queue.purge(&key(&["two"])).await.expect("purged");
    assert_eq!(load().await, Load { messages: 1, bytes: 3 });
}
