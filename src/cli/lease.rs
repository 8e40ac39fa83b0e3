//! Leases on the command line: the options of `get`, and the command `release`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use ureq::http::Method;

use super::failure::Failure;
use super::screen::Screen;
use super::service::{Service, entry_path};
use crate::number;

// The options of a read that asks for a lease.
#[derive(Args)]
pub struct LeaseOptions {
    /// If there is no entry, ask for the right to store it, for 1 to 60 seconds: prints the token for `set --lease`, or
    /// `held` if another program has that right. If the entry should be refreshed, the token goes to stderr
    #[arg(long, value_name = "TIME", value_parser = parse_lease)]
    lease: Option<u64>,
    /// If another program has that right, wait up to this long for the value
    #[arg(long, value_name = "TIME", value_parser = number::parse_seconds, requires = "lease")]
    wait: Option<u64>,
}

impl LeaseOptions {
    /// The `Prefer` of the request; empty if no lease is asked for.
    pub fn preference(&self) -> String {
        let preferences = [("lease", self.lease), ("wait", self.wait)];
        let preferences = preferences.into_iter().filter_map(|(name, time)| Some(format!("{name}={}", time?)));
        preferences.collect::<Vec<_>>().join(", ")
    }
}

/// Parses the duration of a lease.
fn parse_lease(text: &str) -> Result<u64, String> {
    match number::parse_seconds(text)? {
        seconds @ 1..=60 => Ok(seconds),
        _ => Err("a lease lasts 1 to 60 seconds".to_owned()),
    }
}

/// The header with the token of a lease.
pub fn lease_header(token: &str) -> (&'static str, &str) {
    ("cache-lease", token)
}

/// A lease on a key.
#[derive(Serialize)]
pub struct GivenLease {
    /// `won` or `held`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The seconds until it ends.
    ttl: u64,
}

impl GivenLease {
    /// Parses the header `Cache-Lease` of a response: `won;token="...";ttl=10` or `held;ttl=7`.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split(';').map(str::trim);
        let state = parts.next()?.to_owned();
        let (mut token, mut ttl) = (None, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "token" => token = Some(value.trim_matches('"').to_owned()),
                "ttl" => ttl = value.parse().ok(),
                _ => {}
            }
        }
        Some(Self { state, token, ttl: ttl? })
    }

    /// The token of a lease that was won, otherwise the state.
    pub fn word(&self) -> &str {
        self.token.as_deref().unwrap_or(&self.state)
    }

    /// What a person or a script does with a lease that was given together with an entry.
    pub fn advice(&self) -> String {
        let word = self.word();
        format!("the entry should be refreshed: load it, and store it with --lease {word}")
    }
}

/// Give up a lease without storing a value, because it could not be loaded
#[derive(Args)]
#[command(after_help = "\
Examples:
  token=$(sidecache get rates today --lease 10s)
  sidecache release rates today \"$token\"")]
pub struct Release {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Key: any text; / and % need no escaping
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// The token that `get --lease` printed
    #[arg(value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
    token: String,
}

#[derive(Serialize)]
struct ReleasedDocument<'a> {
    success: bool,
    namespace: &'a str,
    key: &'a str,
    released: bool,
}

impl Release {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let (namespace, key) = (&*self.namespace, &*self.key);
        let path = format!("{}/lease", entry_path(namespace, key));
        service.send(&Method::DELETE, &path, &[lease_header(&self.token)], Vec::new())?;
        screen.result(&ReleasedDocument { success: true, namespace, key, released: true }, "released")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_in_a_header_is_won_or_held() {
        let won = GivenLease::parse("won;token=\"8f14\";ttl=10").unwrap();
        assert_eq!((won.state.as_str(), won.word(), won.ttl), ("won", "8f14", 10));
        let held = GivenLease::parse("held;ttl=7").unwrap();
        assert_eq!((held.state.as_str(), held.word(), held.ttl), ("held", "held", 7));
        assert!(GivenLease::parse("held").is_none() && GivenLease::parse("").is_none());
    }
}
