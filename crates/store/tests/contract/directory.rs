//! What the data directory promises: one server at a time, no newer format, no loss when it is full.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use lacewing_store::{Expect, Load, Message, Store, StoreError, embedded};

use crate::blobs::chunks;
use crate::side::{account, clock, data_dir, key, large, mounted, prefix};

fn open(dir: &Path) -> Store {
    embedded::open(dir, clock()).expect("opens")
}

#[tokio::test]
async fn a_second_store_on_the_same_directory_is_refused_until_the_first_closes() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = open(dir.path());
    let refused = embedded::open(dir.path(), clock()).expect_err("it is in use");
    assert!(matches!(&refused, StoreError::Locked { path } if path == dir.path()));
    assert!(refused.to_string().contains(dir.path().to_str().expect("text")));
    first.clone().close().await;
    open(dir.path()).close().await;
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut watch = store
        .records
        .watch(&lacewing_store::Prefix::all(), lacewing_store::Revision::ZERO)
        .await
        .expect("watched");
    store.clone().close().await;
    let name = key(&["a"]);
    assert!(matches!(store.records.get(&name).await, Err(StoreError::Closed)));
    let put = store.queue.put(&name, Message::default()).await;
    assert!(matches!(put, Err(StoreError::Closed)));
    let stored = store.blobs.put(&account(), chunks(vec![])).await;
    assert!(matches!(stored, Err(StoreError::Closed)));
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().expect("a directory");
    open(dir.path()).close().await;
    assert_eq!(fs::read_to_string(dir.path().join("format")).expect("read"), "2\n");
    fs::write(dir.path().join("format"), "99\n").expect("written");
    let refused = embedded::open(dir.path(), clock()).expect_err("it is too new");
    assert!(matches!(refused, StoreError::FormatTooNew { found: 99, known: 2 }));
    assert!(refused.to_string().contains("99"));
}

#[tokio::test]
async fn what_was_written_is_there_after_closing_and_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let revision = store.records.put(&key(&["a"]), large(1), Expect::Any).await.expect("written");
    store.close().await;
    let store = open(dir.path());
    let record = store.records.get(&key(&["a"])).await.expect("read").expect("there");
    assert_eq!((record.value, record.revision), (large(1), revision));
    assert_eq!(store.records.revision().await.expect("read"), revision);
    store.close().await;
}

#[tokio::test]
async fn what_queues_and_streams_hold_is_known_after_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for body in [Bytes::from_static(b"abc"), large(1)] {
        let message = Message { body: body.clone(), ..Message::default() };
        store.queue.put(&key(&["q"]), message).await.expect("put");
        store.log.append(&key(&["s"]), vec![body], None).await.expect("appended");
    }
    store.close().await;
    let store = open(dir.path());
    let bytes = 3 + large(1).len() as u64;
    let load = store.queue.load(&account()).await.expect("counted");
    assert_eq!(load, Load { messages: 2, bytes });
    let weights = store.log.weigh(&prefix(&[])).await.expect("weighed");
    assert_eq!(weights, [(key(&["s"]), bytes)]);
    store.close().await;
}

#[tokio::test]
async fn files_that_nobody_needs_are_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let count = |name: &str| fs::read_dir(dir.path().join(name)).expect("a directory").count();
    for fill in 0..3 {
        store.records.put(&key(&["a"]), large(fill), Expect::Any).await.expect("written");
    }
    store.records.put(&key(&["a"]), large(9), Expect::Absent).await.expect_err("it is there");
    // The file of a value that was replaced goes after the answer.
    store.records.put(&key(&["b"]), Bytes::new(), Expect::Any).await.expect("written");
    assert_eq!(count("values"), 1);
    store.close().await;
    fs::write(dir.path().join("values/left"), "x").expect("written");
    fs::write(dir.path().join("tmp/left"), "x").expect("written");
    open(dir.path()).close().await;
    assert_eq!((count("values"), count("tmp")), (1, 0));
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let Some(mounted) = mounted() else { return };
    let dir = data_dir(&mounted);
    let store = open(&dir);
    mounted.set_free(2 << 20);
    let mut written = 0_u32;
    let refused = loop {
        let value = vec![written as u8; 100 * 1024].into();
        let name = key(&["r", &written.to_string()]);
        match store.records.put(&name, value, Expect::Absent).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full), "{refused:?}");
    assert!((1..40).contains(&written), "{written} records");
    let blob = vec![vec![0; 3 << 20].into()];
    let stored = store.blobs.put(&account(), chunks(blob)).await;
    assert!(matches!(stored, Err(StoreError::Full)), "{stored:?}");
    let spilled = store.records.put(&key(&["s"]), vec![0; 3 << 20].into(), Expect::Any).await;
    assert!(matches!(spilled, Err(StoreError::Full)), "{spilled:?}");
    mounted.set_free(64 << 20);
    store.records.put(&key(&["after"]), Bytes::new(), Expect::Any).await.expect("there is room");
    store.close().await;
    let store = open(&dir);
    for at in 0..written {
        let record = store.records.get(&key(&["r", &at.to_string()])).await.expect("read");
        assert_eq!(record.expect("there").value, vec![at as u8; 100 * 1024]);
    }
    assert!(store.records.get(&key(&["after"])).await.expect("read").is_some());
    store.close().await;
}
