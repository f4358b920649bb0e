//! Blobs: large immutable values, addressed by account and SHA-256, so that one tenant cannot find
//! out what another has stored.

use std::fmt;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use lacewing_model::{AccountId, Digest};

use crate::{BoxFuture, Result};

/// Most bytes that one [`Blobs::get`] answers.
pub const LARGEST_READ: u64 = 8 * 1024 * 1024;

/// Names one blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobAddress {
    /// The tenant.
    pub account: AccountId,
    /// SHA-256 of the content.
    pub digest: Digest,
}

/// The content of a blob on its way into the store.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Large immutable values.
pub trait Blobs: fmt::Debug + Send + Sync {
    /// Stores the stream's content and answers its digest and length. When this returns, the blob
    /// survives a loss of power. Storing the same content again changes nothing. A stream that
    /// fails leaves nothing behind.
    fn put<'a>(
        &'a self,
        account: &'a AccountId,
        bytes: ByteStream,
    ) -> BoxFuture<'a, Result<(Digest, u64)>>;

    /// Reads a range, at most [`LARGEST_READ`] bytes of it and never beyond the blob's end.
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if there is no such blob.
    fn get<'a>(
        &'a self,
        address: &'a BlobAddress,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>>;

    /// The blob's length, or `None` if there is no such blob.
    fn stat<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<Option<u64>>>;

    /// Deletes the blob; one that is not there is deleted already.
    fn delete<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<()>>;
}
