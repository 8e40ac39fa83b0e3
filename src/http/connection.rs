//! One connection from its start to its end. The fast path and the router take turns on it.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service as _;

use super::error;
use super::extract::Peer;
use super::fast_path::{End, FastPath, MAX_HEADER_BYTES};
use super::router_stream::{READ_BYTES, RouterStream};
use crate::config::HttpConfig;
use crate::metrics::Metrics;
use crate::net::{HeadTimeouts, Protocol, RequestIds, ShutdownReceiver, Wire};

/// Serves the connections of HTTP clients.
pub struct Connections {
    /// If absent, the router answers all requests.
    fast_path: Option<FastPath>,
    router: Router,
    http: http1::Builder,
    /// How long a write may take without progress.
    write_timeout: Duration,
    timeouts: HeadTimeouts,
    /// For the refusals of connections.
    ids: RequestIds,
    metrics: Arc<Metrics>,
}

impl Protocol for Connections {
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        closing: ShutdownReceiver,
    ) -> impl Future<Output = ()> + Send {
        self.take_turns(stream, peer, closing)
    }

    fn refusal(&self) -> Vec<u8> {
        error::too_many_connections(&self.ids.next())
    }
}

impl Connections {
    pub fn new(
        router: Router,
        fast_path: Option<FastPath>,
        config: &HttpConfig,
        ids: RequestIds,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut http = http1::Builder::new();
        // `HeadTimer` applies the deadline for heads.
        http.header_read_timeout(None)
            .max_header_size(MAX_HEADER_BYTES)
            .max_buf_size(READ_BYTES)
            // A client that has closed its sending side may still wait for a response.
            .half_close(true);
        Self { fast_path, router, http, write_timeout: config.request_timeout, timeouts: config.into(), ids, metrics }
    }

    /// Lets the fast path and the router take turns until the connection ends.
    async fn take_turns(&self, stream: TcpStream, peer: SocketAddr, mut closing: ShutdownReceiver) {
        let mut wire = Wire::new(stream, self.write_timeout, self.timeouts);
        loop {
            if let Some(fast_path) = &self.fast_path {
                match fast_path.serve(&mut wire, peer.ip(), &mut closing).await {
                    Ok(End::Router) => {}
                    Ok(End::Closed) => return,
                    Ok(End::Slow) => return self.metrics.connections_slow.increment(1),
                    Err(error) => return self.record_end(&error, Some(&error)),
                }
            }
            match self.route(wire, peer, &mut closing).await {
                Some(left) => wire = left,
                None => return,
            }
        }
    }

    /// Lets the router answer requests until the next request is for the fast path, or the connection ends.
    async fn route(&self, wire: Wire, peer: SocketAddr, closing: &mut ShutdownReceiver) -> Option<Wire> {
        // During shutdown the fast path does not get the connection back: hyper sends `Connection: close` and ends
        // it.
        let hosts = self.fast_path.as_ref().filter(|_| !closing.is_given()).map(FastPath::hosts);
        let stream = RouterStream::new(wire, hosts);
        let state = stream.state();
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip()));
            state.serve(self.router.clone().call(request))
        });
        let mut connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut is_closing = false;
        let ended = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Some(result));
                }
                if state.is_left() {
                    return Poll::Ready(None);
                }
                if is_closing || closing.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                is_closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        });
        let Some(result) = ended.await else {
            return Some(connection.into_parts().io.into_inner().into_wire());
        };
        if connection.into_parts().io.inner().is_slow() {
            self.metrics.connections_slow.increment(1);
        }
        if let Err(error) = result {
            self.record_end(&error, error.source().and_then(|cause| cause.downcast_ref()));
        }
        None
    }

    /// Records that a connection ended with an error: the client disconnected, sent invalid HTTP or did not read. Not
    /// a fault of this service.
    fn record_end(&self, error: &dyn Error, cause: Option<&io::Error>) {
        tracing::debug!(%error, "connection ended");
        if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut) {
            self.metrics.connections_stalled.increment(1);
        }
    }
}
