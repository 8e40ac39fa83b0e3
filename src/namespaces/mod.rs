//! Namespaces and their policies. Requests read a snapshot in memory, and a background task keeps it in step with the
//! database. Only calls that change policies wait for SQL.

mod record;
mod registry;
mod repository;
mod sync;

pub use record::Record;
pub use registry::{Refusal, Registry};
pub use repository::{ChangeRequest, Repository};
pub use sync::Synchronizer;
