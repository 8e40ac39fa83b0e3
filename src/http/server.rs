//! The listener: accepts connections, bounds them, gives them to the workers, and lets them finish when the
//! process stops.
//!
//! One listener for all workers, rather than one a worker with `SO_REUSEPORT`: connections are spread evenly
//! and not by chance, and none is lost in the queue of a listener that closes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::closing::Signal;
use super::connection::Connections;
use super::refusal::Refusals;
use super::request_id::Numbered;
use crate::config::HttpConfig;
use crate::metrics::Metrics;
use crate::workers::Workers;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Pause after a failure to accept, such as having no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How long requests that were sent before the process was asked to stop are still taken: a
/// connection told to finish before its request was read would be closed unanswered.
const GRACE: Duration = Duration::from_millis(250);

/// The longest header of a request, and the most that is read from a connection at a time, in bytes: one
/// that sent a large body keeps up to twice as much memory.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;
pub const READ_BYTES: usize = 32 * 1024;

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

/// Accepts connections on a listener.
pub struct Server {
    connections: Arc<Connections>,
    workers: Arc<Workers>,
    slots: Arc<Semaphore>,
    refusals: Refusals,
    drain_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Server {
    pub fn new(
        connections: Connections,
        workers: Arc<Workers>,
        config: &HttpConfig,
        ids: Numbered,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            connections: Arc::new(connections),
            workers,
            slots: Arc::new(Semaphore::new(config.max_connections)),
            refusals: Refusals::new(ids),
            drain_timeout: config.drain_timeout,
            metrics,
        }
    }

    /// Accepts until `shutdown` and a moment longer, then lets requests under way finish for most of
    /// the drain time; the rest is for what the process has to write.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let (tasks, closing) = (TaskTracker::new(), Signal::default());
        let enough = async {
            shutdown.cancelled().await;
            // Who connected before the signal may still be waiting to be accepted, and requests that were sent
            // before it are still taken.
            sleep(GRACE.min(self.drain_timeout)).await;
        };
        tokio::select! {
            () = enough => {}
            () = self.accept(&listener, &tasks, &closing) => {}
        }
        drop(listener);
        // So does who was accepted last, and may have sent a request that his worker has not seen yet.
        sleep(GRACE.min(self.drain_timeout)).await;
        closing.give();
        tasks.close();
        if timeout(self.drain_timeout * 3 / 4, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections cut at the end of the drain time");
        }
    }

    async fn accept(&self, listener: &TcpListener, tasks: &TaskTracker, closing: &Signal) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.take(stream, peer, tasks, closing),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives a connection to a worker, or refuses it.
    fn take(&self, stream: TcpStream, peer: SocketAddr, tasks: &TaskTracker, closing: &Signal) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.metrics.connections_refused.increment(1);
            if let Some(refusal) = self.refusals.refuse(stream) {
                tasks.spawn(refusal);
            }
            return;
        };
        // The worker's own runtime has to know the socket.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection was lost on its way"),
        };
        let place = self.workers.place();
        let (connections, closing) = (self.connections.clone(), closing.closing());
        let runtime = place.runtime().clone();
        let task = async move {
            let (_slot, _place) = (slot, place);
            match TcpStream::from_std(stream) {
                Ok(stream) => connections.serve(stream, peer, closing).await,
                Err(error) => tracing::warn!(%error, "a connection was lost on its way"),
            }
        };
        tasks.spawn_on(task, &runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
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
        let connections = Connections::new(router, None, &config, metrics.clone());
        let workers = Arc::new(Workers::start(None).unwrap());
        let server = Server::new(connections, workers, &config, Numbered::new("test"), metrics.clone());
        let listener = bind(config.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(server.run(listener, shutdown.clone()));

        assert_eq!(ask(address, "/panics").await, "");
        // Counted on its worker, when the connection is gone.
        let is_counted = || {
            let shown = metrics.render();
            shown.contains("sidecache_panics_total 1") && shown.contains("sidecache_http_connections 0")
        };
        let counted = async {
            while !is_counted() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(30), counted).await.expect("the panic and the end of its connection are counted");
        assert!(ask(address, "/fine").await.ends_with("fine"));
        shutdown.cancel();
        running.await.unwrap();
    }
}
