//! Connections of clients of any protocol: accepting them up to a limit, giving them to workers, detecting slow and
//! idle clients, draining connections at the end, and memory budgets for what clients send and receive.
//!
//! The rooms of the protocols, such as `http`, decide what the bytes mean.

mod budget;
mod connection_limit;
mod panic;
mod request_id;
mod server;
mod shutdown;
mod wire;

pub use budget::{Budget, BudgetExceeded, Share};
pub use connection_limit::{ConnectionLimit, possible_connections, raise_descriptors};
pub use panic::record_panic;
pub use request_id::RequestIds;
pub use server::{Protocol, Server, bind};
pub use shutdown::ShutdownReceiver;
pub use wire::{Awaited, HeadTimeouts, Wire};
