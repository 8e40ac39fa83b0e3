//! Free space in SQLite files: the space of deleted rows is given back to the file system, in bounded steps.
//!
//! A file can give pages back only if it was created with `auto_vacuum`. A file of an earlier release is rewritten
//! once, when the service starts and the file contains little enough. A larger file must first shrink, as old rows are
//! deleted.

use sqlx::{AssertSqlSafe, SqlitePool};

use super::Error;

/// The maximum number of pages that one step gives back: 4 MiB of 4 KiB pages.
const PAGES_PER_STEP: i64 = 1024;

/// The largest file that is rewritten at the start, which takes some seconds.
const MAX_TO_REWRITE_BYTES: i64 = 256 << 20;

/// The value of `PRAGMA auto_vacuum` if the file cannot give pages back.
const NONE: i64 = 0;

/// Enables giving space back.
pub(super) async fn enable(pool: &SqlitePool) -> Result<(), Error> {
    let mut connection = pool.acquire().await?;
    let mut number = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await;
    if number("PRAGMA auto_vacuum").await? != NONE {
        return Ok(());
    }
    let used = number("PRAGMA page_count").await? - number("PRAGMA freelist_count").await?;
    let used_bytes = used * number("PRAGMA page_size").await?;
    if used_bytes > MAX_TO_REWRITE_BYTES {
        tracing::info!(
            used_bytes,
            "the SQLite file cannot give free space back until it is rewritten. The first start with less than 256 \
             MiB in the file rewrites it, or run `PRAGMA auto_vacuum = 2; VACUUM` while the service is stopped"
        );
        return Ok(());
    }
    sqlx::raw_sql("PRAGMA auto_vacuum = 2; VACUUM").execute(&mut *connection).await?;
    tracing::info!(used_bytes, "rewrote the SQLite file; from now on it gives free space back to the file system");
    Ok(())
}

/// Gives some free pages back. Returns how many.
pub(super) async fn give_back(pool: &SqlitePool) -> Result<u64, Error> {
    let mut connection = pool.acquire().await?;
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *connection).await?;
    if free == 0 {
        return Ok(0);
    }
    // The statement gives one page back for each row that is read, so all rows are read.
    let step = AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})"));
    sqlx::query(step).fetch_all(&mut *connection).await?;
    let left: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *connection).await?;
    Ok(u64::try_from(free - left).unwrap_or(0))
}
