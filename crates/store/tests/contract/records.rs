//! What records promise.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lacewing_store::{Change, Expect, Prefix, Records, Revision, StoreError, Watch};
use tokio::time::timeout;

use crate::side::{Bed, key, large, prefix};

async fn put(bed: &Bed, path: &[&str], value: &'static str) -> Revision {
    let value = Bytes::from_static(value.as_bytes());
    bed.store.records.put(&key(path), value, Expect::Any).await.expect("written")
}

async fn next(watch: &mut Watch) -> Change {
    timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("a change")
}

pub async fn a_record_is_read_back_as_written(bed: &Bed) {
    let records = &bed.store.records;
    let name = key(&["a", "b/c"]);
    assert_eq!(records.get(&name).await.expect("read"), None);
    let revision = put(bed, &["a", "b/c"], "value").await;
    let record = records.get(&name).await.expect("read").expect("there");
    assert_eq!((record.key, record.revision), (name, revision));
    assert_eq!(record.value, "value");
}

pub async fn a_change_needs_what_it_expects(bed: &Bed) {
    let records = &bed.store.records;
    let name = key(&["a"]);
    let one = records.put(&name, "1".into(), Expect::Absent).await.expect("absent");
    let refused = records.put(&name, "2".into(), Expect::Absent).await;
    assert!(matches!(refused, Err(StoreError::Conflict { current: Some(at) }) if at == one));
    let two = records.put(&name, "2".into(), Expect::Revision(one)).await.expect("it is at one");
    let refused = records.delete(&name, Expect::Revision(one)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { current: Some(at) }) if at == two));
    assert_eq!(records.get(&name).await.expect("read").expect("there").value, "2");
    let other = records.put(&key(&["b"]), "".into(), Expect::Revision(one)).await;
    assert!(matches!(other, Err(StoreError::Conflict { current: None })));
    records.delete(&name, Expect::Revision(two)).await.expect("it is at two");
    records.put(&name, "3".into(), Expect::Absent).await.expect("absent again");
}

pub async fn a_deletion_needs_a_record(bed: &Bed) {
    let refused = bed.store.records.delete(&key(&["a"]), Expect::Any).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
}

pub async fn revisions_only_grow(bed: &Bed) {
    let records = &bed.store.records;
    let mut last = records.revision().await.expect("read");
    for round in 0..20 {
        let name = key(&[["a", "b", "c"][round % 3]]);
        let revision = match records.get(&name).await.expect("read") {
            Some(_) if round % 2 == 0 => records.delete(&name, Expect::Any).await,
            _ => records.put(&name, "x".into(), Expect::Any).await,
        };
        let revision = revision.expect("changed");
        assert!(revision > last, "{revision:?} after {last:?}");
        assert_eq!(records.revision().await.expect("read"), revision);
        last = revision;
    }
}

pub async fn a_list_is_in_byte_order_and_paged(bed: &Bed) {
    for name in ["b", "a", "B", "a/x", "é", "aa", ""] {
        put(bed, &["list", name], "x").await;
    }
    put(bed, &["lis", "z"], "x").await;
    put(bed, &["listing", "z"], "x").await;
    let records = &bed.store.records;
    let all = records.list(&prefix(&["list"]), None, 100).await.expect("listed");
    let names: Vec<_> = all.iter().map(|record| record.key.segments()[1].clone()).collect();
    // The order is that of the escaped text, in which an empty name and "é" begin with '%'.
    assert_eq!(names, ["", "é", "B", "a", "a/x", "aa", "b"]);
    let mut paged = Vec::new();
    while let page = records.list(&prefix(&["list"]), paged.last(), 2).await.expect("listed")
        && !page.is_empty()
    {
        paged.extend(page.into_iter().map(|record| record.key));
    }
    assert_eq!(paged, all.into_iter().map(|record| record.key).collect::<Vec<_>>());
}

pub async fn a_large_value_comes_back_whole(bed: &Bed) {
    let records = &bed.store.records;
    let name = key(&["large"]);
    for fill in 0..3 {
        records.put(&name, large(fill), Expect::Any).await.expect("written");
        assert_eq!(records.get(&name).await.expect("read").expect("there").value, large(fill));
    }
    let refused = records.put(&name, large(9), Expect::Absent).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    let listed = records.list(&prefix(&[]), None, 10).await.expect("listed");
    assert_eq!(listed[0].value, large(2));
    let mut watch = records.watch(&Prefix::all(), Revision::ZERO).await.expect("watched");
    assert!(matches!(next(&mut watch).await, Change::Put(record) if record.value == large(2)));
    records.delete(&name, Expect::Any).await.expect("deleted");
    assert_eq!(records.get(&name).await.expect("read"), None);
}

pub async fn a_watch_from_the_beginning_tells_of_what_exists(bed: &Bed) {
    put(bed, &["a"], "1").await;
    put(bed, &["b"], "1").await;
    put(bed, &["a"], "2").await;
    bed.store.records.delete(&key(&["b"]), Expect::Any).await.expect("deleted");
    put(bed, &["c"], "1").await;
    let mut watch = bed.store.records.watch(&Prefix::all(), Revision::ZERO).await.expect("watched");
    let mut told = Vec::new();
    while told.last() != Some(&key(&["c"])) {
        let change = next(&mut watch).await;
        match &change {
            Change::Put(record) => told.push(record.key.clone()),
            // It may tell of the deletion of what it never told of.
            Change::Deleted { key, .. } => assert_eq!(*key, crate::side::key(&["b"])),
        }
    }
    assert_eq!(told, [key(&["a"]), key(&["c"])]);
}

pub async fn a_watch_tells_of_changes_in_order_and_of_its_prefix_only(bed: &Bed) {
    let records = &bed.store.records;
    let from = put(bed, &["mine", "before"], "x").await;
    let mut watch = records.watch(&prefix(&["mine"]), from).await.expect("watched");
    let write = async {
        for round in 0..50 {
            put(bed, &["mine", &(round % 5).to_string()], "x").await;
            put(bed, &["other", "x"], "x").await;
        }
        put(bed, &["mine", "end"], "x").await
    };
    let read = async {
        let (mut last, mut count) = (from, 0);
        loop {
            let change = next(&mut watch).await;
            assert!(change.revision() > last);
            assert!(prefix(&["mine"]).matches(change.key()));
            assert_ne!(*change.key(), key(&["mine", "before"]));
            (last, count) = (change.revision(), count + 1);
            if *change.key() == key(&["mine", "end"]) {
                return (last, count);
            }
        }
    };
    let (end, (last, count)) = tokio::join!(write, read);
    assert_eq!(last, end);
    assert!((6..=51).contains(&count), "{count} changes");
}

pub async fn a_watch_from_a_revision_tells_of_later_deletions(bed: &Bed) {
    let records = &bed.store.records;
    put(bed, &["a"], "1").await;
    let from = records.revision().await.expect("read");
    let deleted = records.delete(&key(&["a"]), Expect::Any).await.expect("deleted");
    put(bed, &["b"], "1").await;
    let mut watch = records.watch(&Prefix::all(), from).await.expect("watched");
    assert_eq!(next(&mut watch).await, Change::Deleted { key: key(&["a"]), revision: deleted });
    assert_eq!(*next(&mut watch).await.key(), key(&["b"]));
}

pub async fn a_watch_that_missed_forgotten_deletions_says_so(bed: &Bed) {
    let records = &bed.store.records;
    let from = put(bed, &["first"], "x").await;
    let mut late = records.watch(&Prefix::all(), from).await.expect("watched");
    // More deletions than any side remembers, with a margin for how often it forgets.
    for chunk in 0..22 {
        let names: Vec<_> = (0..500).map(|at| key(&["gone", &format!("{chunk}-{at}")])).collect();
        let churn = names.iter().map(|name| async move {
            records.put(name, Bytes::new(), Expect::Absent).await.expect("written");
            records.delete(name, Expect::Any).await.expect("deleted");
        });
        join_all(churn).await;
    }
    assert!(matches!(late.next().await, Err(StoreError::Gap)));
    assert!(matches!(late.next().await, Err(StoreError::Gap)), "it does not go on silently");
    let mut fresh = records.watch(&Prefix::all(), Revision::ZERO).await.expect("watched");
    assert_eq!(*next(&mut fresh).await.key(), key(&["first"]));
}

pub async fn concurrent_writers_do_not_overwrite_each_other(bed: &Bed) {
    let name = key(&["counter"]);
    let count_up = async || {
        for _ in 0..20 {
            while !count_once(&*bed.store.records, &name).await {}
        }
    };
    join_all((0..8).map(|_| count_up())).await;
    let record = bed.store.records.get(&name).await.expect("read").expect("there");
    assert_eq!(record.value, "160");
}

async fn count_once(records: &dyn Records, name: &lacewing_store::Key) -> bool {
    let (count, expect) = match records.get(name).await.expect("read") {
        Some(record) => {
            let text = std::str::from_utf8(&record.value).expect("text");
            (text.parse::<u32>().expect("a number"), Expect::Revision(record.revision))
        }
        None => (0, Expect::Absent),
    };
    match records.put(name, (count + 1).to_string().into(), expect).await {
        Ok(_) => true,
        Err(StoreError::Conflict { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}
