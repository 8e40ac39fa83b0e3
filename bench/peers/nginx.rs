//! nginx with constants: the cost of an answer that needs no lookup.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::load::request::value;
use crate::meter::Watched;
use crate::support::process::{self, Process};
use crate::support::{ports, scratch};

/// `/constant` and every path below it by `return 200`; `/large` from a file in memory.
pub struct Nginx {
    port: u16,
    process: Process,
    _folder: TempDir,
    _large: TempDir,
}

pub const CONSTANT: &str = "/constant";
pub const LARGE: &str = "/large";

impl Nginx {
    /// Serves one constant of `bytes` bytes and one of `large` bytes.
    ///
    /// # Errors
    /// nginx does not start.
    pub fn start(bytes: usize, large: usize) -> anyhow::Result<Nginx> {
        let (folder, port) = (scratch::folder("nginx"), ports::free());
        // `return` can send at most 4 KiB (a parameter in nginx's configuration), so the large constant is a file on
        // tmpfs, sent with sendfile.
        let memory = tempfile::Builder::new().prefix("sidecache-bench-").tempdir_in("/dev/shm")?;
        std::fs::set_permissions(memory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        scratch::file(memory.path(), "large", &value(large));
        let path = folder.path().display();
        let user = if process::is_root() { "user root;" } else { "" };
        let body = "x".repeat(bytes);
        let text = format!(
            "daemon off; worker_processes auto; {user}\n\
             worker_rlimit_nofile 15000;\n\
             pid {path}/pid; error_log {path}/log error;\n\
             events {{ worker_connections 12000; }}\n\
             http {{\n\
             access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; default_type application/json;\n\
             keepalive_timeout 60s; keepalive_requests 1000000000; open_file_cache max=10;\n\
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
             server {{\n\
             listen 127.0.0.1:{port} backlog=4096 reuseport;\n\
             location {CONSTANT} {{ return 200 '{body}'; }}\n\
             location = {LARGE} {{ root {}; }}\n\
             }}\n\
             }}\n",
            memory.path().display()
        );
        let configuration = scratch::file(folder.path(), "nginx.conf", &text).display().to_string();
        let log = format!("{path}/log");
        let words = ["-e", &log, "-p", &path.to_string(), "-c", &configuration];
        let process = super::start("nginx", "nginx", &words, folder.path(), port)?;
        Ok(Nginx { port, process, _folder: folder, _large: memory })
    }

    pub fn address(&self) -> SocketAddr {
        super::local(self.port)
    }

    /// The master and its workers.
    pub fn watched(&self) -> Watched {
        Watched::server([self.process.id()])
    }
}
