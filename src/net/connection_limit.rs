//! The limit on connections: how many the file descriptors allow, and the refusal of connections beyond the limit,
//! with an answer if that is possible without delaying other connections.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many descriptors are kept for everything except connections to clients and shards: standard streams, the
/// runtime, the database, and files that are opened for a short time. The number is generous.
const OWN_DESCRIPTORS: usize = 128;

/// How many refused connections may wait for their client at the same time. Connections beyond this number are
/// answered and closed at once.
const REFUSALS_AT_ONCE: usize = 256;

/// How long a refused client may take to send its request. Many clients ignore a response that arrives before they
/// have sent their request.
const FIRST_BYTE: Duration = Duration::from_millis(500);

/// How long a refusal may take in total.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Raises the soft limit on file descriptors to the hard limit and returns it; `None` means no limit. A low soft
/// limit only protects programs that use `select`, and this program does not use it.
pub fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on file descriptors");
            limit.current
        }
    }
}

/// How many connections can be open with `limit` descriptors if `others` are needed for something else: at least one,
/// at most `wanted`.
pub fn possible_connections(limit: Option<u64>, wanted: usize, others: usize) -> usize {
    let needed = OWN_DESCRIPTORS + REFUSALS_AT_ONCE + others;
    let Some(limit) = limit else { return wanted };
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(needed).max(1);
    if left < wanted {
        tracing::warn!(
            limit,
            max_connections = wanted,
            connections = left,
            "too few file descriptors: fewer connections are allowed"
        );
    }
    left.min(wanted)
}

/// The limit on the connections of all listeners together. Clones share it.
#[derive(Clone)]
pub struct ConnectionLimit {
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl ConnectionLimit {
    pub fn new(max_connections: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { connections: semaphore(max_connections), refusals: semaphore(REFUSALS_AT_ONCE) }
    }

    /// The right to one more connection, held until it is dropped; `None` at the limit.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Refuses the connection at once with `answer`, or returns a future that refuses it. Never waits.
    pub fn refuse(&self, stream: TcpStream, answer: Vec<u8>) -> Option<impl Future<Output = ()> + use<>> {
        match self.refusals.clone().try_acquire_owned() {
            Ok(slot) => Some(async move {
                let _slot = slot;
                // Errors and timeouts of a refused client are ignored.
                let _ = timeout(REFUSAL_TIMEOUT, send(stream, &answer)).await;
            }),
            Err(_) => {
                send_at_once(stream, &answer);
                None
            }
        }
    }
}

/// Sends the response, then reads and discards what the client sends until the client closes. If a connection is
/// closed while it has unread bytes, the kernel resets it, and the response can be lost.
async fn send(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut unread = [0; 1024];
    // A real read, not a readiness check: the runtime reports a new socket as readable at once.
    let _ = timeout(FIRST_BYTE, stream.read(&mut unread)).await;
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Like [`send`], but without waiting. It calls the kernel directly, because the runtime may not know yet that a new
/// socket is writable.
fn send_at_once(stream: TcpStream, answer: &[u8]) {
    let sent = stream.into_std().and_then(|mut stream| {
        stream.write_all(answer)?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0; 16 * 1024])
    });
    if let Err(error) = sent {
        tracing::trace!(%error, "refused a connection without a response");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_connections_depends_on_the_descriptors() {
        let needed = OWN_DESCRIPTORS + REFUSALS_AT_ONCE;
        assert_eq!(possible_connections(None, 16_384, 100), 16_384);
        assert_eq!(possible_connections(Some(1_000_000), 16_384, 100), 16_384);
        assert_eq!(possible_connections(Some(1024), 16_384, 10), 1024 - needed - 10);
        assert_eq!(possible_connections(Some(100), 16_384, 10), 1);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_limit() {
        let raised = raise_descriptors();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
    }
}
