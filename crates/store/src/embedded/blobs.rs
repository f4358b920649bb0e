//! Blobs as files: `<account>/<digest>`.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use tokio::io::AsyncWriteExt;

use lacewing_model::{AccountId, Digest};

use crate::blobs::LARGEST_READ;
use crate::embedded::Shared;
use crate::embedded::files::{self, Staging};
use crate::{BlobAddress, Blobs, BoxFuture, ByteStream, Result, StoreError};

#[derive(Debug)]
pub(super) struct EmbeddedBlobs {
    shared: Arc<Shared>,
    directory: PathBuf,
    staging: Staging,
}

impl EmbeddedBlobs {
    pub(super) fn open(dir: &Path, shared: Arc<Shared>) -> Result<Self> {
        let directory = files::ensure_directory(dir, "blobs")
            .map_err(|error| StoreError::io("open the blobs", error))?;
        Ok(Self { shared, directory, staging: Staging::of(dir) })
    }

    fn path(&self, address: &BlobAddress) -> PathBuf {
        self.directory.join(address.account.as_str()).join(address.digest.to_string())
    }

    /// Runs file operations where they hold up nobody.
    async fn blocking<T, F>(&self, operation: &'static str, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.shared.ensure_open()?;
        let outcome = tokio::task::spawn_blocking(act).await.map_err(|_| StoreError::Closed)?;
        outcome.map_err(|error| match error.kind() {
            ErrorKind::NotFound => StoreError::NotFound,
            _ => StoreError::io(operation, error),
        })
    }

    async fn write(&self, account: &AccountId, mut bytes: ByteStream) -> Result<(Digest, u64)> {
        const OPERATION: &str = "write a blob";
        let staging = self.staging.clone();
        let (staged, file) = self.blocking(OPERATION, move || staging.create()).await?;
        let mut file = tokio::fs::File::from_std(file);
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut length = 0;
        let refused = |error| StoreError::io("read the blob that was sent", error);
        let failed = |error| StoreError::io(OPERATION, error);
        while let Some(chunk) = bytes.try_next().await.map_err(refused)? {
            hash.update(&chunk);
            length += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        let file = file.into_std().await;
        let hash: [u8; 32] = hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        let digest = Digest::new(hash);
        let (parent, account) = (self.directory.clone(), account.clone());
        self.blocking(OPERATION, move || {
            let directory = files::ensure_directory(&parent, account.as_str())?;
            staged.publish(&file, &directory, &digest.to_string())
        })
        .await?;
        Ok((digest, length))
    }
}

impl Blobs for EmbeddedBlobs {
    fn put<'a>(
        &'a self,
        account: &'a AccountId,
        bytes: ByteStream,
    ) -> BoxFuture<'a, Result<(Digest, u64)>> {
        Box::pin(self.write(account, bytes))
    }

    fn get<'a>(
        &'a self,
        address: &'a BlobAddress,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>> {
        let path = self.path(address);
        Box::pin(self.blocking("read a blob", move || read(&path, range)))
    }

    fn stat<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<Option<u64>>> {
        let path = self.path(address);
        Box::pin(async move {
            match self.blocking("look for a blob", move || fs::metadata(path)).await {
                Ok(metadata) => Ok(Some(metadata.len())),
                Err(StoreError::NotFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn delete<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<()>> {
        let path = self.path(address);
        Box::pin(async move {
            let removed = self.blocking("delete a blob", move || {
                fs::remove_file(&path)?;
                files::sync_directory(path.parent().unwrap_or(&path))
            });
            match removed.await {
                Ok(()) | Err(StoreError::NotFound) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

fn read(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = range.start.min(length);
    let end = range.end.clamp(start, length).min(start.saturating_add(LARGEST_READ));
    let size = usize::try_from(end - start).map_err(io::Error::other)?;
    let mut content = BytesMut::zeroed(size);
    file.read_exact_at(&mut content, start)?;
    Ok(content.freeze())
}
