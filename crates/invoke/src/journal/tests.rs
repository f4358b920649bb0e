//! Tests of `journal`.

use std::io::Write;

use super::*;
use crate::testing::record;

fn read_all(path: &Path) -> (Vec<UsageRecord>, Option<Torn>) {
    let mut segment = Segment::open(path).expect("opens");
    let mut records = Vec::new();
    loop {
        let some = segment.next(3).expect("reads");
        if some.is_empty() {
            return (records, segment.torn());
        }
        records.extend(some.into_iter().map(|written| written.record));
    }
}

#[test]
fn what_was_appended_is_read_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(directory.path()).expect("opens");
    let records: Vec<_> = (0..10).map(record).collect();
    for record in &records {
        journal.append(record).expect("appends");
    }
    let closed = journal.rotate().expect("rotates");
    assert_eq!(closed.len(), 1);
    assert_eq!(read_all(&closed[0]), (records, None));
    assert_eq!(journal.rotate().expect("rotates"), closed, "an empty segment is not closed");
}

#[test]
fn what_a_dead_process_left_is_found_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let before = Journal::open(directory.path()).expect("opens");
    before.append(&record(1)).expect("appends");
    // A process that dies runs no destructor.
    std::mem::forget(before);
    let journal = Journal::open(directory.path()).expect("opens");
    let closed = journal.rotate().expect("rotates");
    let found: Vec<_> = closed.iter().flat_map(|path| read_all(path).0).collect();
    assert_eq!(found.iter().map(|record| record.at.as_seconds()).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_tail_that_is_torn_anywhere_costs_only_the_last_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let frames: Vec<_> =
        [record(1), record(2)].iter().map(|record| frame::encode(record).expect("json")).collect();
    let path = directory.path().join("x.usage");
    for cut in 1..frames[1].len() {
        let mut bytes = frames.concat();
        bytes.truncate(bytes.len() - cut);
        std::fs::write(&path, &bytes).expect("writes");
        let (records, torn) = read_all(&path);
        assert_eq!(records.len(), 1);
        let offset = u64::try_from(frames[0].len()).expect("small");
        let length = u64::try_from(frames[1].len() - cut).expect("small");
        assert_eq!(torn, Some(Torn { offset, bytes: length }));
    }
}

#[test]
fn garbage_is_reported_and_never_read_as_a_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.usage");
    let mut bytes = frame::encode(&record(1)).expect("json");
    for (place, flip) in [(0, 0x01), (3, 0x80), (5, 0x10), (20, 0x04)] {
        bytes[place] ^= flip;
        std::fs::write(&path, &bytes).expect("writes");
        let (records, torn) = read_all(&path);
        assert!(records.is_empty() && torn.is_some_and(|torn| torn.offset == 0));
        bytes[place] ^= flip;
    }
    bytes.extend_from_slice(&[0; 4_096]);
    std::fs::write(&path, &bytes).expect("writes");
    assert_eq!(read_all(&path).1.map(|torn| torn.bytes), Some(4_096));
}

#[tokio::test]
async fn records_become_durable_without_being_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(directory.path()).expect("opens");
    let first = journal.append(&record(1)).expect("appends");
    journal.rotate().expect("rotates");
    let second = journal.append(&record(2)).expect("appends");
    assert!(journal.synced(second, Duration::from_secs(60)).await);
    assert!(journal.synced(first, Duration::ZERO).await);
    let never = Position(second.0 + 1);
    assert!(!journal.synced(never, Duration::from_millis(250)).await);
}

#[test]
fn a_record_that_the_disk_does_not_take_is_counted_and_leaves_no_trace() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(directory.path()).expect("opens");
    journal.append(&record(1)).expect("appends");
    let path = journal.shared.active.lock().path.clone();
    let read_only = File::open(&path).expect("opens");
    let writable = std::mem::replace(&mut journal.shared.active.lock().file, Arc::new(read_only));
    assert!(matches!(journal.append(&record(2)), Err(JournalError::Append { .. })));
    assert_eq!(journal.lost(), 1);
    journal.shared.active.lock().file = writable;
    let (records, torn) = read_all(&path);
    assert_eq!((records.len(), torn), (1, None));
}

#[test]
fn a_full_journal_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(directory.path()).expect("opens");
    journal.shared.active.lock().bytes = LARGEST - 10;
    assert!(matches!(journal.append(&record(1)), Err(JournalError::Full)));
}

#[test]
fn files_of_others_in_the_directory_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut other = File::create(directory.path().join("README")).expect("creates");
    other.write_all(b"not ours").expect("writes");
    let journal = Journal::open(directory.path()).expect("opens");
    assert!(journal.rotate().expect("rotates").is_empty());
}
