//! The configuration of a namespace, as the database stores it.

use std::collections::BTreeMap;

use crate::database::Error;
use crate::model::{Namespace, Policy, PolicyFields, UnixMillis};

/// One row of `cache_namespaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub namespace: Namespace,
    pub policy: Policy,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
}

/// The contents of the table.
#[derive(Debug)]
pub struct Loaded {
    pub revision: i64,
    pub records: Vec<Record>,
    /// Names of rows that this release does not understand (a later release may have written them), with the reasons.
    pub unreadable: BTreeMap<String, String>,
}

impl Loaded {
    pub(super) fn from_rows(revision: i64, rows: Vec<Row>) -> Self {
        let mut loaded = Self { revision, records: Vec::with_capacity(rows.len()), unreadable: BTreeMap::new() };
        for row in rows {
            let name = row.0.clone();
            match Record::from_row(row) {
                Ok(record) => loaded.records.push(record),
                Err(error) => drop(loaded.unreadable.insert(name, error.to_string())),
            }
        }
        loaded
    }
}

/// The columns of a policy as both databases return them: default TTL (s), quota (MiB), eviction policy,
/// `stale_if_error` (s), `ttl_jitter`, `refresh_after`, `stale_while_revalidate` (s) and `tombstone_ttl` (s).
pub(super) type PolicyRow = (i64, i64, String, i64, f64, f64, i64, i64);

/// Name, creation and update time in Unix milliseconds, and the columns of [`PolicyRow`].
pub(super) type Row = (String, i64, i64, i64, i64, String, i64, f64, f64, i64, i64);

pub(super) fn policy_from_row(row: PolicyRow) -> Result<Policy, Error> {
    let (ttl, size, eviction_policy, stale_if_error, ttl_jitter, refresh_after, revalidate, tombstone_ttl) = row;
    let fields = PolicyFields {
        default_ttl: unsigned(ttl)?,
        max_size_mb: unsigned(size)?,
        eviction_policy,
        stale_if_error: unsigned(stale_if_error)?,
        ttl_jitter,
        refresh_after,
        stale_while_revalidate: unsigned(revalidate)?,
        tombstone_ttl: unsigned(tombstone_ttl)?,
    };
    Policy::parse(&fields).map_err(unreadable)
}

fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(unreadable)
}

fn unreadable(reason: impl std::error::Error) -> Error {
    Error::Row { table: "cache_namespaces", reason: reason.to_string() }
}

impl Record {
    fn from_row(row: Row) -> Result<Self, Error> {
        let (name, created_at, updated_at, ttl, size, eviction, stale, jitter, refresh, revalidate, tombstones) = row;
        Ok(Self {
            namespace: Namespace::parse(&name).map_err(unreadable)?,
            policy: policy_from_row((ttl, size, eviction, stale, jitter, refresh, revalidate, tombstones))?,
            created_at: UnixMillis(unsigned(created_at)?),
            updated_at: UnixMillis(unsigned(updated_at)?),
        })
    }
}
