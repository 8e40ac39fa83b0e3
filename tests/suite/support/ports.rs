//! Ports for the servers of the tests.
//!
//! The ports are below the range that the kernel uses for outgoing connections (from 32768 on by default). So when a
//! server is killed, its port stays free until the server starts on it again. Another program may still take a port:
//! whoever starts a server verifies that this server answers, and otherwise tries another port.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port on 127.0.0.1 that nothing listens on. This process never returns it again.
pub fn free() -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time start at different ports.
    let start = std::process::id().wrapping_mul(7_919) % COUNT;
    for _ in 0..COUNT {
        let step = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + (start + step) % COUNT).expect("FIRST + COUNT fits a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
