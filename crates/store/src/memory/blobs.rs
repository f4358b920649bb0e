//! Blobs in memory.

use std::collections::HashMap;
use std::ops::Range;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use parking_lot::Mutex;

use lacewing_model::{AccountId, Digest};

use crate::blobs::LARGEST_READ;
use crate::{BlobAddress, Blobs, BoxFuture, ByteStream, Result, StoreError};

#[derive(Debug, Default)]
pub(super) struct MemoryBlobs(Mutex<HashMap<BlobAddress, Bytes>>);

impl Blobs for MemoryBlobs {
    fn put<'a>(
        &'a self,
        account: &'a AccountId,
        mut bytes: ByteStream,
    ) -> BoxFuture<'a, Result<(Digest, u64)>> {
        Box::pin(async move {
            let mut content = BytesMut::new();
            let failed = |error| StoreError::io("read the blob that was sent", error);
            while let Some(chunk) = bytes.try_next().await.map_err(failed)? {
                content.extend_from_slice(&chunk);
            }
            let hash = digest::digest(&digest::SHA256, &content);
            let hash: [u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
            let address = BlobAddress { account: account.clone(), digest: Digest::new(hash) };
            let (digest, length) = (address.digest, content.len() as u64);
            self.0.lock().insert(address, content.freeze());
            Ok((digest, length))
        })
    }

    fn get<'a>(
        &'a self,
        address: &'a BlobAddress,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let content = self.0.lock().get(address).cloned().ok_or(StoreError::NotFound)?;
            let length = content.len() as u64;
            let start = range.start.min(length);
            let end = range.end.clamp(start, length).min(start.saturating_add(LARGEST_READ));
            let index = |at: u64| usize::try_from(at).expect("it is at most the content's length");
            Ok(content.slice(index(start)..index(end)))
        })
    }

    fn stat<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move { Ok(self.0.lock().get(address).map(|content| content.len() as u64)) })
    }

    fn delete<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0.lock().remove(address);
            Ok(())
        })
    }
}
