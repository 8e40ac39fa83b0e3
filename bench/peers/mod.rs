//! The alternatives to sidecache: [`nginx`] for a constant, [`webdis`] for Redis over HTTP, [`nutcracker`]
//! (twemproxy) in front of Redis. They write no access log and answer over keep-alive connections; nginx and webdis
//! use as many workers as there are cores.

pub mod nginx;
pub mod nutcracker;
pub mod script;
pub mod webdis;

pub use nginx::Nginx;
pub use nutcracker::Nutcracker;
pub use webdis::Webdis;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::support::process::{self, Process, Signal};

/// How long a peer may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a peer and waits until it listens on `port`.
fn start(program: &str, package: &str, words: &[&str], folder: &Path, port: u16) -> anyhow::Result<Process> {
    let mut command = process::dying_with_us(&process::program_named(program, package), Signal::Term);
    command.args(words).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::spawn(command, Signal::Term);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(local(port)).is_err() {
        if process.exited().is_some() || Instant::now() > deadline {
            let mut said = String::new();
            process.end();
            process.child().stderr.take().map(|mut pipe| pipe.read_to_string(&mut said)).transpose()?;
            bail!("{program} does not listen on port {port}: {said}");
        }
        std::thread::sleep(process::TICK);
    }
    Ok(process)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
