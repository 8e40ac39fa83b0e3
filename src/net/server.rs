//! The server: accepts the connections of one protocol up to the limit, gives them to the workers, and lets them
//! finish when the process stops.
//!
//! There is one listener for all workers, not one per worker with `SO_REUSEPORT`. So connections are spread evenly
//! instead of randomly, and no connection is lost in the queue of a listener that closes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::Gauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_limit::ConnectionLimit;
use super::panic::record_panic;
use super::shutdown::{ShutdownReceiver, ShutdownSignal};
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

/// What a client can speak on a connection.
pub trait Protocol: Send + Sync + 'static {
    /// Serves a connection until its end. After `closing`, it ends as soon as the requests that have arrived are
    /// answered.
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        closing: ShutdownReceiver,
    ) -> impl Future<Output = ()> + Send;

    /// The answer on a connection beyond the limit.
    fn refusal(&self) -> Vec<u8>;
}

/// Accepts connections on a listener.
pub struct Server<P> {
    protocol: Arc<P>,
    workers: Arc<Workers>,
    limit: ConnectionLimit,
    drain_timeout: Duration,
    /// The number of open connections.
    open: Gauge,
    metrics: Arc<Metrics>,
}

impl<P: Protocol> Server<P> {
    pub fn new(
        protocol: P,
        workers: Arc<Workers>,
        limit: ConnectionLimit,
        drain_timeout: Duration,
        open: Gauge,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { protocol: Arc::new(protocol), workers, limit, drain_timeout, open, metrics }
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
        let Some(slot) = self.limit.admit() else {
            self.metrics.connections_refused.increment(1);
            if let Some(refusal) = self.limit.refuse(stream, self.protocol.refusal()) {
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
        let (protocol, metrics, closing) = (self.protocol.clone(), self.metrics.clone(), closing.closing());
        let open = self.open.clone();
        let runtime = place.runtime.clone();
        let task = async move {
            let (_slot, _place) = (slot, place);
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    open.increment(1.0);
                    serve(&*protocol, stream, peer, closing, &metrics).await;
                    open.decrement(1.0);
                }
                Err(error) => tracing::warn!(%error, "cannot move a connection to its worker"),
            }
        };
        tasks.spawn_on(task, &runtime);
    }
}

/// Serves a connection until its end. The protocol catches panics in requests. Any other panic is caught here and ends
/// the connection.
async fn serve<P: Protocol>(
    protocol: &P,
    stream: TcpStream,
    peer: SocketAddr,
    closing: ShutdownReceiver,
    metrics: &Metrics,
) {
    // Responses are written as a whole, so Nagle's algorithm would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let served = AssertUnwindSafe(protocol.serve(stream, peer, closing)).catch_unwind().await;
    if let Err(panic) = served {
        record_panic(&*panic, metrics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Sends the first bytes of the client back, and panics if they are `panic`.
    struct Echo;

    impl Protocol for Echo {
        async fn serve(&self, mut stream: TcpStream, _: SocketAddr, _: ShutdownReceiver) {
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_ne!(&bytes, b"panic");
            stream.write_all(&bytes).await.unwrap();
        }

        fn refusal(&self) -> Vec<u8> {
            b"full".to_vec()
        }
    }

    async fn ask(address: SocketAddr, bytes: &[u8; 5]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn eventually(condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), met).await.expect("the condition is met in the end");
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_connection_and_one_beyond_the_limit_is_refused() {
        let (metrics, shutdown) = (Arc::new(Metrics::default()), CancellationToken::new());
        let workers = Arc::new(Workers::start(None).unwrap());
        let limit = ConnectionLimit::new(1);
        let server =
            Server::new(Echo, workers, limit, Duration::from_secs(8), metrics.connections.clone(), metrics.clone());
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(server.run(listener, shutdown.clone()));

        assert_eq!(ask(address, b"panic").await, "");
        // The worker counts the panic after the connection has ended.
        let shows = |line: &str| metrics.render().contains(line);
        eventually(|| shows("sidecache_panics_total 1") && shows("sidecache_http_connections 0")).await;
        assert_eq!(ask(address, b"again").await, "again");
        eventually(|| shows("sidecache_http_connections 0")).await;
        let open = TcpStream::connect(address).await.unwrap();
        eventually(|| shows("sidecache_http_connections 1")).await;
        assert_eq!(ask(address, b"third").await, "full");
        assert!(shows("sidecache_http_connections_refused_total 1"));
        drop(open);
        shutdown.cancel();
        running.await.unwrap();
    }
}
