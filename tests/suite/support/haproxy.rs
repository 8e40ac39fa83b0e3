//! A real HAProxy, in front of Redis servers or of instances of the service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::process::{self, Process, Signal};
use super::{ports, scratch};

pub struct HaProxy {
    port: u16,
    socket: PathBuf,
    _process: Process,
    _folder: TempDir,
}

impl HaProxy {
    /// A proxy with one section, `front`: `lines` are its lines except `bind`.
    pub fn start(lines: &str) -> HaProxy {
        let (folder, port) = (scratch::folder("haproxy"), ports::free());
        let (socket, log) = (folder.path().join("socket"), folder.path().join("log"));
        let text = format!(
            "global\n  maxconn 500\n  stats socket {} level admin\n\
             defaults\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n\
             listen front\n  bind 127.0.0.1:{port}\n{lines}\n",
            socket.display(),
        );
        let configuration = scratch::file(folder.path(), "haproxy.cfg", &text);
        let program = process::program_named("haproxy", "haproxy");
        let mut command = process::dying_with_us(&program, Signal::Term);
        command.arg("-db").arg("-f").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).expect("a file in our folder"));
        let mut process = Process::spawn(command, Signal::Kill);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(process.exited().is_none() && Instant::now() < deadline, "HAProxy does not start: {}", log());
            std::thread::sleep(process::TICK);
        }
        HaProxy { port, socket, _process: process, _folder: folder }
    }

    /// Sends a command of HAProxy's runtime API, such as `set server front/a state maint`.
    pub fn command(&self, command: &str) {
        let mut stream = UnixStream::connect(&self.socket).expect("HAProxy has a socket for commands");
        writeln!(stream, "{command}").expect("HAProxy reads commands");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("HAProxy answers commands");
        assert_eq!(answer.trim(), "", "{command}");
    }

    pub fn client(&self) -> Client {
        Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}
