//! Namespaces and their policies: a snapshot in memory that writes read, kept in step with the
//! database by a task of its own. A request never waits for SQL here, except the administration's.

mod postgres;
mod record;
mod registry;
mod repository;
mod sql;
mod sqlite;
mod sync;

pub use record::Record;
pub use registry::{Refusal, Registry};
pub use repository::{Asked, Repository, repository};
pub use sync::Synchronizer;
