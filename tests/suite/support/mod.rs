//! What the tests stand on: real servers, the real binary, and a client that sees every byte.
//!
//! Nothing here knows the implementation. One noun a file:
//!
//! - [`process`]: child processes that never outlive the test process
//! - [`ports`], [`scratch`]: free ports, and one temporary folder that is removed at the end
//! - [`redis`], [`postgres`], [`nginx`]: the servers from Debian's packages
//! - [`proxy`]: a TCP proxy in front of a server, which can hold, mute, swallow and cut
//! - [`service`]: the sidecache binary with its settings
//! - [`client`], [`answer`], [`wire`]: HTTP with names for the calls, answers with their bytes, and bare sockets
//! - [`metric`]: the Prometheus text, parsed strictly
//! - [`database`]: a look into what a service wrote, on either database
//! - [`eventually`]: waiting without guessing
//! - [`both_stores`]: one test body, two stores

pub mod answer;
pub mod both_stores;
pub mod client;
pub mod database;
pub mod eventually;
pub mod metric;
pub mod nginx;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod scratch;
pub mod service;
pub mod wire;
