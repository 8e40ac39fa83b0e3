//! The last batch of each writer, stored in PostgreSQL.

use sqlx::PgConnection;

use crate::database::{Database, Error};

const ADVANCE: &str = "INSERT INTO cache_journal_positions AS position VALUES ($1, $2, now()) \
     ON CONFLICT (writer) DO UPDATE SET batch = EXCLUDED.batch, updated_at = now() \
     WHERE position.batch < EXCLUDED.batch";

const FORGET: &str = "DELETE FROM cache_journal_positions WHERE updated_at < now() - interval '30 days'";

/// Stores in this transaction that `writer` wrote `batch`. Returns false if it was written before. The first batch of
/// a writer deletes the rows of writers that are long gone.
pub(crate) async fn advance(
    database: &Database,
    connection: &mut PgConnection,
    writer: &str,
    batch: i64,
) -> Result<bool, Error> {
    if batch == 1 {
        database.query(FORGET).execute(&mut *connection).await?;
    }
    let advance = database.query(ADVANCE).bind(writer).bind(batch);
    Ok(advance.execute(connection).await?.rows_affected() > 0)
}
