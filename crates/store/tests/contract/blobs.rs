//! What blobs promise.

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use lacewing_model::AccountId;
use lacewing_store::{BlobAddress, ByteStream, StoreError};

use crate::side::{Bed, account};

pub fn chunks(chunks: Vec<Bytes>) -> ByteStream {
    stream::iter(chunks.into_iter().map(Ok)).boxed()
}

async fn put(bed: &Bed, content: Vec<Bytes>) -> (BlobAddress, u64) {
    let stored = bed.store.blobs.put(&account(), chunks(content)).await;
    let (digest, length) = stored.expect("stored");
    (BlobAddress { account: account(), digest }, length)
}

pub async fn a_blob_is_read_back_in_ranges(bed: &Bed) {
    let blobs = &bed.store.blobs;
    let (address, length) = put(bed, vec!["hello, ".into(), "".into(), "world".into()]).await;
    // From `printf 'hello, world' | sha256sum`.
    let digest = "09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b";
    assert_eq!((address.digest.to_string().as_str(), length), (digest, 12));
    assert_eq!(blobs.stat(&address).await.expect("looked"), Some(12));
    for (range, part) in [(0..12, "hello, world"), (7..9, "wo"), (7..99, "world"), (12..20, "")] {
        assert_eq!(blobs.get(&address, range).await.expect("read"), part);
    }
    assert_eq!(put(bed, vec!["hello, world".into()]).await.0, address);
    let (empty, length) = put(bed, vec![]).await;
    assert_eq!((blobs.stat(&empty).await.expect("looked"), length), (Some(0), 0));
    let (big, length) = put(bed, vec![vec![1; 5 << 20].into(), vec![2; 5 << 20].into()]).await;
    let read = blobs.get(&big, 0..length).await.expect("read");
    assert_eq!(read.len(), 8 << 20, "one read has a bound");
    assert_eq!((read[(5 << 20) - 1], read[5 << 20]), (1, 2));
}

pub async fn a_blob_of_another_account_is_not_there(bed: &Bed) {
    let (address, _) = put(bed, vec!["x".into()]).await;
    let other = AccountId::new("210987654321").expect("valid");
    let theirs = BlobAddress { account: other, ..address };
    assert_eq!(bed.store.blobs.stat(&theirs).await.expect("looked"), None);
    let read = bed.store.blobs.get(&theirs, 0..1).await;
    assert!(matches!(read, Err(StoreError::NotFound)));
}

pub async fn a_failed_stream_leaves_nothing(bed: &Bed) {
    let (address, _) = put(bed, vec!["half".into()]).await;
    bed.store.blobs.delete(&address).await.expect("deleted");
    let broken = vec![Ok(Bytes::from_static(b"half")), Err(io::Error::other("the caller left"))];
    let stored = bed.store.blobs.put(&account(), stream::iter(broken).boxed()).await;
    assert!(matches!(stored, Err(StoreError::Io { .. })));
    assert_eq!(bed.store.blobs.stat(&address).await.expect("looked"), None);
}

pub async fn a_deleted_blob_is_gone(bed: &Bed) {
    let (address, _) = put(bed, vec!["x".into()]).await;
    bed.store.blobs.delete(&address).await.expect("deleted");
    assert_eq!(bed.store.blobs.stat(&address).await.expect("looked"), None);
    bed.store.blobs.delete(&address).await.expect("deleted already");
}
