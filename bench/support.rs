//! The part of the tests' support code that the bench uses: real servers that stop with it, the binary with its
//! settings, and clients.

#[path = "../tests/suite/support/answer.rs"]
pub mod answer;
#[path = "../tests/suite/support/client.rs"]
pub mod client;
#[path = "../tests/suite/support/line.rs"]
pub mod line;
#[path = "../tests/suite/support/metric.rs"]
pub mod metric;
#[path = "../tests/suite/support/ports.rs"]
pub mod ports;
#[path = "../tests/suite/support/postgres.rs"]
pub mod postgres;
#[path = "../tests/suite/support/process.rs"]
pub mod process;
#[path = "../tests/suite/support/random.rs"]
pub mod random;
#[path = "../tests/suite/support/redis.rs"]
pub mod redis;
#[path = "../tests/suite/support/release.rs"]
pub mod release;
#[path = "../tests/suite/support/scratch.rs"]
pub mod scratch;
#[path = "../tests/suite/support/service.rs"]
pub mod service;
