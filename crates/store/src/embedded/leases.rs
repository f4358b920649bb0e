//! Leases as rows. The token comes from a counter of the whole store, so it grows across releases.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use lacewing_model::Timestamp;

use crate::embedded::Shared;
use crate::embedded::database::to_db;
use crate::embedded::writer::{Writer, failed};
use crate::{BoxFuture, Key, Lease, Leases, Result, StoreError};

#[derive(Debug)]
pub(super) struct EmbeddedLeases {
    _shared: Arc<Shared>,
    writer: Writer,
}

impl EmbeddedLeases {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        Self { _shared: shared, writer }
    }
}

impl Leases for EmbeddedLeases {
    fn acquire<'a>(&'a self, name: &'a Key, ttl: Duration) -> BoxFuture<'a, Result<Option<Lease>>> {
        let name = name.clone();
        Box::pin(self.writer.write(move |batch| {
            let now = batch.now();
            let expires: Option<i64> = batch
                .statement("SELECT expires FROM leases WHERE name = ?1")?
                .query_row([name.as_str()], |row| row.get(0))
                .optional()
                .map_err(failed)?;
            if expires.is_some_and(|expires| Timestamp::from_micros(expires) > now) {
                return Ok(None);
            }
            let lease = Lease { token: batch.next_token(), expires: now.plus(ttl), name };
            batch
                .statement("INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3)")?
                .execute(params![
                    lease.name.as_str(),
                    to_db(lease.token),
                    lease.expires.as_micros()
                ])
                .map_err(failed)?;
            Ok(Some(lease))
        }))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Result<Lease>> {
        let Lease { name, token, .. } = lease.clone();
        Box::pin(self.writer.write(move |batch| {
            let now = batch.now();
            let expires = now.plus(ttl);
            let changed = batch
                .statement(
                    "UPDATE leases SET expires = ?3
                     WHERE name = ?1 AND token = ?2 AND expires > ?4",
                )?
                .execute(params![name.as_str(), to_db(token), expires.as_micros(), now.as_micros()])
                .map_err(failed)?;
            if changed == 0 {
                return Err(StoreError::NotFound);
            }
            Ok(Lease { name, token, expires })
        }))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        let Lease { name, token, .. } = lease.clone();
        Box::pin(self.writer.write(move |batch| {
            batch
                .statement("DELETE FROM leases WHERE name = ?1 AND token = ?2")?
                .execute(params![name.as_str(), to_db(token)])
                .map_err(failed)?;
            Ok(())
        }))
    }
}
