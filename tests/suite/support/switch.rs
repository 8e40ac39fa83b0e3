//! A TCP switch, for what a DNS name or a proxy does at a failover: new connections go to the current target,
//! existing ones stay on their server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use super::redis::Redis;

pub struct Switch {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `Some` until the drop.
    runtime: Option<Runtime>,
}

struct Shared {
    /// The port of the current target.
    port: AtomicU16,
    /// Connections accepted so far.
    accepted: AtomicU64,
}

impl Switch {
    /// A switch on a free port in front of this server.
    pub fn to(redis: &Redis) -> Switch {
        Switch::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), redis).expect("there is a free port")
    }

    /// Two switches on the same free port, at 127.0.0.1 and 127.0.0.2, in front of these servers.
    pub fn two_to(servers: &[Redis; 2]) -> [Switch; 2] {
        for _ in 0..10 {
            let first = Switch::to(&servers[0]);
            let beside = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), first.address.port()));
            if let Ok(second) = Switch::at(beside, &servers[1]) {
                return [first, second];
            }
        }
        panic!("no port is free at two addresses in ten attempts");
    }

    fn at(address: SocketAddr, redis: &Redis) -> io::Result<Switch> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { port: AtomicU16::new(redis.port()), accepted: AtomicU64::new(0) });
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("switch").enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Switch { address, shared, runtime: Some(runtime) })
    }

    /// Leads new connections to this server from now on.
    pub fn lead_to(&self, redis: &Redis) {
        self.shared.port.store(redis.port(), Ordering::SeqCst);
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many connections there have been so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Switch {
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
        let (mut client, _) = listener.accept().await.expect("the switch can accept");
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, shared.port.load(Ordering::SeqCst)));
        tokio::spawn(async move {
            let mut server = TcpStream::connect(server).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
