//! Redis' protocol (RESP2 and RESP3): any Redis client is a client.
//!
//! ```text
//!  connection   reads, sends
//!      |  decode                bytes -> arguments, borrowed
//!      |  dispatch -> table     finds the command, checks its arguments, runs it within the deadline
//!      |                |
//!      |        connect, describe, info      the connection itself, what there is
//!      |        strings, modify, lifetime, keyspace -> cache
//!      |  reply                 one buffer for all commands that have arrived
//! ```
//!
//! What a command means for the cache is decided in `cache`; here are the words of Redis: names, options, error texts.
//! Error texts are an interface, because clients compare them.

mod client;
mod command;
mod connect;
mod connection;
mod decode;
mod describe;
mod dispatch;
mod door;
mod expiry;
mod failure;
mod info;
mod keyspace;
mod lifetime;
mod modify;
mod quotes;
mod reply;
mod session;
mod strings;
mod table;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

pub use self::client::Clients;
pub use self::decode::{Decoder, ProtocolError, Request};
pub use self::door::Door;

use self::command::Commands;
use self::connection::{Connection, End};
use self::table::COMMANDS;
use crate::net::{Protocol, ShutdownReceiver};

/// The connections of Redis clients.
pub struct RedisClients {
    door: Arc<Door>,
    commands: Commands,
}

impl RedisClients {
    pub fn new(door: Arc<Door>) -> Self {
        Self { door, commands: Commands::new(COMMANDS) }
    }

    async fn serve_one(&self, stream: TcpStream, peer: SocketAddr, mut closing: ShutdownReceiver) {
        let ended = Connection::new(&self.door, &self.commands, stream, peer).serve(&mut closing).await;
        match ended {
            Ok(End::Closed | End::Refused) => {}
            Ok(End::Slow) => self.door.metrics.connections_slow.increment(1),
            Err(error) => {
                tracing::debug!(%error, "a connection of a Redis client ended");
                if error.kind() == io::ErrorKind::TimedOut {
                    self.door.metrics.connections_stalled.increment(1);
                }
            }
        }
    }
}

impl Protocol for RedisClients {
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        closing: ShutdownReceiver,
    ) -> impl Future<Output = ()> + Send {
        self.serve_one(stream, peer, closing)
    }

    fn refusal(&self) -> Vec<u8> {
        b"-ERR max number of clients reached\r\n".to_vec()
    }
}
