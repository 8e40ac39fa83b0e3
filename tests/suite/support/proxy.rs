//! A TCP proxy in front of one server, for network faults: delayed bytes, half-open connections, cut connections.
//!
//! It runs on its own thread, so it works while a test blocks its thread. Every connection watches one plain value,
//! the [`Orders`]. Connections are numbered in the order of their arrival. A connection whose client ever sent
//! `SUBSCRIBE` is a subscriber connection, see [`Of`].

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::postgres::Postgres;
use super::redis::Redis;

/// Which connections an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    All,
    /// Connections whose client has sent [`SUBSCRIBE`].
    Subscribers,
    /// All other connections.
    Others,
}

/// Marks a connection as a subscriber connection. No other command and no script contains it.
const SUBSCRIBE: &str = "SUBSCRIBE";

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `Some` until the drop.
    runtime: Option<Runtime>,
}

struct Shared {
    server: SocketAddr,
    orders: watch::Sender<Orders>,
    /// Connections accepted so far. This is also the number of the next one.
    accepted: AtomicU64,
    /// How often a connection was held so far.
    held: AtomicU64,
    /// How many connections were muted so far.
    muted: AtomicU64,
}

/// What the proxy does to connections. By default it passes everything on.
#[derive(Default)]
struct Orders {
    /// Connections below this number are closed.
    cut_below: ByKind<u64>,
    /// Connections below this number stay open, but nothing passes in either direction.
    swallow_below: ByKind<u64>,
    /// Whether data from the server is left unread, so that it stays in the server's buffers.
    stalled: ByKind<bool>,
    /// The delays of what is sent: to the server, to the client.
    late: ByKind<[Duration; 2]>,
    /// When a client sends this, everything it sends from there on is held.
    hold: Option<&'static str>,
    /// When a client sends this, it gets no more answers. What it sends still arrives.
    mute: Option<&'static str>,
}

/// One value for subscriber connections, one for the others.
#[derive(Clone, Copy, Default)]
struct ByKind<T> {
    subscribers: T,
    others: T,
}

impl<T: Copy> ByKind<T> {
    fn set(&mut self, of: Of, value: T) {
        if of != Of::Others {
            self.subscribers = value;
        }
        if of != Of::Subscribers {
            self.others = value;
        }
    }

    fn get(&self, line: &Line) -> T {
        if line.subscribes.load(Ordering::SeqCst) { self.subscribers } else { self.others }
    }
}

impl Proxy {
    /// A proxy on a free port that passes everything on.
    pub fn in_front_of(redis: &Redis) -> Proxy {
        let url = redis.url();
        let redis = url.strip_prefix("redis://").and_then(|address| address.parse().ok());
        Proxy::to(redis.unwrap_or_else(|| panic!("{url} has an address")))
    }

    /// The same in front of a PostgreSQL. Use [`Proxy::address`] for its URL.
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

    /// Holds what a client sends, from the read that contains `needle` on, until [`Proxy::release`]. Applies to
    /// existing and new connections, and only in this direction.
    pub fn hold(&self, needle: &'static str) {
        self.shared.orders.send_modify(|orders| orders.hold = Some(needle));
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When a client sends `needle`, its connection gets no more answers, for ever. After [`Proxy::unmute`] this
    /// happens to no further connections.
    pub fn mute(&self, needle: &'static str) {
        self.shared.orders.send_modify(|orders| orders.mute = Some(needle));
    }

    pub fn unmute(&self) {
        self.shared.orders.send_modify(|orders| orders.mute = None);
    }

    /// How many connections were muted so far.
    pub fn muted(&self) -> u64 {
        self.shared.muted.load(Ordering::SeqCst)
    }

    /// Passes on everything that is held: late, but complete and in order. Nothing is held any more.
    pub fn release(&self) {
        self.shared.orders.send_modify(|orders| orders.hold = None);
    }

    /// Makes the current connections half-open for ever: each side may send, but receives nothing, not even the end
    /// of the connection. New connections work.
    pub fn swallow(&self, of: Of) {
        let below = self.accepted();
        self.shared.orders.send_modify(|orders| orders.swallow_below.set(of, below));
    }

    pub fn swallow_all(&self) {
        self.swallow(Of::All);
    }

    /// Closes the current connections, including swallowed and held ones. New connections work.
    pub fn cut(&self, of: Of) {
        let below = self.accepted();
        self.shared.orders.send_modify(|orders| orders.cut_below.set(of, below));
    }

    pub fn cut_all(&self) {
        self.cut(Of::All);
    }

    /// Passes on all data in order and with these delays, on existing and new connections.
    pub fn delay(&self, of: Of, to_server: Duration, to_client: Duration) {
        self.shared.orders.send_modify(|orders| orders.late.set(of, [to_server, to_client]));
    }

    /// Reads nothing more from the server on existing and new connections, so that the data piles up on the server,
    /// until [`Proxy::flow`].
    pub fn stall(&self, of: Of) {
        self.shared.orders.send_modify(|orders| orders.stalled.set(of, true));
    }

    /// Ends what [`Proxy::stall`] began.
    pub fn flow(&self, of: Of) {
        self.shared.orders.send_modify(|orders| orders.stalled.set(of, false));
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
            // A plain drop would block until the thread ends, which panics inside a test's runtime.
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
        // When one side is gone, `pass` returns an error and both sockets are closed. Nothing else is to do.
        tokio::spawn(async move { pass(client, number, &shared).await });
    }
}

/// One connection.
struct Line {
    number: u64,
    /// Whether the client has sent [`SUBSCRIBE`].
    subscribes: AtomicBool,
    muted: AtomicBool,
}

/// Passes on data until either side closes the connection or the proxy cuts it.
async fn pass(mut client: TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut orders = shared.orders.subscribe();
    let line = Line { number, subscribes: AtomicBool::new(false), muted: AtomicBool::new(false) };
    tokio::select! {
        ended = pump(&mut from_client, &mut to_server, &line, shared, Direction::ToServer) => ended,
        ended = pump(&mut from_server, &mut to_client, &line, shared, Direction::ToClient) => ended,
        _ = orders.wait_for(|orders| number < orders.cut_below.get(&line)) => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// The limit of delayed chunks in the proxy. At the limit it reads no more.
const LATE_CHUNKS: usize = 1_024;

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    line: &Line,
    shared: &Shared,
    direction: Direction,
) -> io::Result<()> {
    let mut orders = shared.orders.subscribe();
    let mut chunk = vec![0; 64 * 1024];
    // Delayed chunks, each with the moment when it is due.
    let mut late: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut ended = None;
    // The end of the previous reads, since a needle may be split across two reads. Its first half was then passed on
    // already, but half a command has no effect.
    let mut before = Vec::new();
    loop {
        let stalled = direction == Direction::ToClient && orders.borrow().stalled.get(line);
        let swallowed = line.number < orders.borrow().swallow_below.get(line);
        if late.is_empty()
            && !swallowed
            && let Some(ended) = ended.take()
        {
            return ended;
        }
        let due = late.front().map_or_else(Instant::now, |(due, _)| *due);
        let read = tokio::select! {
            read = from.read(&mut chunk), if ended.is_none() && !stalled && late.len() < LATE_CHUNKS => read,
            () = sleep_until(due), if !late.is_empty() => {
                if let Some((_, bytes)) = late.pop_front().filter(|_| !swallowed) {
                    to.write_all(&bytes).await?;
                }
                continue;
            }
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
        };
        let bytes = match read {
            // The end of the connection is passed on only after all data has arrived, and never if the connection is
            // swallowed.
            Ok(0) => {
                ended = Some(Ok(()));
                continue;
            }
            Err(error) => {
                ended = Some(Err(error));
                continue;
            }
            Ok(length) => &chunk[..length],
        };
        // The order to swallow may have come during the wait.
        if line.number < orders.borrow().swallow_below.get(line) {
            continue;
        }
        if direction == Direction::ToServer {
            before.extend_from_slice(bytes);
            if contains(&before, SUBSCRIBE) {
                line.subscribes.store(true, Ordering::SeqCst);
            }
            let needle = orders.borrow().mute;
            if needle.is_some_and(|needle| contains(&before, needle)) && !line.muted.swap(true, Ordering::SeqCst) {
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
        } else if line.muted.load(Ordering::SeqCst) {
            continue;
        }
        let [to_server, to_client] = orders.borrow().late.get(line);
        let lateness = if direction == Direction::ToServer { to_server } else { to_client };
        if late.is_empty() && lateness.is_zero() {
            to.write_all(bytes).await?;
        } else {
            late.push_back((Instant::now() + lateness, bytes.to_vec()));
        }
    }
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}
