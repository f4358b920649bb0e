//! Connections to the database, its format, and the conversions between its numbers and ours.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::embedded::files;
use crate::{Result, StoreError};

const FILE: &str = "store.db";

/// What brings an older database up to date: the first entry makes format 1 of an empty one.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("loads.sql")];

/// The format that this program writes.
#[expect(clippy::cast_possible_truncation, reason = "there are few migrations")]
pub(super) const FORMAT: u32 = MIGRATIONS.len() as u32;

/// KiB of pages that a reader keeps. The writer has SQLite's own 2,000. Larger caches were measured
/// to save no time, for a page that is missing is read from the kernel's cache; but their pages are
/// never given back.
const READER_CACHE: u32 = 512;

/// Whether there is a database already.
pub(super) fn exists(dir: &Path) -> Result<bool> {
    fs::exists(dir.join(FILE)).map_err(|error| StoreError::io("look for the database", error))
}

/// Opens the database for writing; a new one is empty.
pub(super) fn open(dir: &Path) -> Result<Connection> {
    let failed = |error| StoreError::database("open the database", error);
    let connection = Connection::open(dir.join(FILE)).map_err(failed)?;
    // FULL: a commit is on the disk when it returns, in WAL mode too. MEMORY: temporary files would
    // be made outside the data directory, where the server may not write.
    let settings = "PRAGMA journal_mode = WAL;
                    PRAGMA synchronous = FULL;
                    PRAGMA wal_autocheckpoint = 4000;
                    PRAGMA journal_size_limit = 67108864;
                    PRAGMA temp_store = MEMORY;";
    connection.execute_batch(settings).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(128);
    files::sync_directory(dir).map_err(|error| StoreError::io("open the database", error))?;
    Ok(connection)
}

/// Opens another connection, for reading.
pub(super) fn open_reader(dir: &Path) -> Result<Connection> {
    let failed = |error| StoreError::database("open the database for reading", error);
    let connection = Connection::open(dir.join(FILE)).map_err(failed)?;
    let settings = format!(
        "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{READER_CACHE};"
    );
    connection.execute_batch(&settings).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Applies the migrations that the database has not seen, all or none.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<()> {
    let failed = |error| StoreError::database("migrate the database", error);
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let found: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if found > known {
        return Err(StoreError::FormatTooNew { found, known });
    }
    let transaction = connection.transaction().map_err(failed)?;
    for migration in migrations.iter().skip(found as usize) {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// A count of ours as the database keeps it.
pub(super) fn to_db(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A limit as the database takes it.
pub(super) fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count that the database kept.
pub(super) fn from_db(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> u32 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number")
    }

    #[test]
    fn an_older_database_gets_the_migrations_it_lacks() {
        let mut connection = Connection::open_in_memory().expect("opens");
        let first = "CREATE TABLE things (a)";
        migrate(&mut connection, &[first]).expect("migrated");
        connection.execute("INSERT INTO things VALUES (1)", []).expect("inserted");
        migrate(&mut connection, &[first, "ALTER TABLE things ADD b DEFAULT 2"]).expect("migrated");
        let pair: (u32, u32) = connection
            .query_row("SELECT a, b FROM things", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("a row");
        assert_eq!((pair, version(&connection)), ((1, 2), 2));
    }

    #[test]
    fn what_an_older_database_holds_is_weighed() {
        let mut connection = Connection::open_in_memory().expect("opens");
        migrate(&mut connection, &MIGRATIONS[..1]).expect("migrated");
        let rows = "INSERT INTO queues VALUES (1, '000000000000/r/async/a');
            INSERT INTO messages VALUES (1, 1, NULL, 0, 0, 0, 0, NULL, x'0102');
            INSERT INTO messages VALUES (2, 1, NULL, 0, 0, 0, 0, 'file', x'');
            INSERT INTO streams VALUES (7, '000000000000/r/log/a', 1, 0);
            INSERT INTO entries VALUES (7, 0, 0, NULL, x'010203');";
        connection.execute_batch(rows).expect("inserted");
        migrate(&mut connection, MIGRATIONS).expect("migrated");
        let sql = "SELECT owner, messages, loads.bytes, streams.bytes FROM loads, streams";
        let row = connection.query_row(sql, [], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        assert_eq!(row.expect("a row"), ("000000000000".to_owned(), 2, (2 << 20) + 2, 3));
    }

    #[test]
    fn a_failed_migration_changes_nothing() {
        let mut connection = Connection::open_in_memory().expect("opens");
        migrate(&mut connection, &["CREATE TABLE things (a)", "no SQL"]).expect_err("fails");
        assert_eq!(version(&connection), 0);
        connection.execute("INSERT INTO things VALUES (1)", []).expect_err("no table");
    }

    #[test]
    fn a_newer_database_is_refused() {
        let mut connection = Connection::open_in_memory().expect("opens");
        migrate(&mut connection, &["SELECT 1", "SELECT 1"]).expect("migrated");
        let error = migrate(&mut connection, &["SELECT 1"]).expect_err("too new");
        assert!(matches!(error, StoreError::FormatTooNew { found: 2, known: 1 }));
    }
}
