//! Calls that were acted upon, so that their repetition within the window does nothing.

use rusqlite::{OptionalExtension, params};

use crate::embedded::database::{from_db, to_db};
use crate::embedded::writer::{Batch, failed};
use crate::{Dedup, Result};

/// Expired calls that each new one clears away: more than one, so that they do not pile up.
const CLEARED: i64 = 4;

/// What was called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// An append to the stream with this row id.
    Append(i64),
    /// A put into the queue with this row id.
    Put(i64),
}

impl Call {
    fn parts(self) -> (i64, i64) {
        match self {
            Self::Append(stream) => (0, stream),
            Self::Put(queue) => (1, queue),
        }
    }

    /// What the same call answered before, if that is within its window.
    pub(super) fn recall(self, batch: &Batch<'_>, dedup: &Dedup) -> Result<Option<u64>> {
        let (kind, scope) = self.parts();
        batch
            .statement(
                "SELECT result FROM calls
                 WHERE kind = ?1 AND scope = ?2 AND id = ?3 AND expires > ?4",
            )?
            .query_row(params![kind, scope, dedup.id, batch.now().as_micros()], |row| row.get(0))
            .optional()
            .map(|result| result.map(from_db))
            .map_err(failed)
    }

    /// Notes what the call answers.
    pub(super) fn remember(self, batch: &Batch<'_>, dedup: &Dedup, result: u64) -> Result<()> {
        let (kind, scope) = self.parts();
        let now = batch.now();
        batch
            .statement(
                "DELETE FROM calls WHERE (kind, scope, id) IN
                 (SELECT kind, scope, id FROM calls WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
            )?
            .execute([now.as_micros(), CLEARED])
            .map_err(failed)?;
        batch
            .statement("INSERT OR REPLACE INTO calls VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                kind,
                scope,
                dedup.id,
                to_db(result),
                now.plus(dedup.window).as_micros()
            ])
            .map_err(failed)?;
        Ok(())
    }
}
