//! sidecache: a cache sidecar. Any program gets a namespaced cache over HTTP; values live in Redis
//! shards chosen by consistent hashing, or in this process where none are configured.
//!
//! In reading order, each using only what stands below it:
//!
//! ```text
//!  main -> cli -> config        settings become meaning before anything binds; commands to a service end here
//!            |
//!           app                 builds, spawns, drains: where the rooms meet
//!            |
//!      http, dashboard          routes, extraction, statuses; pages for people
//!            |                       GET /api/v1/cache/users/user_1
//!            v                       |
//!          cache                     v
//!   read write flush list      read --- L1 copy, provably fresh? ----> answer
//!            |                   | no
//!            |                 flight --- the same read under way? --> share its answer
//!            |                   | no
//!   +--------+--------+        store --- ring -> shard -> script
//!   v        v        v          |
//!   l1   coherence  store      fenced insert into L1 ----------------> answer
//!            |        |          |
//!         (voids    ring       observe: stats, metrics, access log
//!           l1)     shards
//!            v
//!          model                namespaces, keys, entries: pure
//! ```
//!
//! Every connection is served by one of the [`workers`], a runtime of one thread a core. Beside the road of a request: [`fleet`] (the other instances), [`namespaces`] (policies), [`access_log`]
//! and [`audit`] with the [`journal`] that both write through, [`stats`], [`trends`] and [`metrics`], the
//! [`jobs`] that flushes become which outlive their requests; the [`database`] is behind policies, jobs, log and trail.

pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;

pub mod dashboard;
pub mod http;

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
pub mod workers;
