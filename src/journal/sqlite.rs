//! The last batch of each writer, stored in SQLite.

use sqlx::SqliteConnection;

use crate::clock::unix_millis;
use crate::database::{Database, Error};

const ADVANCE: &str = "INSERT INTO cache_journal_positions VALUES ($1, $2, $3) \
     ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, updated_at = excluded.updated_at \
     WHERE batch < excluded.batch";

const FORGET: &str = "DELETE FROM cache_journal_positions WHERE updated_at < $1";

const MONTH_MS: i64 = 30 * 24 * 3600 * 1000;

/// Stores in this transaction that `writer` wrote `batch`. Returns false if it was written before. The first batch of
/// a writer deletes the rows of writers that are long gone.
pub(crate) async fn advance(
    database: &Database,
    connection: &mut SqliteConnection,
    writer: &str,
    batch: i64,
) -> Result<bool, Error> {
    let now = i64::try_from(unix_millis().0).unwrap_or(i64::MAX);
    if batch == 1 {
        database.query(FORGET).bind(now - MONTH_MS).execute(&mut *connection).await?;
    }
    let advance = database.query(ADVANCE).bind(writer).bind(batch).bind(now);
    Ok(advance.execute(connection).await?.rows_affected() > 0)
}
