//! The host names under which clients may reach this service: the settings `hosts` and `public_url`.

use std::net::IpAddr;

use super::settings::{Error, Settings};

/// Names that are accepted in `Host`, in addition to those that are always accepted.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// In lower case, without ports. If not empty, every request must name an accepted host.
    pub names: Vec<String>,
    pub public_url: Option<PublicUrl>,
}

/// The URL at which browsers reach this service, if a proxy in front of it has another name or ends TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// As browsers send it in `Origin`: scheme, host, and a port that is not the default of the scheme.
    pub origin: String,
    /// The host without scheme and port.
    pub host: String,
}

impl HostConfig {
    /// # Errors
    /// A name or the URL is invalid.
    pub fn parse(settings: &Settings) -> Result<Self, Error> {
        let names = settings.text("hosts").split(',').map(str::trim).filter(|text| !text.is_empty());
        let names = names.map(|text| {
            let reason = "expected names without scheme and port, separated by commas, not";
            host(text).ok_or_else(|| settings.error("hosts", format!("{reason} {text:?}")))
        });
        let expected = "http(s)://<host>[:<port>] without a path";
        Ok(Self {
            names: names.collect::<Result<_, _>>()?,
            public_url: settings.optional("public_url", expected, PublicUrl::parse)?,
        })
    }
}

impl PublicUrl {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match &*scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        // The colons of an IPv6 address are inside its brackets, so the last colon after them begins a port.
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if is_port(port) => (name, port.parse::<u16>().ok()?),
            _ => (authority, default_port),
        };
        let host = host(name)?;
        let origin =
            if port == default_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") };
        Some(Self { origin, host })
    }
}

/// The host in lower case; `None` if `text` is neither a name nor an IP address (IPv6 in brackets).
fn host(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return matches!(address.parse(), Ok(IpAddr::V6(_))).then_some(text);
    }
    let name = text.strip_suffix('.').unwrap_or(&text);
    (name.len() <= 253 && name.split('.').all(is_label)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin_as_browsers_write_it() {
        for (text, origin, host) in [
            ("https://Cache.example", "https://cache.example", "cache.example"),
            ("https://cache.example:443/", "https://cache.example", "cache.example"),
            ("http://cache.example:8080", "http://cache.example:8080", "cache.example"),
            ("http://10.0.0.1:80", "http://10.0.0.1", "10.0.0.1"),
            ("http://[fd00::1]:8080/", "http://[fd00::1]:8080", "[fd00::1]"),
            ("http://[fd00::1]", "http://[fd00::1]", "[fd00::1]"),
        ] {
            let expected = PublicUrl { origin: origin.to_owned(), host: host.to_owned() };
            assert_eq!(PublicUrl::parse(text), Some(expected), "{text}");
        }
        for text in
            ["cache.example", "ftp://a", "https://", "https://a/b", "https://u@a", "http://a:99999", "http://a:"]
        {
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_without_a_port() {
        for (text, expected) in [
            ("Cache-1", Some("cache-1")),
            ("cache.example.", Some("cache.example")),
            ("sidecache.default.svc", Some("sidecache.default.svc")),
            ("[::1]", Some("[::1]")),
            ("cache-1:80", None),
            ("http://cache", None),
            ("a..b", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }
}
