//! webdis (<https://webd.is>): Redis over HTTP and nothing else.

use std::net::SocketAddr;

use serde_json::json;
use tempfile::TempDir;

use crate::meter::Watched;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::{ports, scratch};

pub struct Webdis {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl Webdis {
    /// # Errors
    /// It does not start.
    pub fn before(redis: &Redis) -> anyhow::Result<Webdis> {
        let (folder, port) = (scratch::folder("webdis"), ports::free());
        let settings = json!({
            "redis_host": "127.0.0.1",
            "redis_port": redis.port(),
            "http_host": "127.0.0.1",
            "http_port": port,
            "http_max_request_size": 32 * 1024 * 1024,
            "threads": std::thread::available_parallelism().map_or(2, usize::from),
            // Connections to Redis per thread; webdis' default is 20.
            "pool_size": 20,
            "daemonize": false,
            "websockets": false,
            "database": 0,
            "acl": [{ "disabled": ["DEBUG"] }],
            "verbosity": 0,
            "logfile": folder.path().join("log"),
        });
        let settings = scratch::file(folder.path(), "webdis.json", &settings.to_string()).display().to_string();
        let process = super::start("webdis", "webdis", &[&settings], folder.path(), port)?;
        Ok(Webdis { port, process, _folder: folder })
    }

    pub fn address(&self) -> SocketAddr {
        super::local(self.port)
    }

    pub fn watched(&self) -> Watched {
        Watched::server([self.process.id()])
    }
}
