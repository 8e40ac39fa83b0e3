//! Ports for the servers of the tests.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections (32768 and
//! up by default): a port that a server gives back when it is killed is still free when that server
//! is to come back on it. A clash with somebody else's server remains possible; who starts a server
//! verifies that it is the one that answers, and takes another port if not.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port on 127.0.0.1 that nobody listens on; this process never hands it out again.
pub fn free() -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run side by side start at different places.
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
