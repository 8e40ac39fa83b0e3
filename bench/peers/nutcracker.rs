//! nutcracker, also known as twemproxy: a proxy that distributes keys over Redis servers. It has one thread.

use tempfile::TempDir;

use crate::meter::Watched;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::{ports, scratch};

pub struct Nutcracker {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl Nutcracker {
    /// # Errors
    /// It does not start.
    pub fn before(redis: &Redis) -> anyhow::Result<Nutcracker> {
        let (folder, port, stats) = (scratch::folder("nutcracker"), ports::free(), ports::free());
        let settings = format!(
            "bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  \
             servers:\n    - 127.0.0.1:{}:1\n",
            redis.port()
        );
        let settings = scratch::file(folder.path(), "nutcracker.yml", &settings).display().to_string();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (log, pid, stats) = (path("log"), path("pid"), stats.to_string());
        let words = ["-c", &settings, "-o", &log, "-p", &pid, "-a", "127.0.0.1", "-s", &stats, "-v", "0"];
        let process = super::start("nutcracker", "nutcracker", &words, folder.path(), port)?;
        Ok(Nutcracker { port, process, _folder: folder })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn watched(&self) -> Watched {
        Watched::server([self.process.id()])
    }
}
