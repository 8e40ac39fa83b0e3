//! What is known about each connected client, for `CLIENT LIST`, `CLIENT INFO` and `INFO`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::reply::Version;
use crate::clock::Moment;

/// The clients of this instance, by their ids.
#[derive(Default)]
pub struct Clients {
    last_id: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// One connected client.
pub struct Client {
    pub id: u64,
    pub address: SocketAddr,
    since: Moment,
    /// Nanoseconds of the [`Moment`] at which it last sent something.
    last_active: AtomicU64,
    /// The number of its last command in the table of commands.
    last_command: AtomicUsize,
    pub names: Mutex<Names>,
}

/// What a client said about itself, and what it chose.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub name: String,
    pub library: String,
    pub library_version: String,
    /// The selected number or, after AUTH, the namespace.
    pub database: String,
    pub version: Version,
}

impl Clients {
    /// Adds a client, which is removed by [`Clients::remove`].
    pub fn add(&self, address: SocketAddr) -> Arc<Client> {
        let now = Moment::now();
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Relaxed) + 1,
            address,
            since: now,
            last_active: AtomicU64::new(now.as_nanos()),
            last_command: AtomicUsize::new(usize::MAX),
            names: Mutex::default(),
        });
        self.open.lock().insert(client.id, client.clone());
        client
    }

    pub fn remove(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// How many clients have connected since the start.
    pub fn connected(&self) -> u64 {
        self.last_id.load(Relaxed)
    }

    /// A line for each client; `name_of` returns the name of a command.
    pub fn list(&self, name_of: impl Fn(usize) -> &'static str) -> String {
        // The lines are written without the lock, because they may be many.
        let clients: Vec<Arc<Client>> = self.open.lock().values().cloned().collect();
        let mut lines = String::new();
        for client in clients {
            client.describe(&name_of, &mut lines);
            lines.push('\n');
        }
        lines
    }
}

impl Client {
    /// Records that the client sent the command with this number.
    pub fn active(&self, now: Moment, command: usize) {
        self.last_active.store(now.as_nanos(), Relaxed);
        self.last_command.store(command, Relaxed);
    }

    /// Appends the client's line, in the form of Redis.
    pub fn describe(&self, name_of: impl Fn(usize) -> &'static str, out: &mut String) {
        let now = Moment::now();
        let age = now.since(self.since).as_secs();
        let idle = now.since(Moment::from_nanos(self.last_active.load(Relaxed))).as_secs();
        let command = match self.last_command.load(Relaxed) {
            usize::MAX => "NULL",
            number => name_of(number),
        };
        let Names { name, library, library_version, database, version } = self.names.lock().clone();
        let (id, address, resp) = (self.id, self.address, version.number());
        write!(
            out,
            "id={id} addr={address} name={name} age={age} idle={idle} flags=N db={database} cmd={command} \
             user=default resp={resp} lib-name={library} lib-ver={library_version}"
        )
        .expect("a String takes everything");
    }
}
