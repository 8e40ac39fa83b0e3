//! Namespaces and their policies. Requests read a snapshot in memory, and a background task keeps it in step with the
//! database. Only calls that change policies wait for SQL.

mod postgres;
mod record;
mod registry;
mod repository;
mod sql;
mod sqlite;
mod sync;

pub use record::Record;
pub use registry::{Refusal, Registry};
pub use repository::{ChangeRequest, Repository};
pub use sync::Synchronizer;

use std::sync::Arc;

use crate::database::{Database, Pool};

/// The repository in `database`.
pub fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(postgres::Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(sqlite::Sqlite { database, pool }),
    }
}
