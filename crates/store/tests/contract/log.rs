//! What logs promise.

use std::time::Duration;

use bytes::Bytes;
use lacewing_model::{Clock, Timestamp};
use lacewing_store::{Dedup, Offset};

use crate::side::{Bed, key, large, prefix};

const NOW: Duration = Duration::ZERO;

async fn append(bed: &Bed, stream: &str, entries: &[&'static str]) -> u64 {
    let entries = entries.iter().map(|entry| Bytes::from_static(entry.as_bytes())).collect();
    bed.store.log.append(&key(&[stream]), entries, None).await.expect("appended").as_u64()
}

async fn read(bed: &Bed, stream: &str, from: u64) -> Vec<(u64, Bytes)> {
    let read = bed.store.log.read(&key(&[stream]), Offset::new(from), 100, NOW).await;
    read.expect("read").into_iter().map(|(at, _, entry)| (at.as_u64(), entry)).collect()
}

pub async fn entries_get_consecutive_offsets(bed: &Bed) {
    assert_eq!(append(bed, "s", &["a", "b"]).await, 0);
    assert_eq!(append(bed, "t", &["x"]).await, 0);
    assert_eq!(append(bed, "s", &["c"]).await, 2);
    let all = read(bed, "s", 0).await;
    assert_eq!(all, [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
    assert_eq!(read(bed, "s", 2).await, [(2, "c".into())]);
    assert_eq!(read(bed, "s", 3).await, []);
    let two = bed.store.log.read(&key(&["s"]), Offset::ZERO, 2, NOW).await.expect("read");
    assert_eq!(two.len(), 2);
    let offset = bed.store.log.append(&key(&["s"]), vec![large(7)], None).await.expect("appended");
    assert_eq!(read(bed, "s", offset.as_u64()).await, [(3, large(7))]);
}

pub async fn a_repeated_append_answers_the_first_offset(bed: &Bed) {
    append(bed, "s", &["before"]).await;
    let call = async |stream: &str| {
        let dedup = Dedup { id: "call".to_owned(), window: Duration::from_secs(10) };
        let appended = bed.store.log.append(&key(&[stream]), vec!["x".into()], Some(dedup)).await;
        appended.expect("appended").as_u64()
    };
    assert_eq!((call("s").await, call("s").await), (1, 1));
    assert_eq!(call("t").await, 0, "another stream knows nothing of it");
    bed.advance(9);
    assert_eq!(call("s").await, 1);
    bed.advance(1);
    assert_eq!(call("s").await, 2, "the window has ended");
    assert_eq!(read(bed, "s", 0).await.len(), 3);
}

pub async fn a_reader_waits_for_an_entry(bed: &Bed) {
    let stream = key(&["s"]);
    let wait = bed.store.log.read(&stream, Offset::ZERO, 10, Duration::from_secs(10));
    let late = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        append(bed, "s", &["a"]).await
    };
    let (found, _) = tokio::join!(wait, late);
    assert_eq!(found.expect("read").len(), 1);
    let wait = Duration::from_millis(20);
    let none = bed.store.log.read(&stream, Offset::new(1), 10, wait).await.expect("read");
    assert_eq!(none, []);
}

pub async fn trimmed_entries_are_gone_and_offsets_go_on(bed: &Bed) {
    append(bed, "s", &["a", "b", "c"]).await;
    bed.store.log.trim(&key(&["s"]), Offset::new(2)).await.expect("trimmed");
    assert_eq!(read(bed, "s", 0).await, [(2, "c".into())]);
    bed.store.log.trim(&key(&["s"]), Offset::new(99)).await.expect("trimmed");
    assert_eq!(read(bed, "s", 0).await, []);
    assert_eq!(append(bed, "s", &["d"]).await, 3);
    bed.store.log.trim(&key(&["none"]), Offset::new(9)).await.expect("nothing to do");
}

pub async fn old_entries_are_trimmed_by_time(bed: &Bed) {
    append(bed, "s", &["a"]).await;
    bed.advance(10);
    append(bed, "s", &["b"]).await;
    bed.store.log.trim_older(&key(&["s"]), bed.clock.now()).await.expect("trimmed");
    assert_eq!(read(bed, "s", 0).await, [(1, "b".into())]);
}

pub async fn streams_that_hold_entries_are_listed(bed: &Bed) {
    let log = &bed.store.log;
    for name in ["b", "a", "c"] {
        log.append(&key(&["logs", name]), vec!["x".into()], None).await.expect("appended");
    }
    append(bed, "other", &["x"]).await;
    log.trim(&key(&["logs", "c"]), Offset::new(1)).await.expect("trimmed");
    let listed = log.streams(&prefix(&["logs"])).await.expect("listed");
    assert_eq!(listed, [key(&["logs", "a"]), key(&["logs", "b"])]);
}

pub async fn times_never_decrease(bed: &Bed) {
    append(bed, "s", &["a", "b"]).await;
    let first = bed.clock.now();
    bed.advance(1);
    append(bed, "s", &["c"]).await;
    let read = bed.store.log.read(&key(&["s"]), Offset::ZERO, 9, NOW).await.expect("read");
    let times: Vec<Timestamp> = read.into_iter().map(|(_, at, _)| at).collect();
    assert_eq!(times, [first, first, bed.clock.now()]);
}

pub async fn a_stream_is_weighed_and_trimmed_by_its_bytes(bed: &Bed) {
    let (log, s) = (&bed.store.log, key(&["logs", "s"]));
    let weigh = async || log.weigh(&prefix(&["logs"])).await.expect("weighed");
    assert_eq!(weigh().await, []);
    let entries = vec!["aa".into(), "bbb".into(), large(7), "c".into()];
    log.append(&s, entries, None).await.expect("appended");
    append(bed, "other", &["x"]).await;
    let all = 6 + large(7).len() as u64;
    assert_eq!(weigh().await, [(s.clone(), all)]);
    assert_eq!(log.trim_to(&s, all).await.expect("nothing to do"), 0);
    assert_eq!(log.trim_to(&s, all - 1).await.expect("trimmed"), 2, "entries go whole");
    assert_eq!(weigh().await, [(s.clone(), all - 2)]);
    assert_eq!(log.trim_to(&s, 5).await.expect("trimmed"), all - 3);
    assert_eq!(weigh().await, [(s.clone(), 1)]);
    assert_eq!(log.append(&s, vec!["d".into()], None).await.expect("appended").as_u64(), 4);
    log.trim(&s, Offset::new(4)).await.expect("trimmed");
    assert_eq!(weigh().await, [(s.clone(), 1)]);
    assert_eq!(log.trim_to(&s, 0).await.expect("trimmed"), 1);
    assert_eq!(weigh().await, []);
    assert_eq!(log.trim_to(&key(&["none"]), 0).await.expect("nothing to do"), 0);
}
