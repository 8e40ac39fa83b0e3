//! The address at which others reach this instance.

use std::net::SocketAddr;

use rustix::system::uname;

/// The address to tell others: the configured one, otherwise the listen address. If that is `0.0.0.0` or `[::]`, it
/// is replaced by the machine's name.
pub fn advertised(configured: Option<&str>, listening: SocketAddr) -> String {
    match configured {
        Some(address) => address.to_owned(),
        None if listening.ip().is_unspecified() => of_host(uname().nodename().to_string_lossy().as_ref(), listening),
        None => listening.to_string(),
    }
}

fn of_host(name: &str, listening: SocketAddr) -> String {
    if name.is_empty() { listening.to_string() } else { format!("{name}:{}", listening.port()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn what_was_configured_goes_first() {
        assert_eq!(advertised(Some("cache-1:80"), listening("0.0.0.0:8080")), "cache-1:80");
        assert_eq!(advertised(None, listening("10.0.0.1:8080")), "10.0.0.1:8080");
    }

    #[test]
    fn every_address_is_told_by_the_machines_name() {
        assert_eq!(of_host("cache-1", listening("[::]:8080")), "cache-1:8080");
        assert_eq!(of_host("", listening("[::]:8080")), "[::]:8080");
        for address in ["0.0.0.0:8080", "[::]:8080"] {
            assert!(advertised(None, listening(address)).ends_with(":8080"));
        }
    }
}
