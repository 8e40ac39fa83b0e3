//! Test infrastructure: real servers, the real binary, and clients that keep every byte of an answer.
//!
//! Nothing here uses the code of the crate. One noun a file:
//!
//! - [`process`]: child processes that never outlive the test process
//! - [`ports`], [`scratch`]: free ports, and temporary folders that are removed at the end
//! - [`redis`], [`postgres`], [`nginx`]: the servers from Debian's packages
//! - [`haproxy`]: a proxy in front of Redis servers or of instances
//! - [`pgbouncer`]: a pooler in front of PostgreSQL
//! - [`certificates`]: a certificate authority for tests
//! - [`acl`], [`confined`]: Redis users with few rights, and a service that runs with the fewest
//! - [`sentinel`]: a Sentinel group, which elects a new primary
//! - [`proxy`]: a TCP proxy in front of a server, which can hold, delay, stall, mute, swallow and cut connections
//! - [`switch`]: a TCP switch, which can lead new connections to another server
//! - [`gate`]: a TCP gate, which can hold back single answers
//! - [`walk`], [`slowlog`]: what Redis stores, and which commands were slow
//! - [`slow_shard`]: a shard on which a flush takes seconds
//! - [`browser`]: headless Chromium
//! - [`service`]: the sidecache binary and its settings
//! - [`client`], [`answer`], [`wire`]: an HTTP client with a method for each call, answers as bytes, and raw sockets
//! - [`line`]: HTTP over one connection, for very many requests
//! - [`history`], [`checker`], [`load`]: clients that write and read all the time, and which answers are correct
//! - [`metric`]: a strict parser for the Prometheus text format
//! - [`database`]: queries on the database of a service, SQLite or PostgreSQL
//! - [`eventually`]: waits until a condition holds
//! - [`collisions`]: keys with the same hash
//! - [`random`]: random numbers from a seed that can be set again
//! - [`both_stores`], [`release`]: one test body for both stores and for every release of Redis

pub mod acl;
pub mod answer;
pub mod both_stores;
pub mod browser;
pub mod certificates;
pub mod checker;
pub mod client;
pub mod collisions;
pub mod confined;
pub mod database;
pub mod eventually;
pub mod gate;
pub mod haproxy;
pub mod history;
pub mod line;
pub mod load;
pub mod metric;
pub mod nginx;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod release;
pub mod resp;
pub mod scratch;
pub mod sentinel;
pub mod service;
pub mod slow_shard;
pub mod slowlog;
pub mod switch;
pub mod walk;
pub mod wire;
