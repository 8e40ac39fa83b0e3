//! The host names that this service accepts in requests.
//!
//! DNS rebinding: an attacker's page can make the browser send requests to this service if the name of the page's
//! site resolves to the service's address. The browser treats such requests as requests to the page's own site. So
//! `Origin` and `Sec-Fetch-Site` look harmless, and the page can read the responses. Only the name in `Host` reveals
//! the attack, so requests with an unknown host are refused. An IP address is always accepted, because an attacker
//! cannot make it resolve to another address.
//!
//! - A service that listens on a loopback address is usually called `localhost`, so every request is checked.
//! - A service that listens on another address can have names that it does not know. Only requests of browsers are
//!   checked, unless the setting `hosts` lists the names.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Uri, Version};

use super::error::Error;
use crate::config::HttpConfig;

/// The hosts of this service.
#[derive(Debug)]
pub struct Hosts {
    /// Accepted names in lower case, without ports. Common IP addresses are included, to make their check fast.
    names: Vec<Box<str>>,
    /// Whether all requests are checked, not only those of browsers.
    checks_all: bool,
    /// Whether the setting `hosts` lists names.
    is_listed: bool,
    /// An `Origin` that is accepted whatever `Host` says: the origin of the setting `public_url`.
    public_origin: Option<Box<str>>,
}

/// Why a host is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The text is not a valid host.
    Invalid,
    /// The text is not a host of this service.
    Strange,
}

impl Hosts {
    /// `advertised` is the address under which other instances know this one.
    pub fn new(config: &HttpConfig, advertised: &str) -> Self {
        let mut names: Vec<Box<str>> = vec!["127.0.0.1".into(), "localhost".into(), "[::1]".into()];
        names.extend(host_of(advertised.as_bytes()).map(|host| host.to_ascii_lowercase().into()));
        names.extend(config.hosts.names.iter().map(|name| name.as_str().into()));
        let public_url = config.hosts.public_url.as_ref();
        names.extend(public_url.map(|url| url.host.as_str().into()));
        let is_listed = !config.hosts.names.is_empty();
        Self {
            names,
            checks_all: is_listed || config.listen.ip().to_canonical().is_loopback(),
            is_listed,
            public_origin: public_url.map(|url| url.origin.as_str().into()),
        }
    }

    /// Checks the host in a request. `is_from_browser` says whether a browser sent the request.
    ///
    /// # Errors
    /// Why the host is refused.
    pub fn admit(&self, host: &[u8], is_from_browser: bool) -> Result<(), Refusal> {
        if self.names.iter().any(|name| is_with_port(host, name)) {
            return Ok(());
        }
        let name = host_of(host).ok_or(Refusal::Invalid)?;
        let is_known = || {
            let name = name.strip_suffix('.').unwrap_or(name);
            is_address(name) || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        if !(self.checks_all || is_from_browser) || is_known() { Ok(()) } else { Err(Refusal::Strange) }
    }

    /// Checks every host that a request names.
    ///
    /// # Errors
    /// [`Error::InvalidHost`], [`Error::Misdirected`].
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        let headers = request.headers();
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.as_bytes(),
            // HTTP/1.0 has no `Host` header, and every browser sends one.
            (None, _) if request.version() == Version::HTTP_10 && !self.is_listed => return Ok(()),
            (None, _) => return Err(Error::InvalidHost("the request has no Host header".to_owned())),
            (Some(_), Some(_)) => {
                return Err(Error::InvalidHost("the request has more than one Host header".to_owned()));
            }
        };
        // If the request line has a whole URI, the URI names the host (RFC 9112, 3.2.2).
        let named = request.uri().authority().map_or(host, |authority| authority.as_str().as_bytes());
        let is_from_browser = is_from_browser(headers);
        for host in [host, named] {
            self.admit(host, is_from_browser).map_err(|refusal| refusal.about(host))?;
        }
        Ok(())
    }

    /// Whether a page with this `Origin` belongs to this service. Compares it with the host of the request.
    pub fn is_own_origin(&self, origin: &[u8], headers: &HeaderMap, uri: &Uri) -> bool {
        if self.public_origin.as_ref().is_some_and(|own| origin.eq_ignore_ascii_case(own.as_bytes())) {
            return true;
        }
        let host = uri.authority().map(|authority| authority.as_str().as_bytes());
        let Some(host) = host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes)) else { return false };
        // A proxy may add the default port, which browsers leave out.
        let own = |scheme: &[u8], port: &[u8]| {
            let authority = origin.strip_prefix(scheme)?;
            Some(authority.eq_ignore_ascii_case(host.strip_suffix(port).unwrap_or(host)))
        };
        own(b"http://", b":80").or_else(|| own(b"https://", b":443")).unwrap_or(false)
    }
}

impl Refusal {
    fn about(self, host: &[u8]) -> Error {
        const SHOWN_CHARS: usize = 100;
        let host: String = String::from_utf8_lossy(host).chars().take(SHOWN_CHARS).collect();
        match self {
            Self::Invalid => Error::InvalidHost(format!("the Host header is not a valid host: {host:?}")),
            Self::Strange => Error::Misdirected { host },
        }
    }
}

/// Whether the headers look like those of a browser.
fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Whether `host` is `name`, with or without a port.
fn is_with_port(host: &[u8], name: &str) -> bool {
    let Some((start, rest)) = host.split_at_checked(name.len()) else { return false };
    // Nearly all clients write the name in lower case, and comparing bytes is cheaper.
    let is_name = start == name.as_bytes() || start.eq_ignore_ascii_case(name.as_bytes());
    is_name && (rest.is_empty() || rest[0] == b':' && rest[1..].iter().all(u8::is_ascii_digit))
}

/// The host without its port; `None` if it is invalid (RFC 3986, 3.2.2).
fn host_of(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            is_address(&text[..end]).then(|| text.split_at(end))?
        }
        None => {
            let host = &text[..text.find(':').unwrap_or(text.len())];
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
            (!host.is_empty() && host.bytes().all(is_part)).then(|| text.split_at(host.len()))?
        }
    };
    let is_port =
        |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    (rest.is_empty() || is_port(rest)).then_some(host)
}

/// Whether a host is an IP address; IPv6 must be in brackets.
fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

/// For tests in other files: the hosts of a service that listens on `address` with the default settings.
#[cfg(test)]
pub fn hosts_of_listener(address: std::net::IpAddr) -> Hosts {
    tests::hosts(&[("LISTEN", &std::net::SocketAddr::new(address, 8080).to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};
    use axum::http::HeaderName;

    pub fn hosts(settings: &[(&str, &str)]) -> Hosts {
        let settings = settings.iter().map(|(name, value)| (format!("SIDECACHE_{name}"), (*value).to_owned()));
        let database = [("SIDECACHE_DATABASE_URL".to_owned(), "sqlite::memory:".to_owned())];
        let config = Config::parse(&Settings::gather(None, settings.chain(database), []).unwrap()).unwrap();
        Hosts::new(&config.http, config.http.advertise.as_deref().unwrap_or("cache-1:8080"))
    }

    const ANYWHERE: (&str, &str) = ("LISTEN", "0.0.0.0:8080");

    #[test]
    fn on_loopback_only_known_hosts_are_accepted() {
        let hosts = hosts(&[("HOSTS", ""), ("ADVERTISE", "Cache-7:8080")]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1:1",
            "127.9.9.9",
            "10.0.0.1:80",
            "[::1]:8080",
            "[fd00::1]",
            "cache-7",
            "localhost:",
        ] {
            assert_eq!(hosts.admit(host.as_bytes(), true), Ok(()), "{host}");
            assert_eq!(hosts.admit(host.as_bytes(), false), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "cache-70",
            "127.0.0.1.evil.example",
            "2130706433",
            "a,b",
        ] {
            assert_eq!(hosts.admit(host.as_bytes(), false), Err(Refusal::Strange), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a:b",
            "user@localhost",
            "localhost/x",
            "[::1",
            "::1",
            "[localhost]",
            "localhost:80:80",
            "\u{fc}",
        ] {
            assert_eq!(hosts.admit(host.as_bytes(), false), Err(Refusal::Invalid), "{host}");
        }
    }

    #[test]
    fn on_other_addresses_only_browsers_must_name_a_known_host_unless_hosts_are_listed() {
        let open = hosts(&[ANYWHERE]);
        let listed = hosts(&[ANYWHERE, ("HOSTS", "sidecache.default.svc, Cache.example")]);
        assert_eq!(open.admit(b"sidecache:8080", false), Ok(()));
        assert_eq!(open.admit(b"sidecache:8080", true), Err(Refusal::Strange));
        assert_eq!(open.admit(b"a b", false), Err(Refusal::Invalid));
        assert_eq!(listed.admit(b"sidecache:8080", false), Err(Refusal::Strange));
        for host in ["cache.example", "SIDECACHE.default.svc:8080", "cache-1:8080", "10.0.0.7:8080", "localhost"] {
            assert_eq!(listed.admit(host.as_bytes(), true), Ok(()), "{host}");
        }
        let proxied = hosts(&[ANYWHERE, ("PUBLIC_URL", "https://cache.example")]);
        assert_eq!(proxied.admit(b"cache.example", true), Ok(()));
        assert_eq!(proxied.admit(b"sidecache", false), Ok(()), "`public_url` does not count as a list of hosts");
    }

    #[test]
    fn an_own_origin_matches_the_host_or_the_public_url() {
        let is_own = |hosts: &Hosts, origin: &str, host: &str| {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            hosts.is_own_origin(origin.as_bytes(), &headers, &Uri::from_static("/dashboard"))
        };
        let (plain, proxied) = (hosts(&[ANYWHERE]), hosts(&[ANYWHERE, ("PUBLIC_URL", "https://cache.example")]));
        for (origin, host, expected) in [
            ("http://a:1", "a:1", true),
            ("https://Cache.example", "cache.example", true),
            ("https://cache.example", "cache.example:443", true),
            ("http://a", "a:80", true),
            ("http://a", "a:443", false),
            ("http://a:2", "a:1", false),
            ("http://evil.example", "a:1", false),
            ("ftp://a:1", "a:1", false),
            ("null", "a:1", false),
        ] {
            assert_eq!(is_own(&plain, origin, host), expected, "{origin} at {host}");
        }
        assert!(!is_own(&plain, "https://cache.example", "sidecache"));
        assert!(is_own(&proxied, "https://cache.example", "sidecache"));
        assert!(!is_own(&proxied, "http://cache.example", "sidecache"));
    }

    #[test]
    fn browser_headers_are_recognized_by_their_prefix() {
        let is_browser = |name: &str| {
            let name = HeaderName::try_from(name).unwrap();
            is_from_browser(&HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]))
        };
        for name in ["sec-fetch-site", "Sec-Fetch-Mode", "sec-fetch-storage-access"] {
            assert!(is_browser(name), "{name}");
        }
        assert!(!is_browser("sec-fetch") && !is_browser("sec-ch-ua") && !is_browser("host"));
    }
}
