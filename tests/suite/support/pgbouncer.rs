//! A real PgBouncer in transaction mode, in front of a PostgreSQL.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::postgres::{self, Postgres};
use super::process::{self, Process, Signal};
use super::{ports, scratch};

pub struct PgBouncer {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a PgBouncer with two connections to the server. It lends one for each transaction, in turn, so two
    /// consecutive transactions use different connections.
    pub fn in_front_of(server: &Postgres) -> PgBouncer {
        let (folder, port) = (scratch::folder("pgbouncer"), ports::free());
        let text = format!(
            "[databases]\n* = user=postgres host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 2\nmin_pool_size = 2\nserver_round_robin = 1\nlogfile = {}/log\n",
            server.address().port(),
            folder.path().display(),
        );
        let configuration = scratch::file(folder.path(), "pgbouncer.ini", &text);
        if let Some(user) = postgres::other_user() {
            let (uid, gid) = postgres::ids(user);
            chown(folder.path(), Some(uid), Some(gid)).expect("root can change the owner");
        }
        let program = process::program_named("pgbouncer", "pgbouncer");
        let mut command = process::dying_with_us_as(postgres::other_user(), &program, Signal::Kill);
        command.arg("-q").arg(&configuration).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn(command, Signal::Kill);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(process.exited().is_none() && Instant::now() < deadline, "PgBouncer does not start: {}", log());
            std::thread::sleep(process::TICK);
        }
        PgBouncer { port, _process: process, _folder: folder }
    }

    /// The URL of the same database through PgBouncer, in the form that docs/OPERATIONS.md gives.
    pub fn url(&self, direct: &str) -> String {
        let database = direct.rsplit('/').next().expect("a URL has a path");
        format!("postgres://postgres@127.0.0.1:{}/{database}?statement-cache-capacity=0", self.port)
    }
}
