//! A TCP gate in front of a Redis: it holds up single answers, and whatever follows them on their
//! connection, for tests in which two answers overtake each other. What a network does as a whole is the
//! [`proxy`](super::proxy)'s.

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
    /// Taken by the drop alone.
    runtime: Option<Runtime>,
}

struct Shared {
    server: SocketAddr,
    /// What an answer must have in it to be held.
    needles: watch::Sender<Vec<&'static str>>,
    held: AtomicU64,
}

impl Gate {
    /// A gate on a free port that lets everything pass.
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

    /// Holds up each connection whose server sends `needle`, from those bytes on, until
    /// [`Gate::release`].
    pub fn hold(&self, needle: &'static str) {
        self.shared.needles.send_modify(|needles| needles.push(needle));
    }

    /// Lets pass what was held for `needle`, late but whole and in order.
    pub fn release(&self, needle: &'static str) {
        self.shared.needles.send_modify(|needles| needles.retain(|held| *held != needle));
    }

    /// How often a connection has been held up so far.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
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
        let (client, _) = listener.accept().await.expect("the gate can accept");
        let shared = Arc::clone(&shared);
        // A connection ends with an error when either side is gone: both are then closed, and that is all.
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
    // The end of what was read before: a needle may lie across two reads.
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
