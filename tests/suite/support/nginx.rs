//! A real nginx with a configuration of the project.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::process::{self, Process, Signal};
use super::{ports, scratch};

pub struct Nginx {
    port: u16,
    /// The master process. On SIGTERM it also ends its worker.
    _process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts nginx. `http` returns the content of the `http` block for the port to listen on.
    pub fn start(http: impl Fn(u16) -> String) -> Nginx {
        for _ in 0..10 {
            if let Some(nginx) = Nginx::try_start(&http) {
                return nginx;
            }
        }
        panic!("nginx found no free port in ten attempts");
    }

    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn try_start(http: impl Fn(u16) -> String) -> Option<Nginx> {
        let folder = scratch::folder("nginx");
        let (port, probe) = (ports::free(), ports::free());
        let path = folder.path().display();
        let user = if process::is_root() { "user root;" } else { "" };
        // nginx binds either all its listeners or none. So if the second port answers with the name of our folder,
        // this nginx also has the first port.
        let text = format!(
            "daemon off; worker_processes 1; {user}\n\
             pid {path}/pid; error_log {path}/log notice;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
             server {{ listen 127.0.0.1:{probe}; return 200 \"{path}\"; }}\n\
             {}\n\
             }}\n",
            http(port)
        );
        let configuration = scratch::file(folder.path(), "nginx.conf", &text);
        let mut command = process::dying_with_us(&process::program_named("nginx", "nginx"), Signal::Term);
        command
            .arg("-e")
            .arg(folder.path().join("log"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let mut process = Process::spawn(command, Signal::Term);
        let deadline = Instant::now() + Duration::from_secs(20);
        while process.exited().is_none() {
            if answer_of(probe).is_some_and(|answer| answer.ends_with(&path.to_string())) {
                return Some(Nginx { port, _process: process, _folder: folder });
            }
            assert!(Instant::now() < deadline, "nginx does not answer: {}", log());
            std::thread::sleep(process::TICK);
        }
        let log = log();
        assert!(log.contains("bind()"), "nginx does not start: {log}");
        None
    }
}

fn answer_of(port: u16) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
