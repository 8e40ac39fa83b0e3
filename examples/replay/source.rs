//! The source of truth behind the cache: one table with one row for each key, in SQLite or PostgreSQL.
//!
//! The replay does not measure filling it, but measures reading it, because reads are what a cache hit saves.

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::{Context, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::record::Record;

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS replay_rows (\
    type TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (type, key))";

const FETCH: &str = "SELECT value FROM replay_rows WHERE type = $1 AND key = $2";

/// The key of an advisory lock, held while the table is created and filled in PostgreSQL: `IF NOT EXISTS` alone fails
/// if two runs create the table at the same time. The number is arbitrary ("replay" in ASCII).
const FILL_LOCK: i64 = 0x7265_706c_6179;

/// The maximum number of bytes of values in one INSERT into PostgreSQL, and the maximum number of rows.
const BATCH_BYTES: usize = 8 << 20;
const BATCH_ROWS: usize = 1_000;

/// Where the table is.
#[derive(Clone, Debug)]
pub enum Location {
    /// An SQLite file that is deleted at the end.
    Temporary,
    Sqlite(SqliteConnectOptions),
    Postgres(PgConnectOptions),
}

impl Location {
    /// # Errors
    /// Neither `sqlite:PATH` nor a well-formed `postgres://` URL.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        if text.starts_with("sqlite:") {
            Ok(Self::Sqlite(SqliteConnectOptions::from_str(text)?))
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self::Postgres(PgConnectOptions::from_str(text)?))
        } else {
            bail!("must be sqlite:PATH or postgres://user@host/database");
        }
    }
}

/// The filled table and its connection.
pub struct Source {
    database: Database,
    /// Deletes the temporary file when the source is dropped.
    _directory: Option<TempDir>,
}

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Source {
    /// # Errors
    /// The database cannot be opened.
    pub async fn open(location: &Location) -> anyhow::Result<Self> {
        let mut directory = None;
        let database = match location {
            Location::Temporary => {
                let created = tempfile::tempdir().context("no temporary directory for the source")?;
                let options = SqliteConnectOptions::new().filename(created.path().join("source.db"));
                directory = Some(created);
                Database::Sqlite(open_sqlite(options).await?)
            }
            Location::Sqlite(options) => Database::Sqlite(open_sqlite(options.clone()).await?),
            Location::Postgres(options) => {
                Database::Postgres(options.connect().await.context("cannot open the source in PostgreSQL")?)
            }
        };
        Ok(Self { database, _directory: directory })
    }

    /// Creates the table if it is missing, and writes the row of each record, in one transaction.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn fill(&mut self, records: &BTreeSet<Record>, value_bytes: usize) -> anyhow::Result<()> {
        match &mut self.database {
            Database::Sqlite(connection) => fill_sqlite(connection, records, value_bytes).await,
            Database::Postgres(connection) => fill_postgres(connection, records, value_bytes).await,
        }
        .context("cannot fill the source")
    }

    /// Reads the value of one record's row.
    ///
    /// # Errors
    /// There is no such row, or the database failed.
    pub async fn fetch(&mut self, record: Record) -> anyhow::Result<String> {
        let (type_name, key) = (record.type_name(), record.key());
        match &mut self.database {
            Database::Sqlite(connection) => {
                sqlx::query_scalar(FETCH).bind(type_name).bind(key).fetch_one(connection).await
            }
            Database::Postgres(connection) => {
                sqlx::query_scalar(FETCH).bind(type_name).bind(key).fetch_one(connection).await
            }
        }
        .with_context(|| format!("cannot read the row of {record} from the source"))
    }
}

async fn open_sqlite(options: SqliteConnectOptions) -> anyhow::Result<SqliteConnection> {
    let path = options.get_filename().display().to_string();
    options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .connect()
        .await
        .with_context(|| format!("cannot open the source in SQLite, {path}"))
}

async fn fill_sqlite(
    connection: &mut SqliteConnection,
    records: &BTreeSet<Record>,
    value_bytes: usize,
) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query(CREATE_TABLE).execute(&mut *transaction).await?;
    for record in records {
        sqlx::query("INSERT OR REPLACE INTO replay_rows (type, key, value) VALUES ($1, $2, $3)")
            .bind(record.type_name())
            .bind(record.key())
            .bind(record.value(value_bytes))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

async fn fill_postgres(
    connection: &mut PgConnection,
    records: &BTreeSet<Record>,
    value_bytes: usize,
) -> sqlx::Result<()> {
    let records: Vec<_> = records.iter().collect();
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(FILL_LOCK).execute(&mut *transaction).await?;
    sqlx::query(CREATE_TABLE).execute(&mut *transaction).await?;
    for batch in records.chunks((BATCH_BYTES / value_bytes).clamp(1, BATCH_ROWS)) {
        let column =
            |of: &dyn Fn(&Record) -> String| -> Vec<String> { batch.iter().map(|record| of(record)).collect() };
        sqlx::query(
            "INSERT INTO replay_rows (type, key, value) \
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[]) \
             ON CONFLICT (type, key) DO UPDATE SET value = excluded.value",
        )
        .bind(column(&|record| record.type_name()))
        .bind(column(&|record| record.key()))
        .bind(column(&|record| record.value(value_bytes)))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sqlite_and_postgres_are_sources() {
        assert!(matches!(Location::parse("sqlite:rows.db"), Ok(Location::Sqlite(_))));
        assert!(matches!(Location::parse("postgres://u@h/d"), Ok(Location::Postgres(_))));
        assert!(Location::parse("rows.db").is_err());
        assert!(Location::parse("mysql://u@h/d").is_err());
    }

    #[tokio::test]
    async fn a_row_is_what_was_filled_in_last() {
        let mut source = Source::open(&Location::Temporary).await.expect("a temporary file");
        let records = BTreeSet::from([Record::from_bits(1), Record::from_bits(5 << 27)]);
        for value_bytes in [100, 200] {
            source.fill(&records, value_bytes).await.expect("rows are written");
            for &record in &records {
                let row = source.fetch(record).await.expect("the row is there");
                assert_eq!(row, record.value(value_bytes));
            }
        }
        assert!(source.fetch(Record::from_bits(2)).await.is_err());
    }
}
