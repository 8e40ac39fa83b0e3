//! A TCP gate in front of a Redis. It holds back single answers and everything behind them on the same connection,
//! for tests in which two answers overtake each other. For faults of the whole network see [`proxy`](super::proxy).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::redis::Redis;

pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `Some` until the drop.
    runtime: Option<Runtime>,
}

struct Shared {
    server: SocketAddr,
    /// An answer that contains one of these is held.
    needles: watch::Sender<Vec<&'static str>>,
    held: AtomicU64,
}

impl Gate {
    /// A gate on a free port that passes everything on.
    pub fn in_front_of(redis: &Redis) -> Gate {
        let url = redis.url();
        let server = url.strip_prefix("redis://").and_then(|address| address.parse().ok());
        let server = server.unwrap_or_else(|| panic!("{url} has an address"));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { server, needles: watch::Sender::default(), held: AtomicU64::new(0) });
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("gate").enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Gate { address, shared, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Stops passing on the answers of a connection as soon as one contains `needle`, until [`Gate::release`].
    pub fn hold(&self, needle: &'static str) {
        self.shared.needles.send_modify(|needles| needles.push(needle));
    }

    /// Passes on what was held for `needle`: late, but complete and in order.
    pub fn release(&self, needle: &'static str) {
        self.shared.needles.send_modify(|needles| needles.retain(|held| *held != needle));
    }

    /// How often a connection was held so far.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop would block until the thread ends, which panics inside a test's runtime.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    loop {
        let (client, _) = listener.accept().await.expect("the gate can accept");
        let shared = Arc::clone(&shared);
        // When one side is gone, `pass` returns an error and both sockets are closed. Nothing else is to do.
        tokio::spawn(async move { pass(client, &shared).await });
    }
}

async fn pass(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended.map(drop),
        ended = answers(&mut from_server, &mut to_client, shared) => ended,
    }
}

async fn answers(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
) -> io::Result<()> {
    let mut needles = shared.needles.subscribe();
    let mut chunk = vec![0; 64 * 1024];
    // The end of the previous reads, since a needle may be split across two reads.
    let mut before = Vec::new();
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        before.extend_from_slice(&chunk[..length]);
        let passes = |needles: &Vec<&'static str>| !needles.iter().any(|needle| contains(&before, needle));
        if !passes(&needles.borrow_and_update()) {
            shared.held.fetch_add(1, Ordering::SeqCst);
            if needles.wait_for(passes).await.is_err() {
                return Ok(());
            }
        }
        before.drain(..before.len().saturating_sub(32));
        to.write_all(&chunk[..length]).await?;
    }
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}
