//! The project's terms as types: pure data without I/O and async, independent of HTTP, SQL and Redis.
//!
//! Every type checks its input when it is created, so an invalid [`Key`] or [`Ttl`] cannot exist.

mod date;
mod entry;
mod extra;
mod hash;
mod invalid;
mod key;
mod key_bytes;
mod lease;
mod named;
mod namespace;
mod operation;
mod origin;
mod part;
mod patch;
mod pattern;
mod policy;
mod policy_change;
mod policy_fields;
mod position;
mod precondition;
mod read_terms;
mod source_version;
mod tag;
mod ttl;
mod write;

pub use date::UnixMillis;
pub use entry::{Details, ENTRY_OVERHEAD, Entry, EntryRef, Version, charge};
pub use extra::{Extra, Kind, Mark};
pub(crate) use hash::{hash, map_hash};
pub use invalid::Invalid;
pub use key::{Address, EntryKey, EntryKeyHasher, Key, KeyRef};
pub use key_bytes::{RESERVED_KEY, key_bytes};
pub use lease::{LeaseRequest, LeaseToken, WantedLease};
pub(crate) use named::named;
pub use namespace::Namespace;
pub use operation::{Answer, Operation};
pub use origin::{Origin, printable};
pub use part::Part;
pub use patch::{Patch, TtlChange};
pub use pattern::{Pattern, Selection, glob};
pub use policy::{EvictionPolicy, Policy, Quota, Quotas};
pub use policy_change::PolicyChange;
pub use policy_fields::{PolicyFields, SomePolicyFields};
pub use position::{Position, Positions};
pub use precondition::{EtagList, Preconditions};
pub use read_terms::{Candidate, MaxStale, ReadTerms, Unmet};
pub use source_version::SourceVersion;
pub use tag::{Tag, Tags};
pub use ttl::{Ttl, whole_number};
pub use write::Write;
