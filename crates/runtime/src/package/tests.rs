//! One unpacking for many callers, and an eviction that leaves alone what is used.

use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use lacewing_model::SystemClock;
use lacewing_store::Store;

use super::*;

fn account() -> AccountId {
    AccountId::new("000000000000").expect("valid")
}

fn store() -> Store {
    lacewing_store::memory::open(Arc::new(SystemClock))
}

/// A stored zip archive with one file without compression, written by hand.
async fn put(store: &Store, name: &str, content: &[u8]) -> Code {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(name), content).expect("a file");
    let mut archive = io::Cursor::new(Vec::new());
    lacewing_archive::pack(directory.path(), &[name.into()], &mut archive, &mut |_| {})
        .expect("an archive");
    let bytes = bytes::Bytes::from(archive.into_inner());
    let size = bytes.len() as u64;
    let stream = stream::once(async move { Ok(bytes) }).boxed();
    let (digest, stored) = store.blobs.put(&account(), stream).await.expect("stored");
    assert_eq!(stored, size);
    Code { digest, size }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("it").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn many_callers_share_one_unpacking() {
    let root = tempfile::tempdir().expect("a directory");
    let store = store();
    let packages = Packages::open(root.path().join("code"), store.blobs.clone()).expect("open");
    let code = put(&store, "app.py", b"x = 1\n").await;
    let account = account();
    let all = futures_util::future::join_all((0..8).map(|_| packages.get(&account, code))).await;
    let first = all[0].as_ref().expect("unpacked");
    for package in &all {
        assert!(Arc::ptr_eq(first, package.as_ref().expect("unpacked")));
    }
    assert_eq!(fs::read(first.directory().join("app.py")).expect("a file"), b"x = 1\n");
    assert_eq!(names(&root.path().join("code")), [code.digest.to_string()]);
}

#[tokio::test]
async fn a_failed_unpacking_leaves_nothing_and_can_be_repeated() {
    let root = tempfile::tempdir().expect("a directory");
    let store = store();
    let packages = Packages::open(root.path().join("code"), store.blobs.clone()).expect("open");
    let good = put(&store, "app.py", b"").await;
    let bytes = bytes::Bytes::from_static(b"no archive");
    let stream = stream::once(async move { Ok(bytes) }).boxed();
    let (digest, size) = store.blobs.put(&account(), stream).await.expect("stored");
    for _ in 0..2 {
        packages.get(&account(), Code { digest, size }).await.expect_err("no archive");
    }
    let absent = Code { digest: Digest::new([9; 32]), size: 10 };
    let lost = packages.get(&account(), absent).await.expect_err("no such blob");
    assert_eq!(lost.kind(), lacewing_model::Kind::Internal, "no fault of the caller's");
    assert!(lost.chain().contains(&absent.digest.to_string()), "{lost:?}");
    packages.get(&account(), good).await.expect("unpacked");
    assert_eq!(names(&root.path().join("code")), [good.digest.to_string()]);
}

#[tokio::test]
async fn what_a_dead_server_left_is_removed() {
    let root = tempfile::tempdir().expect("a directory");
    let left = root.path().join("code").join(".tmp-7").join("tree");
    fs::create_dir_all(&left).expect("a directory");
    fs::File::create(left.join("half")).and_then(|mut file| file.write_all(b"x")).expect("a file");
    let packages = Packages::open(root.path().join("code"), store().blobs).expect("open");
    assert!(names(&packages.directory).is_empty());
}

#[tokio::test]
async fn the_least_recently_used_goes_but_never_what_is_held() {
    let root = tempfile::tempdir().expect("a directory");
    let store = store();
    let mut packages = Packages::open(root.path().join("code"), store.blobs.clone()).expect("open");
    packages.capacity = 2_500;
    let mut codes = Vec::new();
    for number in 0..4_u8 {
        codes.push(put(&store, "data", &[number; 1_000]).await);
    }
    let held = packages.get(&account(), codes[0]).await.expect("unpacked");
    for code in &codes[1..] {
        packages.get(&account(), *code).await.expect("unpacked");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut expected = vec![codes[0].digest.to_string(), codes[3].digest.to_string()];
    let mut found = names(&packages.directory);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(held.directory().join("data").exists());
    packages.get(&account(), codes[1]).await.expect("unpacked again");
}
