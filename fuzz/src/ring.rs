//! The setting `redis_shards`: which shards it names, and that no password in it is shown.

use sidecache::config::{Config, Settings, StoreConfig};

const VARIABLE: &str = "SIDECACHE_REDIS_SHARDS";

/// The password in the inputs.
const SECRET: &str = "hunter2";

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let environment = [(VARIABLE.to_owned(), text.to_owned())];
    // A database in memory, which creates no file.
    let flags = [("database_url".to_owned(), "sqlite::memory:".to_owned())];
    let settings = Settings::layer(None, environment, flags).expect("both are settings");
    let told = match Config::parse(&settings) {
        Ok(config) => {
            let told = format!("{config:?}");
            match config.store {
                StoreConfig::Embedded { .. } => assert!(text.trim().is_empty(), "{text:?}"),
                StoreConfig::Redis(redis) => {
                    let names: Vec<&str> = redis.shards.iter().map(|shard| &*shard.name).collect();
                    are_the_shards(text, &names);
                }
            }
            told
        }
        Err(error) => {
            assert_eq!(error.origin, VARIABLE, "{error}");
            let told = error.to_string();
            assert_eq!(told.lines().count(), 1, "{told:?}");
            told
        }
    };
    assert!(!told.contains(SECRET) || !is_secret(text), "{text:?}: {told}");
}

/// Checks the names before each `=`: they must be distinct and contain only allowed characters.
fn are_the_shards(text: &str, names: &[&str]) {
    let written: Vec<&str> = text.split(',').map(|part| part.split('=').next().unwrap_or_default().trim()).collect();
    assert_eq!(names, written, "{text:?}");
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    for (index, name) in names.iter().enumerate() {
        assert!((1..=100).contains(&name.len()) && name.chars().all(is_allowed), "{name:?}");
        assert!(!names[..index].contains(name), "two shards are named {name:?}");
    }
}

/// Whether the secret occurs only where passwords belong: between `://` and `@`.
fn is_secret(text: &str) -> bool {
    text.split(',').all(|part| {
        let outside = match part.split_once("://") {
            Some((scheme, rest)) => [scheme, rest.rsplit_once('@').map_or(rest, |(_, host)| host)],
            None => [part, ""],
        };
        outside.iter().all(|outside| !outside.contains(SECRET))
    })
}
