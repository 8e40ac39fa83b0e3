//! An asynchronous runtime for the few commands that need one, and Ctrl-C.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Exit, Failure};

pub fn runtime() -> Result<Runtime, Failure> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::new(Exit::Failed, format!("cannot start the asynchronous runtime: {error}")))
}

/// Returns a channel that receives Ctrl-C. After this call, Ctrl-C does not end the process.
pub fn interrupts() -> Result<mpsc::Receiver<()>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let runtime = runtime()?;
    let mut signal = runtime
        .block_on(async { signal(SignalKind::interrupt()) })
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot listen for Ctrl-C: {error}")))?;
    thread::spawn(move || {
        runtime.block_on(signal.recv());
        // The receiver no longer exists once the job has ended.
        let _ = sender.send(());
    });
    Ok(receiver)
}
