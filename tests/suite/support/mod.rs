//! What the tests stand on: real servers, the real binary, and a client that sees every byte.
//!
//! Nothing here knows the implementation. One noun a file:
//!
//! - [`process`]: child processes that never outlive the test process
//! - [`ports`], [`scratch`]: free ports, and one temporary folder that is removed at the end
//! - [`redis`], [`postgres`], [`nginx`]: the servers from Debian's packages
//! - [`pgbouncer`]: a pooler in front of PostgreSQL
//! - [`certificates`]: a certificate authority of the tests
//! - [`acl`]: users of Redis who have not all rights
//! - [`sentinel`]: a group of Redis servers that elects a new primary
//! - [`proxy`]: a TCP proxy in front of a server, which can hold, delay, stall, mute, swallow and cut
//! - [`switch`]: a TCP switch, which leads new connections to another server
//! - [`gate`]: a TCP gate that holds up single answers
//! - [`walk`], [`slowlog`]: what lies in the shards, and what took them long
//! - [`browser`]: Chromium, without a window
//! - [`service`]: the sidecache binary with its settings
//! - [`client`], [`answer`], [`wire`]: HTTP with names for the calls, answers with their bytes, and bare sockets
//! - [`line`]: the same over one connection, for very many requests
//! - [`history`], [`checker`], [`load`]: clients that write and read all the time, and what they may be answered
//! - [`metric`]: the Prometheus text, parsed strictly
//! - [`database`]: a look into what a service wrote, on either database
//! - [`eventually`]: waiting without guessing
//! - [`collisions`]: keys that share one hash
//! - [`random`]: random numbers that can be had again
//! - [`both_stores`], [`release`]: one test body, two stores, and every release of Redis
//! - [`acl`], [`confined`]: users of Redis who have not all rights, and a service that has the least

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
pub mod scratch;
pub mod sentinel;
pub mod service;
pub mod slow_shard;
pub mod slowlog;
pub mod switch;
pub mod walk;
pub mod wire;
