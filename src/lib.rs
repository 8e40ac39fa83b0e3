//! sidecache: a cache sidecar. Any program gets a namespaced cache over HTTP. Values live in Redis shards chosen by
//! consistent hashing, or in this process if no shards are configured.
//!
//! The modules in reading order. A module uses only modules below it:
//!
//! ```text
//!  main -> cli -> config        settings are parsed before anything binds; other commands go no further
//!            |
//!           app                 builds, starts and drains everything
//!            |
//!   http, resp, dashboard       routes, requests, statuses; Redis' protocol; pages for people
//!            |                       GET /api/v1/cache/users/user_1
//!            v                       |
//!          cache                     v
//!   read write flush list      read --- L1 copy, provably fresh? -- yes --> answer
//!            |                   | no
//!            |                 flight --- same read already running? --> share its answer
//!            |                   | no
//!   +--------+--------+        store --- ring -> shard -> script
//!   v        v        v          |
//!   l1   coherence  store      fenced insert into L1 ----------------> answer
//!            |        |          |
//!         (voids    ring       observe: stats, metrics, access log
//!           l1)     shards
//!            v
//!          model                namespaces, keys, entries: no I/O
//! ```
//!
//! [`net`] accepts the connections of both protocols. Each connection is served by one of the [`workers`], threads with
//! one runtime each. Modules beside the path of a request: [`fleet`] (the other instances), [`namespaces`] (policies),
//! [`access_log`] and [`audit`] (both write through the [`journal`]), [`stats`], [`trends`], [`metrics`], and [`jobs`]
//! (flushes that take longer than their request). The [`database`] stores policies, jobs, access log and audit trail.

pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;

pub mod dashboard;
pub mod http;
pub mod net;
pub mod resp;

pub mod cache;
pub mod fleet;

pub mod coherence;
pub mod l1;
pub mod store;

pub mod access_log;
pub mod audit;
pub mod database;
pub mod jobs;
pub mod journal;
pub mod metrics;
pub mod namespaces;
pub mod stats;
pub mod trends;

pub mod trace;

pub mod clock;
pub mod model;
pub mod number;
pub mod workers;
