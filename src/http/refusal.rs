//! Refuses connections beyond the most that may be open, with an answer where that can be had without
//! making anybody wait.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error;
use super::request_id::Numbered;

/// Connections that are refused with patience at a time; any beyond are told and closed at once.
pub const AT_ONCE: usize = 256;

/// How long a client gets to send its request: many take an answer before it for noise.
const FIRST_BYTE: Duration = Duration::from_millis(500);

/// How long a refusal may take in all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Refuses connections.
pub struct Refusals {
    slots: Arc<Semaphore>,
    ids: Numbered,
}

impl Refusals {
    pub fn new(ids: Numbered) -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), ids }
    }

    /// Refuses a connection, or returns the task that does. Never waits.
    pub fn refuse(&self, stream: TcpStream) -> Option<impl Future<Output = ()> + use<>> {
        let answer = error::too_many_connections(&self.ids.next());
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => Some(async move {
                let _slot = slot;
                // The client's own affair, as with every connection.
                let _ = timeout(PATIENCE, tell(stream, &answer)).await;
            }),
            Err(_) => {
                tell_at_once(stream, &answer);
                None
            }
        }
    }
}

/// Answers the request. What the client still sends is read until it closes: a connection that is closed
/// upon unread bytes is reset, and the answer may be lost with it.
async fn tell(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut unread = [0; 1024];
    // Reads, and does not ask whether it could: a socket that is new is said to be readable at once.
    let _ = timeout(FIRST_BYTE, stream.read(&mut unread)).await;
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// The same as far as it goes without waiting. The kernel is asked, as the runtime may not know yet whether
/// a socket that is new can be written to.
fn tell_at_once(stream: TcpStream, answer: &[u8]) {
    let told = stream.into_std().and_then(|mut stream| {
        stream.write_all(answer)?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0; 16 * 1024])
    });
    if let Err(error) = told {
        tracing::trace!(%error, "refused without an answer");
    }
}
