//! Refuses connections beyond the limit, with a 503 if that is possible without delaying other connections.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error;
use super::request_id::RequestIds;

/// How many refused connections may wait for their client at the same time. Connections beyond this number are
/// answered and closed at once.
pub const AT_ONCE: usize = 256;

/// How long a refused client may take to send its request. Many clients ignore a response that arrives before they
/// have sent their request.
const FIRST_BYTE: Duration = Duration::from_millis(500);

/// How long a refusal may take in total.
const PATIENCE: Duration = Duration::from_secs(1);

/// Refuses connections.
pub struct ConnectionRefuser {
    slots: Arc<Semaphore>,
    ids: RequestIds,
}

impl ConnectionRefuser {
    pub fn new(ids: RequestIds) -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), ids }
    }

    /// Refuses the connection at once, or returns a future that refuses it. Never waits.
    pub fn refuse(&self, stream: TcpStream) -> Option<impl Future<Output = ()> + use<>> {
        let answer = error::too_many_connections(&self.ids.next());
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => Some(async move {
                let _slot = slot;
                // Errors and timeouts of a refused client are ignored.
                let _ = timeout(PATIENCE, tell(stream, &answer)).await;
            }),
            Err(_) => {
                tell_at_once(stream, &answer);
                None
            }
        }
    }
}

/// Sends the response, then reads and discards what the client sends until the client closes. If a connection is
/// closed while it has unread bytes, the kernel resets it, and the response can be lost.
async fn tell(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut unread = [0; 1024];
    // A real read, not a readiness check: the runtime reports a new socket as readable at once.
    let _ = timeout(FIRST_BYTE, stream.read(&mut unread)).await;
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Like [`tell`], but without waiting. It calls the kernel directly, because the runtime may not know yet that a new
/// socket is writable.
fn tell_at_once(stream: TcpStream, answer: &[u8]) {
    let told = stream.into_std().and_then(|mut stream| {
        stream.write_all(answer)?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0; 16 * 1024])
    });
    if let Err(error) = told {
        tracing::trace!(%error, "refused a connection without a response");
    }
}
