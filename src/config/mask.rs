//! Hides the passwords in the URLs of settings, for display.
//!
//! The text may be invalid, and an invalid URL is especially likely to have a password in the wrong place. Therefore
//! this file does not search for secrets: it keeps only the parts that are known to be harmless, and masks everything
//! else.

use std::net::Ipv6Addr;

const MASK: &str = "***";

/// The URL schemes that settings may have.
const SCHEMES: &[&str] =
    &["postgres", "postgresql", "redis", "redis+unix", "redis-sentinel", "rediss", "rediss-sentinel", "sqlite"];

/// Parameters whose names are shown and whose values are masked.
const SECRET: &[&str] = &["password", "sentinelpassword", "sslpassword"];

/// Parameters whose values are not secret.
const HARMLESS: &[&str] = &[
    "application_name",
    "cache",
    "client_encoding",
    "dbname",
    "host",
    "hostaddr",
    "immutable",
    "mode",
    "options",
    "port",
    "sentinelservicename",
    "sentinelusername",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
    "vfs",
];

/// The text of a setting with its secrets masked.
pub fn masked(name: &str, text: &str) -> String {
    match name {
        "database_url" => url(text.trim()),
        "redis_shards" if text.trim().is_empty() => String::new(),
        "redis_shards" => {
            let shards: Option<Vec<String>> = text.split(',').map(|part| shard(part.trim())).collect();
            // If a part is not a shard, a password may have contained a comma.
            shards.map_or_else(|| MASK.to_owned(), |shards| shards.join(","))
        }
        _ => text.to_owned(),
    }
}

/// The address in a URL: without users and passwords, and only with parameters that belong to the address.
pub fn location(text: &str) -> String {
    let shown = url(text);
    let (place, query) = shown.split_once('?').unwrap_or((&shown, ""));
    let place = match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => place.to_owned(),
    };
    let parts = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.rsplit_once('@').map_or(value, |(_, host)| host);
        ["node", "sentinelservicename"].contains(&&*name.to_ascii_lowercase()).then(|| format!("{name}={value}"))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { place } else { format!("{place}?{}", parts.join("&")) }
}

/// `name=URL`.
fn shard(part: &str) -> Option<String> {
    let (name, rest) = part.split_once('=')?;
    let (name, rest) = (name.trim(), rest.trim());
    (is_word(name) && scheme(rest).is_some()).then(|| format!("{name}={}", url(rest)))
}

/// The scheme and the rest, if a setting may have this scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    text.split_once("://").filter(|(scheme, _)| SCHEMES.contains(scheme))
}

fn url(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = scheme(text) else {
        // `sqlite::memory:` and `sqlite:file` are not secret; anything else may be.
        return if text.starts_with("sqlite:") { text.to_owned() } else { MASK.to_owned() };
    };
    if scheme == "sqlite" {
        return text.to_owned();
    }
    // If one part is invalid, the borders between the other parts are not reliable either.
    let shown = shown(scheme, rest).unwrap_or_else(|| MASK.to_owned());
    format!("{scheme}://{shown}")
}

fn shown(scheme: &str, rest: &str) -> Option<String> {
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let place = match place.rsplit_once('@') {
        None => address(scheme, place)?.to_owned(),
        Some((credentials, address_part)) => {
            let address = address(scheme, address_part)?;
            match credentials.split_once(':') {
                Some((user, _)) => format!("{user}:{MASK}@{address}"),
                // PostgreSQL allows a user without a password. For Redis, text without a colon is a password.
                None if scheme.starts_with("postgres") => format!("{credentials}@{address}"),
                None => format!("{MASK}@{address}"),
            }
        }
    };
    let Some(query) = query else { return Some(place) };
    let parameters: Option<Vec<String>> = query.split('&').map(|pair| parameter(scheme, pair)).collect();
    Some(format!("{place}?{}", parameters?.join("&")))
}

/// Returns `text` if it is an address of this scheme: a host with optional port and path, or only a path.
fn address<'t>(scheme: &str, text: &'t str) -> Option<&'t str> {
    if scheme == "redis+unix" {
        return text.starts_with('/').then_some(text);
    }
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let is_path = match scheme.starts_with("postgres") {
        true => path.is_empty() || is_word(path),
        // Redis: the number of a database.
        false => path.bytes().all(|byte| byte.is_ascii_digit()),
    };
    (is_path && is_host(authority)).then_some(text)
}

/// Whether `text` is a host with an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ => (text, "0"),
    };
    let is_name = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_word(host),
    };
    is_name && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A parameter for display; `None` if it cannot be a parameter (it may be a piece of a password).
fn parameter(scheme: &str, pair: &str) -> Option<String> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let known = name.to_ascii_lowercase();
    if SECRET.contains(&&*known) {
        return Some(format!("{name}={MASK}"));
    }
    if known == "node" && scheme.starts_with("redis") {
        // A node may contain credentials.
        return match value.rsplit_once('@') {
            Some((_, host)) => is_host(host).then(|| format!("{name}={MASK}@{host}")),
            None => is_host(value).then(|| pair.to_owned()),
        };
    }
    match HARMLESS.contains(&&*known) {
        true => (!value.contains('@')).then(|| pair.to_owned()),
        // An unknown parameter is masked whole: even its name may be part of a secret.
        false => (!pair.contains('@')).then(|| MASK.to_owned()),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_secret_stays() {
        for (name, text) in [
            ("listen", "127.0.0.1:8080"),
            ("redis_shards", ""),
            ("redis_shards", "a=redis://127.0.0.1:6379,b=rediss://cache.example:6380/2"),
            ("redis_shards", "a=redis://[::1]:6379"),
            ("redis_shards", "a=redis+unix:///run/redis.sock"),
            ("redis_shards", "a=redis-sentinel://h:26379/0?sentinelServiceName=mm&node=h2:26379"),
            ("database_url", "sqlite://data/sidecache.db"),
            ("database_url", "sqlite::memory:"),
            ("database_url", "postgres://cache@db.example:5432/sidecache?sslmode=verify-full"),
        ] {
            assert_eq!(masked(name, text), text);
        }
    }

    #[test]
    fn passwords_go() {
        for (name, text, shown) in [
            ("redis_shards", "a=redis://:pw@h:1, b=redis://u:pw@h:2", "a=redis://:***@h:1,b=redis://u:***@h:2"),
            ("redis_shards", "a=redis://pw@h:1", "a=redis://***@h:1"),
            ("redis_shards", "redis://:pw@h:1", "***"),
            (
                "redis_shards",
                "a=redis-sentinel://u:pw@h:1/0?sentinelServiceName=m&sentinelUsername=s&sentinelPassword=pw&node=:pw@i:2",
                "a=redis-sentinel://u:***@h:1/0?sentinelServiceName=m&sentinelUsername=s&sentinelPassword=***&node=***@i:2",
            ),
            ("database_url", "postgres://u:pw@h/db?password=pw", "postgres://u:***@h/db?password=***"),
            ("database_url", "postgres://h/db?user=u&sslpassword=pw", "postgres://h/db?user=u&sslpassword=***"),
            // A password with such characters makes it unclear where the address begins.
            ("redis_shards", "a=redis://:p/w@h:1", "a=redis://:***@h:1"),
            ("redis_shards", "a=redis://:p?w@h:1", "a=redis://***"),
            ("redis_shards", "a=redis://:p,w@h:1", "***"),
            ("redis_shards", "a=redis://:p,pw=x@h:1", "***"),
            ("redis_shards", "a=redis://:/pw?@h:1", "a=redis://***"),
            ("redis_shards", "a=redis://x/pw?node=@h:1", "a=redis://***"),
            ("redis_shards", "a=redis-sentinel://h:1?node=:pw&@h:2", "a=redis-sentinel://***"),
            (
                "redis_shards",
                "a=redis-sentinel://h:1?sentinelPassword=&pw=x",
                "a=redis-sentinel://h:1?sentinelPassword=***&***",
            ),
            ("database_url", "pw", "***"),
        ] {
            assert_eq!(masked(name, text), shown);
        }
    }

    #[test]
    fn an_address_has_neither_user_nor_password() {
        for (text, shown) in [
            ("redis://10.0.0.1:6379", "redis://10.0.0.1:6379"),
            ("rediss://u:pw@cache.example:6380/2", "rediss://cache.example:6380/2"),
            ("redis://pw@[::1]:1", "redis://[::1]:1"),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
            (
                "redis-sentinel://u:pw@h:1/0?sentinelServiceName=m&sentinelPassword=pw&sentinelUsername=u&node=:pw@i:2",
                "redis-sentinel://h:1/0?sentinelServiceName=m&node=i:2",
            ),
            ("redis://:p/w@h:1", "redis://h:1"),
            ("redis://:p?w@h:1", "redis://***"),
        ] {
            assert_eq!(location(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_password_is_shown_whatever_is_in_it(password in "[!-~]{0,6}geheim[!-~]{0,6}", form in 0..6_usize) {
            let text = match form {
                0 => format!("a=redis://:{password}@h:1,b=redis://i:2"),
                1 => format!("redis://u:{password}@h:1"),
                2 => format!("a=redis-sentinel://h:1/0?sentinelServiceName=m&sentinelPassword={password}"),
                3 => format!("a=redis-sentinel://h:1/0?node=:{password}@h:2&sentinelServiceName=m"),
                4 => format!("a={password}"),
                // In this form, text before a colon is a user name, which is shown.
                _ => format!("a=rediss://{}@h:1", password.replace(':', "")),
            };
            let shown = masked("redis_shards", &text);
            prop_assert!(!shown.contains("geheim"), "{text} is shown as {shown}");
            let shown = location(text.trim_start_matches("a="));
            prop_assert!(!shown.contains("geheim"), "{text} leads to {shown}");
            let text = format!("postgres://u:{password}@h/db");
            let shown = masked("database_url", &text);
            prop_assert!(!shown.contains("geheim"), "{text} is shown as {shown}");
        }
    }
}
