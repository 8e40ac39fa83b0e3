//! The words of the project as types: pure, no I/O, no async, nothing of HTTP, SQL or Redis.
//!
//! A constructor that parses is the only way in, so an invalid [`Key`] or [`Ttl`] cannot exist
//! behind the door of this room.

mod charge;
mod entry;
mod hash;
mod invalid;
mod key;
mod namespace;
mod operation;
mod origin;
mod pattern;
mod policy;
mod tag;
mod ttl;

pub use charge::{ENTRY_OVERHEAD, charge};
pub use entry::{Details, Entry, EntryRef, UnixMillis, Version, Write};
pub(crate) use hash::hash;
pub use invalid::Invalid;
pub use key::{EntryKey, EntryKeyHasher, Key, KeyRef};
pub use namespace::Namespace;
pub use operation::{Answer, Operation};
pub use origin::Origin;
pub use pattern::{Pattern, Selection};
pub use policy::{EvictionPolicy, Policy, PolicyChange, Quota, Quotas};
pub use tag::{Tag, Tags};
pub use ttl::{Ttl, whole_number};
