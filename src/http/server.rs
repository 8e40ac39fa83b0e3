//! The listener: accepts connections, bounds them, and lets them finish when the process stops.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::error;
use super::refusal::Refusals;
use super::request_id::Numbered;
use crate::config::HttpConfig;
use crate::metrics::Metrics;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Pause after a failure to accept, such as having no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How long requests that were sent before the process was asked to stop are still taken: a
/// connection told to finish before its request was read would be closed unanswered.
const GRACE: Duration = Duration::from_millis(250);

/// The longest header of a request, and the most that is read from a connection at a time, in bytes: one
/// that sent a large body keeps up to twice as much memory.
const MAX_HEADER_BYTES: usize = 32 * 1024;
const READ_BYTES: usize = 32 * 1024;

/// The other end of a connection, noted with requests that may change something.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Opens the listening socket.
///
/// # Errors
/// The address is in use or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves a router on a listener.
pub struct Server {
    router: Router,
    http: http1::Builder,
    slots: Arc<Semaphore>,
    refusals: Refusals,
    drain_timeout: Duration,
    /// How long a write may make no progress.
    write_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Server {
    pub fn new(router: Router, config: &HttpConfig, ids: Numbered, metrics: Arc<Metrics>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_header_size(MAX_HEADER_BYTES)
            .max_buf_size(READ_BYTES)
            // Who has no more to send may still want an answer.
            .half_close(true);
        Self {
            router,
            http,
            slots: Arc::new(Semaphore::new(config.max_connections)),
            refusals: Refusals::new(ids),
            drain_timeout: config.drain_timeout,
            write_timeout: config.request_timeout,
            metrics,
        }
    }

    /// Accepts until `shutdown` and a moment longer, then lets requests under way finish for most of
    /// the drain time; the rest is for what the process has to write.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let enough = async {
            shutdown.cancelled().await;
            // Who connected before the signal may still be waiting to be accepted.
            sleep(GRACE.min(self.drain_timeout)).await;
        };
        let mut enough = pin!(enough);
        loop {
            let accepted = tokio::select! {
                () = &mut enough => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match self.slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        connections.spawn(self.serve(stream, peer, slot, shutdown.clone()));
                    }
                    Err(_) => {
                        self.metrics.connections_refused.increment(1);
                        if let Some(refusal) = self.refusals.refuse(stream) {
                            connections.spawn(refusal);
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        if timeout(self.drain_timeout * 3 / 4, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections cut at the end of the drain time");
        }
    }

    /// Serves a connection until its end. Requests have a net for panics of their own: what comes down to
    /// this one cost the connection.
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let metrics = self.metrics.clone();
        let connection = self.connection(stream, peer, shutdown);
        async move {
            let _slot = slot;
            metrics.connections.increment(1.0);
            let served = AssertUnwindSafe(connection).catch_unwind().await;
            metrics.connections.decrement(1.0);
            if let Err(panic) = served {
                let panic: &(dyn Any + Send) = &*panic;
                error::note_panic(panic, &metrics);
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let router = self.router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            // Reads need nobody's name, and pay nothing for it.
            if !request.method().is_safe() {
                request.extensions_mut().insert(Peer(peer.ip()));
            }
            router.clone().call(request)
        });
        let (http, metrics, write_timeout) = (self.http.clone(), self.metrics.clone(), self.write_timeout);
        async move {
            // Answers are written whole: waiting for more would only delay them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            // A client that does not read its answer must not hold its connection for ever.
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(write_timeout));
            let mut connection = http.serve_connection(TokioIo::new(stream), service);
            let ended = tokio::select! {
                result = &mut connection => Some(result),
                () = async { shutdown.cancelled().await; sleep(GRACE).await } => None,
            };
            let result = match ended {
                Some(result) => result,
                None => {
                    Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            };
            if let Err(error) = result {
                // The client went away, sent no HTTP or did not read: its own affair.
                tracing::debug!(%error, "connection ended");
                if is_stalled(&error) {
                    metrics.connections_stalled.increment(1);
                } else if error.is_timeout() && !connection.into_parts().read_buf.is_empty() {
                    // One that sent nothing was idle.
                    metrics.connections_slow.increment(1);
                }
            }
        }
    }
}

/// Whether a connection ended as its client did not read.
fn is_stalled(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn panics() -> &'static str {
        panic!("beyond every net")
    }

    #[tokio::test]
    async fn a_panic_beside_the_requests_costs_its_connection_and_no_more() {
        let settings = [("LISTEN", "127.0.0.1:0"), ("MAX_CONNECTIONS", "1"), ("DATABASE_URL", "sqlite::memory:")];
        let settings = settings.map(|(name, value)| (format!("SIDECACHE_{name}"), value.to_owned()));
        let config = Config::parse(&Settings::gather(None, settings, []).unwrap()).unwrap().http;
        let (metrics, shutdown) = (Arc::new(Metrics::default()), CancellationToken::new());
        // Without `Bounds`, which would answer for the request.
        let router = Router::new().route("/panics", get(panics)).route("/fine", get(async || "fine"));
        let server = Server::new(router, &config, Numbered::new("test"), metrics.clone());
        let listener = bind(config.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(server.run(listener, shutdown.clone()));

        assert_eq!(ask(address, "/panics").await, "");
        let shown = metrics.render();
        assert!(
            shown.contains("sidecache_panics_total 1") && shown.contains("sidecache_http_connections 0"),
            "{shown}"
        );
        assert!(ask(address, "/fine").await.ends_with("fine"));
        shutdown.cancel();
        running.await.unwrap();
    }
}
