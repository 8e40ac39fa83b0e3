//! The space of SQLite files: what pruned rows leave behind goes back to the file system, in bounded steps.
//!
//! A file can give pages back if it was made so (`auto_vacuum`). A file of an earlier release is rewritten once, at the
//! start, when little enough is in it; a larger file waits until the retention has made it smaller.

use sqlx::{AssertSqlSafe, SqlitePool};

use super::Error;

/// Pages that one step gives back at most: 4 MiB of 4 KiB pages.
const PAGES_PER_STEP: i64 = 1024;

/// The most that a file may hold to be rewritten at the start: some seconds of work.
const MOST_TO_REWRITE_BYTES: i64 = 256 << 20;

/// `PRAGMA auto_vacuum` of a file that gives nothing back.
const NONE: i64 = 0;

/// Lets a file give space back from now on.
pub(super) async fn enable(pool: &SqlitePool) -> Result<(), Error> {
    let mut connection = pool.acquire().await?;
    let mut number = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await;
    if number("PRAGMA auto_vacuum").await? != NONE {
        return Ok(());
    }
    let used = number("PRAGMA page_count").await? - number("PRAGMA freelist_count").await?;
    let used_bytes = used * number("PRAGMA page_size").await?;
    if used_bytes > MOST_TO_REWRITE_BYTES {
        tracing::info!(
            used_bytes,
            "the SQLite file does not give space back until it is rewritten: the first start with less than 256 MiB \
             in it does so, or `PRAGMA auto_vacuum = 2; VACUUM` by hand while the service is stopped"
        );
        return Ok(());
    }
    sqlx::raw_sql("PRAGMA auto_vacuum = 2; VACUUM").execute(&mut *connection).await?;
    tracing::info!(used_bytes, "the SQLite file was rewritten and gives space back from now on");
    Ok(())
}

/// Gives some free pages back; answers how many.
///
/// # Errors
/// What the database answers.
pub async fn give_back(pool: &SqlitePool) -> Result<u64, Error> {
    let mut connection = pool.acquire().await?;
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *connection).await?;
    if free == 0 {
        return Ok(0);
    }
    // The statement gives a page back with each of its rows, so all of them are read.
    let step = AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})"));
    sqlx::query(step).fetch_all(&mut *connection).await?;
    let left: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *connection).await?;
    Ok(u64::try_from(free - left).unwrap_or(0))
}
