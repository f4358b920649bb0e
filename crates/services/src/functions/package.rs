//! Zip archives of functions: checking them, and storing them before anything names them.

use std::io::Cursor;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::stream;
use lacewing_archive::{ArchiveError, Caps, inspect};
use lacewing_model::function::Code;
use lacewing_model::{AccountId, ByteSize, Digest, Error, Kind, Result, limits};

use super::{Functions, claims};

/// What an archive may be. Deflate cannot exceed 1,032 to 1; text of one line repeated comes close
/// to half of that, so that more only comes from an archive that was made for it.
const CAPS: Caps = Caps {
    packed: limits::ZIP_DIRECT.as_bytes(),
    unpacked: limits::UNZIPPED.as_bytes() - 1,
    entries: limits::ZIP_ENTRIES,
    depth: 64,
    ratio: 1_000,
};
/// Longest time a package may take to be stored: well below the time that a claim protects it.
const STORING: Duration = Duration::from_secs(600);

impl Functions {
    /// Checks an archive that is to replace `replaced` bytes of the account's code.
    pub(super) async fn check_package(
        &self,
        account: &AccountId,
        zip: Bytes,
        replaced: u64,
    ) -> Result<Code> {
        let size = u64::try_from(zip.len()).unwrap_or(u64::MAX);
        if size > CAPS.packed {
            return Err(worded(&ArchiveError::PackedTooLarge { cap: CAPS.packed }));
        }
        // Accounts are charged after the fact: requests at the same moment may exceed the quota by
        // what they carry, and the next one is refused.
        let stored = self.0.catalog.account_usage(account).code_size;
        let sum = stored.saturating_sub(ByteSize::bytes(replaced));
        if sum.saturating_add(ByteSize::bytes(size)) > self.0.code_storage {
            return Err(Error::new(Kind::StorageExceeded, "Code storage limit exceeded."));
        }
        let closed = |error| Error::internal("The package checks are closed.", error);
        let _permit = self.0.checks.acquire().await.map_err(closed)?;
        let check = move || {
            inspect(Cursor::new(&zip), &CAPS)?;
            let mut bytes = [0; 32];
            bytes.copy_from_slice(digest(&SHA256, &zip).as_ref());
            Ok(Digest::new(bytes))
        };
        let checked: Result<Digest, ArchiveError> = tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| Error::internal("Checking a package failed.", error))?;
        let digest = checked.map_err(|error| worded(&error))?;
        Ok(Code { digest, size })
    }

    /// Stores an archive durably, claimed so that nobody collects it before a record names it.
    pub(super) async fn store_package(
        &self,
        account: &AccountId,
        code: &Code,
        zip: Bytes,
    ) -> Result<()> {
        claims::claim(self, account, &code.digest).await?;
        let bytes = Box::pin(stream::once(std::future::ready(Ok(zip))));
        let put = self.0.store.blobs.put(account, bytes);
        let late = |_| Error::new(Kind::Unavailable, "The code could not be stored in time.");
        let (digest, size) = tokio::time::timeout(STORING, put).await.map_err(late)??;
        if digest != code.digest || size != code.size {
            return Err(Error::internal("A package was stored wrongly.", digest.to_string()));
        }
        Ok(())
    }
}

/// The refusal of an archive in the words that clients know.
fn worded(error: &ArchiveError) -> Error {
    let (kind, message) = match error {
        ArchiveError::PackedTooLarge { cap } => {
            (Kind::RequestTooLarge, format!("Zipped size must be smaller than {cap} bytes"))
        }
        ArchiveError::TooLarge { .. } | ArchiveError::RatioTooHigh { .. } => {
            let most = limits::UNZIPPED.as_bytes();
            (Kind::Invalid, format!("Unzipped size must be smaller than {most} bytes"))
        }
        ArchiveError::Io { .. } => (Kind::Internal, "Internal error.".to_owned()),
        _ => {
            let message = "Could not unzip uploaded file. Please check your file, then try to \
                           upload again.";
            (Kind::Invalid, format!("{message} ({})", sentence(&error.to_string())))
        }
    };
    Error::new(kind, message).with_internal(error.to_string())
}

/// A cause as a sentence that is printable and of bounded length, whatever the archive's names are.
fn sentence(cause: &str) -> String {
    const SHOWN: usize = 400;
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut chars = cause.chars().map(printable);
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    let mut text: String = first.into_iter().chain(chars.by_ref().take(SHOWN)).collect();
    text.push_str(if chars.next().is_some() { "..." } else { "." });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_archive_is_told_with_its_cause() {
        let name = || "a\u{1b}[31m\n".to_owned();
        let duplicate = worded(&ArchiveError::Duplicate { name: name() });
        assert_eq!(duplicate.kind(), Kind::Invalid);
        assert_eq!(
            duplicate.public(),
            "Could not unzip uploaded file. Please check your file, then try to upload again. \
             (The path \"a\\u{1b}[31m\\n\" occurs twice, which Lacewing does not accept.)"
        );
        let broken = worded(&ArchiveError::Broken { reason: name() });
        assert!(broken.public().chars().all(|c| !c.is_control()), "{}", broken.public());
        assert!(!worded(&ArchiveError::TooLarge { cap: 1 }).public().contains('('));
    }

    #[test]
    fn a_long_cause_is_cut() {
        let error = worded(&ArchiveError::Broken { reason: "x".repeat(5_000) });
        assert!(error.public().len() < 550 && error.public().ends_with("x...)"), "{error}");
    }
}
