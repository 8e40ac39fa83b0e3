//! A TCP proxy in front of one server, for what a network does to a connection: bytes that come late,
//! peers that are gone without a word, cuts.
//!
//! It runs on a thread of its own, so it passes bytes on while a test blocks its own thread. What it does
//! is a plain value, the [`Orders`], that every connection watches; connections are numbered in the
//! order of their arrival.

use std::future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::postgres::Postgres;
use super::redis::Redis;

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Taken by the drop alone.
    runtime: Option<Runtime>,
}

struct Shared {
    server: SocketAddr,
    orders: watch::Sender<Orders>,
    /// Connections accepted so far; the next one has this number.
    accepted: AtomicU64,
    /// How often a connection has been held up so far.
    held: AtomicU64,
    /// How many connections lost their answers so far.
    muted: AtomicU64,
}

/// What is done to connections. The default is to pass everything on.
#[derive(Default)]
struct Orders {
    /// Connections below this number are closed.
    cut_below: u64,
    /// Connections below this number stay open, and nothing comes through in either direction.
    swallow_below: u64,
    /// A connection whose client sends this is held from there on.
    hold: Option<&'static str>,
    /// A connection whose client sends this hears nothing from then on; what it sends arrives.
    mute: Option<&'static str>,
}

impl Proxy {
    /// A proxy on a free port that passes everything on.
    pub fn in_front_of(redis: &Redis) -> Proxy {
        let url = redis.url();
        let redis = url.strip_prefix("redis://").and_then(|address| address.parse().ok());
        Proxy::to(redis.unwrap_or_else(|| panic!("{url} has an address")))
    }

    /// The same in front of a PostgreSQL; see [`Proxy::address`].
    pub fn in_front_of_postgres(postgres: &Postgres) -> Proxy {
        Proxy::to(postgres.address())
    }

    fn to(server: SocketAddr) -> Proxy {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let (accepted, held, muted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { server, orders: watch::Sender::default(), accepted, held, muted });
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("proxy").enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Proxy { address, shared, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Holds up what a client sends from the bytes on that contain `needle`, on connections old and
    /// new, in this direction alone. Until [`Proxy::release`].
    pub fn hold(&self, needle: &'static str) {
        self.shared.orders.send_modify(|orders| orders.hold = Some(needle));
    }

    /// Where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the moment on at which a client sends `needle`, its connection loses the answers, for good.
    /// Until [`Proxy::unmute`] for those that did not send it by then.
    pub fn mute(&self, needle: &'static str) {
        self.shared.orders.send_modify(|orders| orders.mute = Some(needle));
    }

    pub fn unmute(&self) {
        self.shared.orders.send_modify(|orders| orders.mute = None);
    }

    /// How many connections have lost their answers so far.
    pub fn muted(&self) -> u64 {
        self.shared.muted.load(Ordering::SeqCst)
    }

    /// Passes on everything that is held, late but whole and in order, and holds nothing any more.
    pub fn release(&self) {
        self.shared.orders.send_modify(|orders| orders.hold = None);
    }

    /// Makes the connections of this moment half-open for good: each side may send and hears nothing,
    /// not even the end of the other. New connections pass.
    pub fn swallow_all(&self) {
        let below = self.accepted();
        self.shared.orders.send_modify(|orders| orders.swallow_below = below);
    }

    /// Closes the connections of this moment, swallowed and held ones, too. New connections pass.
    pub fn cut_all(&self) {
        let below = self.accepted();
        self.shared.orders.send_modify(|orders| orders.cut_below = below);
    }

    /// How many connections there have been so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How often a connection has been held up so far.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop would wait for the thread, which a test's runtime forbids.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    loop {
        let (client, _) = listener.accept().await.expect("the proxy can accept");
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        // A connection ends with an error when either side is gone: both are then closed, and that is all.
        tokio::spawn(async move { pass(client, number, &shared).await });
    }
}

/// Serves one connection until either side ends it or it is cut.
async fn pass(mut client: TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut orders = shared.orders.subscribe();
    let muted = AtomicBool::new(false);
    tokio::select! {
        ended = pump(&mut from_client, &mut to_server, number, shared, &muted, Direction::ToServer) => ended,
        ended = pump(&mut from_server, &mut to_client, number, shared, &muted, Direction::ToClient) => ended,
        _ = orders.wait_for(|orders| number < orders.cut_below) => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    number: u64,
    shared: &Shared,
    muted: &AtomicBool,
    direction: Direction,
) -> io::Result<()> {
    let mut orders = shared.orders.subscribe();
    let mut chunk = vec![0; 64 * 1024];
    // The end of what was read before: a needle may lie across two reads. Its first half has then been
    // passed on, which is half a command and does nothing.
    let mut before = Vec::new();
    loop {
        let read = from.read(&mut chunk).await;
        if number < orders.borrow().swallow_below {
            match read {
                Ok(1..) => continue,
                // The other side is not to learn of the end.
                Ok(0) | Err(_) => future::pending().await,
            }
        }
        let bytes = match read? {
            0 => return Ok(()),
            length => &chunk[..length],
        };
        if direction == Direction::ToServer {
            before.extend_from_slice(bytes);
            let needle = orders.borrow().mute;
            if needle.is_some_and(|needle| contains(&before, needle)) && !muted.swap(true, Ordering::SeqCst) {
                shared.muted.fetch_add(1, Ordering::SeqCst);
            }
            let needle = orders.borrow().hold;
            if needle.is_some_and(|needle| contains(&before, needle)) {
                shared.held.fetch_add(1, Ordering::SeqCst);
                if orders.wait_for(|orders| orders.hold.is_none()).await.is_err() {
                    return Ok(());
                }
            }
            before.drain(..before.len().saturating_sub(32));
        } else if muted.load(Ordering::SeqCst) {
            continue;
        }
        to.write_all(bytes).await?;
    }
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}
