//! The modules of tests/suite/support that these tests need: real servers that die with the tests, the binary with
//! its settings, and clients.

#[path = "../suite/support/answer.rs"]
pub mod answer;
#[path = "../suite/support/client.rs"]
pub mod client;
#[path = "../suite/support/line.rs"]
pub mod line;
#[path = "../suite/support/metric.rs"]
pub mod metric;
#[path = "../suite/support/ports.rs"]
pub mod ports;
#[path = "../suite/support/postgres.rs"]
pub mod postgres;
#[path = "../suite/support/process.rs"]
pub mod process;
#[path = "../suite/support/random.rs"]
pub mod random;
#[path = "../suite/support/redis.rs"]
pub mod redis;
#[path = "../suite/support/release.rs"]
pub mod release;
#[path = "../suite/support/scratch.rs"]
pub mod scratch;
#[path = "../suite/support/service.rs"]
pub mod service;
