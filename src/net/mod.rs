//! Connections of clients, whatever they speak: accepting them up to a limit, giving them to workers, detecting slow and
//! idle ones, draining them at the end, and memory budgets for what they send and receive.
//!
//! What the bytes mean is decided by the rooms of the protocols, such as `http`.

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
