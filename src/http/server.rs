//! The server: accepts connections up to the limit, gives them to the workers, and lets them finish when the process
//! stops.
//!
//! There is one listener for all workers, not one per worker with `SO_REUSEPORT`. So connections are spread evenly
//! instead of randomly, and no connection is lost in the queue of a listener that closes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connections;
use super::connection_limit::ConnectionRefuser;
use super::request_id::RequestIds;
use super::shutdown::ShutdownSignal;
use crate::config::HttpConfig;
use crate::metrics::Metrics;
use crate::workers::Workers;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// How long to wait before the next attempt after a connection could not be accepted, for example because no file
/// descriptor was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// For how long after the stop signal connections are still accepted, and then for how long their requests are still
/// read. A connection that is told to finish before its request was read is closed without a response.
const GRACE: Duration = Duration::from_millis(250);

/// Opens the listening socket.
///
/// # Errors
/// The address is in use, or is not an address of this machine.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the connections of the previous process have timed out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections on a listener.
pub struct Server {
    connections: Arc<Connections>,
    workers: Arc<Workers>,
    slots: Arc<Semaphore>,
    refusals: ConnectionRefuser,
    drain_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Server {
    pub fn new(
        connections: Connections,
        workers: Arc<Workers>,
        config: &HttpConfig,
        ids: RequestIds,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            connections: Arc::new(connections),
            workers,
            slots: Arc::new(Semaphore::new(config.max_connections)),
            refusals: ConnectionRefuser::new(ids),
            drain_timeout: config.drain_timeout,
            metrics,
        }
    }

    /// Accepts connections until `shutdown` and for [`GRACE`] longer (at most an eighth of the drain time), and waits
    /// as long again for requests that were not read yet. Running requests have until three quarters of the drain time
    /// are over. The rest is for data that the process still has to write.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let (tasks, closing) = (TaskTracker::new(), ShutdownSignal::default());
        // A short drain time is divided in the same way as a long one.
        let grace = GRACE.min(self.drain_timeout / 8);
        let enough = async {
            shutdown.cancelled().await;
            let deadline = Instant::now() + self.drain_timeout * 3 / 4;
            // Connections that were opened before the signal may still wait to be accepted.
            sleep(grace).await;
            deadline
        };
        let deadline = tokio::select! {
            deadline = enough => deadline,
            never = self.accept(&listener, &tasks, &closing) => match never {},
        };
        drop(listener);
        // The worker of the last accepted connection may not have read its request yet.
        sleep(grace).await;
        closing.give();
        tasks.close();
        if timeout_at(deadline, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "the drain time is over: closing the remaining connections");
        }
    }

    async fn accept(&self, listener: &TcpListener, tasks: &TaskTracker, closing: &ShutdownSignal) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.take(stream, peer, tasks, closing),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives a connection to a worker, or refuses it.
    fn take(&self, stream: TcpStream, peer: SocketAddr, tasks: &TaskTracker, closing: &ShutdownSignal) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.metrics.connections_refused.increment(1);
            if let Some(refusal) = self.refusals.refuse(stream) {
                tasks.spawn(refusal);
            }
            return;
        };
        // The socket must be registered with the runtime of the worker.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "cannot move a connection to its worker"),
        };
        let place = self.workers.place();
        let (connections, closing) = (self.connections.clone(), closing.closing());
        let runtime = place.runtime.clone();
        let task = async move {
            let (_slot, _place) = (slot, place);
            match TcpStream::from_std(stream) {
                Ok(stream) => connections.serve(stream, peer, closing).await,
                Err(error) => tracing::warn!(%error, "cannot move a connection to its worker"),
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
        panic!("not caught by any layer")
    }

    #[tokio::test]
    async fn a_panic_outside_the_request_layers_ends_only_its_connection() {
        let settings = [("LISTEN", "127.0.0.1:0"), ("MAX_CONNECTIONS", "1"), ("DATABASE_URL", "sqlite::memory:")];
        let settings = settings.map(|(name, value)| (format!("SIDECACHE_{name}"), value.to_owned()));
        let config = Config::parse(&Settings::gather(None, settings, []).unwrap()).unwrap().http;
        let (metrics, shutdown) = (Arc::new(Metrics::default()), CancellationToken::new());
        // The routes have no `Bounds` around them, because `Bounds` would catch the panic.
        let router = Router::new().route("/panics", get(panics)).route("/fine", get(async || "fine"));
        let connections = Connections::new(router, None, &config, metrics.clone());
        let workers = Arc::new(Workers::start(None).unwrap());
        let server = Server::new(connections, workers, &config, RequestIds::new("test"), metrics.clone());
        let listener = bind(config.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(server.run(listener, shutdown.clone()));

        assert_eq!(ask(address, "/panics").await, "");
        // The worker counts the panic after the connection has ended.
        let is_counted = || {
            let shown = metrics.render();
            shown.contains("sidecache_panics_total 1") && shown.contains("sidecache_http_connections 0")
        };
        let counted = async {
            while !is_counted() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), counted)
            .await
            .expect("the panic and the end of its connection are counted");
        assert!(ask(address, "/fine").await.ends_with("fine"));
        shutdown.cancel();
        running.await.unwrap();
    }
}
