//! Typed settings: one struct for each concern, parsed and checked before anything binds or connects.

mod database;
mod hosts;
mod log_filter;
mod mask;
mod memory;
mod memory_need;
mod policy;
mod redis;
mod resp;
mod service_link;
mod settings;
mod tls;

use std::net::SocketAddr;
use std::num::{NonZero, NonZeroU16};
use std::time::Duration;

use crate::model::{Policy, named};
use database::Folder;
pub use database::{DatabaseConfig, DatabaseKind};
pub use hosts::{HostConfig, PublicUrl};
pub use memory::Available;
pub use memory_need::MemoryNeed;
pub use redis::{RedisConfig, ShardConfig};
pub use resp::{Databases, RespConfig};
pub use settings::{
    CONFIG_VARIABLE, Effective, Error, Layer, Setting, Settings, URL_VARIABLE, WRONG_ANSWERS_VARIABLE,
    all as all_settings,
};

/// The maximum number of bytes in an answer with one entry, in addition to the value.
const ANSWER_FRAME_BYTES: usize = 64 << 10;

/// A day: the upper limit of all time settings.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Rows of the audit trail in one transaction. Each row is a round trip, and all of them must fit into the database's
/// deadline for one statement, also when the database is far away.
const AUDIT_BATCH_ROWS: usize = 20;
const AUDIT_FLUSH: Duration = Duration::from_millis(50);

/// Everything that can be set.
#[derive(Debug)]
pub struct Config {
    /// Threads that serve connections; `None`: one for each core.
    pub workers: Option<NonZero<usize>>,
    pub http: HttpConfig,
    pub resp: RespConfig,
    pub store: StoreConfig,
    pub l1: L1Config,
    pub limits: Limits,
    pub namespaces: NamespaceConfig,
    pub database: DatabaseConfig,
    pub access_log: AccessLogConfig,
    pub audit: JournalConfig,
    pub upkeep: UpkeepConfig,
    /// How many namespaces have their own metrics.
    pub metrics_max_namespaces: usize,
    pub log: LogConfig,
    /// Environment variables with the settings' prefix that Kubernetes set.
    pub ignored_variables: Vec<String>,
}

/// Defines a struct whose fields are settings: each field with its type and how it is parsed.
macro_rules! parsed {
    ($(#[$attribute:meta])* $type:ident from $settings:ident {
        $($(#[$of_field:meta])* $field:ident: $kind:ty = $value:expr,)*
    }) => {
        $(#[$attribute])*
        pub struct $type {
            $($(#[$of_field])* pub $field: $kind,)*
        }

        impl $type {
            fn parse($settings: &Settings) -> Result<Self, Error> {
                Ok(Self { $($field: $value,)* })
            }
        }
    };
}

parsed! {
    /// The listener.
    #[derive(Debug)]
    HttpConfig from settings {
        listen: SocketAddr = settings.parse("listen", "<address>:<port>", |text| text.trim().parse().ok())?,
        /// The address at which others reach the service, if it differs from `listen`; `host:port`.
        advertise: Option<String> = settings.optional("advertise", "<host>:<port>", advertised)?,
        hosts: HostConfig = HostConfig::parse(settings)?,
        header_timeout: Duration = settings.millis("header_timeout_ms", 10..=DAY_MS)?,
        /// How long a connection stays open without a request.
        idle_timeout: Duration = settings.millis("idle_timeout_ms", 10..=DAY_MS)?,
        request_timeout: Duration = settings.millis("request_timeout_ms", 10..=DAY_MS)?,
        drain_timeout: Duration = settings.millis("drain_timeout_ms", 0..=DAY_MS)?,
        max_connections: usize = settings.size("max_connections", 1..=1_000_000)?,
        max_body_bytes: usize = settings.size("max_body_bytes", 1024..=1 << 30)?,
        /// For all request bodies together.
        max_bodies_bytes: usize = memory::within(settings, "max_bodies_mb", 1)? as usize,
        /// For all large answers together.
        max_answers_bytes: usize = memory::within(settings, "max_answers_mb", 1)? as usize,
    }
}

/// Where entries live.
#[derive(Debug)]
pub enum StoreConfig {
    Embedded { max_bytes: u64 },
    Redis(RedisConfig),
}

parsed! {
    /// L1, and how it stays consistent with the shards.
    #[derive(Debug)]
    L1Config from settings {
        max_bytes: u64 = memory::within(settings, "l1_max_mb", 0)?,
        max_staleness: Duration = settings.millis("max_staleness_ms", 20..=DAY_MS)?,
        without: TestFault = test_fault(settings, !cfg!(debug_assertions))?,
    }
}

named! {
    /// A safeguard that is switched off, so that the tests can prove that they notice stale answers.
    TestFault {
        Nothing = "",
        /// A value read from a shard is put into L1 even if its key was invalidated during the read.
        Fence = "fence",
        /// Copies are served without proof of freshness, and stay after a loss of messages.
        Watermark = "watermark",
    }
}

parsed! {
    /// Upper limits for one request.
    #[derive(Clone, Copy, Debug)]
    Limits from settings {
        value_bytes: usize = settings.size("max_value_bytes", 1..=512 << 20)?,
        batch_keys: usize = settings.size("max_batch_keys", 1..=100_000)?,
    }
}

parsed! {
    /// Settings for namespaces.
    #[derive(Clone, Debug)]
    NamespaceConfig from settings {
        default_policy: Policy = policy::default_policy(settings)?,
        auto_create: bool = settings.switch("auto_create_namespaces")?,
        max_namespaces: usize = settings.size("max_namespaces", 1..=1_000_000)?,
        refresh: Duration = settings.millis("namespace_refresh_ms", 10..=DAY_MS)?,
    }
}

parsed! {
    /// The access log.
    #[derive(Clone, Debug)]
    AccessLogConfig from settings {
        /// 0.0 to 1.0.
        sample_rate: f64 = settings.parse("access_log_sample_rate", "a number from 0.0 to 1.0", rate)?,
        journal: JournalConfig = JournalConfig {
            queue_rows: settings.size("access_log_queue", 1..=10_000_000)?,
            batch_rows: settings.size("access_log_batch", 1..=10_000)?,
            flush: settings.millis("access_log_flush_ms", 1..=DAY_MS)?,
            retention: retention(settings, "access_log_retention_days")?,
        },
    }
}

/// Rows written in the background.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The maximum number of rows that wait for the database.
    pub queue_rows: usize,
    /// The maximum number of rows in one write.
    pub batch_rows: usize,
    /// How long a row waits to be written together with others.
    pub flush: Duration,
    /// `None` keeps rows for ever.
    pub retention: Option<Duration>,
}

parsed! {
    /// Work done in the background.
    #[derive(Clone, Copy, Debug)]
    UpkeepConfig from settings {
        stats_flush: Duration = settings.millis("stats_flush_ms", 10..=DAY_MS)?,
        sweep_interval: Duration = settings.millis("sweep_interval_ms", 10..=DAY_MS)?,
    }
}

parsed! {
    /// The process's own log on stderr.
    #[derive(Debug)]
    LogConfig from settings {
        filter: String = log_filter::parse(settings.text("log")).map_err(|reason| settings.error("log", reason))?,
        format: LogFormat = settings.parse("log_format", "auto, text or json", LogFormat::named)?,
    }
}

named! {
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, else JSON.
        Auto = "auto",
        Text = "text",
        Json = "json",
    }
}

impl Config {
    /// # Errors
    /// The first wrong setting, named the way the user gave it.
    pub fn parse(settings: &Settings) -> Result<Self, Error> {
        Self::read(settings, Folder::Prepare)
    }

    /// Like [`Config::parse`], but only checks: creates no folder and no file.
    ///
    /// # Errors
    /// See [`Config::parse`].
    pub fn check(settings: &Settings) -> Result<Self, Error> {
        Self::read(settings, Folder::Inspect)
    }

    fn read(settings: &Settings, folder: Folder) -> Result<Self, Error> {
        let http = HttpConfig::parse(settings)?;
        if http.max_body_bytes > http.max_bodies_bytes {
            return Err(settings.error("max_bodies_mb", "must be large enough for one body of max_body_bytes"));
        }
        let limits = Limits::parse(settings)?;
        if limits.value_bytes > http.max_body_bytes {
            return Err(settings.error("max_value_bytes", "a value cannot be larger than max_body_bytes"));
        }
        if http.max_answers_bytes < limits.value_bytes + ANSWER_FRAME_BYTES {
            return Err(settings.error("max_answers_mb", "must be large enough for one value of max_value_bytes"));
        }
        let l1 = L1Config::parse(settings)?;
        let store = match RedisConfig::parse(settings)? {
            None => StoreConfig::Embedded { max_bytes: memory::within(settings, "embedded_max_mb", 1)? },
            Some(redis) => {
                // Not used with Redis, so it may exceed the machine's memory, but it must be a valid number.
                memory::in_bytes(settings, "embedded_max_mb", 1)?;
                StoreConfig::Redis(redis)
            }
        };
        if let StoreConfig::Redis(redis) = &store
            && redis.timeout >= http.request_timeout
        {
            return Err(settings.error("redis_timeout_ms", "must be less than request_timeout_ms"));
        }
        Ok(Self {
            workers: NonZero::new(settings.size("workers", 0..=1024)?),
            http,
            resp: RespConfig::parse(settings)?,
            store,
            l1,
            limits,
            namespaces: NamespaceConfig::parse(settings)?,
            database: DatabaseConfig::parse(settings, folder)?,
            access_log: AccessLogConfig::parse(settings)?,
            audit: JournalConfig {
                queue_rows: settings.size("audit_queue", 1..=1_000_000)?,
                batch_rows: AUDIT_BATCH_ROWS,
                flush: AUDIT_FLUSH,
                retention: retention(settings, "audit_retention_days")?,
            },
            upkeep: UpkeepConfig::parse(settings)?,
            metrics_max_namespaces: settings.size("metrics_max_namespaces", 0..=10_000)?,
            log: LogConfig::parse(settings)?,
            ignored_variables: settings.ignored.clone(),
        })
    }
}

fn test_fault(settings: &Settings, is_release: bool) -> Result<TestFault, Error> {
    let without = settings.parse("test_without", "fence, watermark or an empty text", TestFault::named)?;
    if without != TestFault::Nothing && is_release && !settings.answers_may_be_wrong {
        let reason = format!(
            "makes the service answer with stale values and is only for testing the tests; a release build also \
             needs {WRONG_ANSWERS_VARIABLE}=yes"
        );
        return Err(settings.error("test_without", reason));
    }
    Ok(without)
}

/// A host with a port. A name stays as it is, and an address gets the usual form.
fn advertised(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: NonZeroU16 = port.parse().ok()?;
    let is_name = (1..=253).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if is_name {
        return Some(text.to_owned());
    }
    // IPv4 addresses may have brackets, too, so that a script can set `[$IP]` without knowing the kind of address.
    let address = host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    Some(SocketAddr::new(address, port.get()).to_string())
}

/// How long rows are kept; `None`: for ever.
fn retention(settings: &Settings, name: &str) -> Result<Option<Duration>, Error> {
    let days = settings.number(name, 0..=36_500)?;
    Ok((days > 0).then(|| Duration::from_secs(days * 24 * 3600)))
}

fn rate(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PolicyFields;

    fn parse(environment: &[(&str, &str)]) -> Result<Config, Error> {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(&Settings::gather(None, pairs, [])?)
    }

    #[test]
    fn the_defaults_parse() {
        let config = parse(&[]).unwrap();
        assert!(matches!(config.store, StoreConfig::Embedded { max_bytes } if max_bytes == 256 << 20));
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
        let fields = PolicyFields { default_ttl: 3600, max_size_mb: 100, ..PolicyFields::default() };
        assert_eq!(config.namespaces.default_policy, Policy::parse(&fields).unwrap());
    }

    #[test]
    fn an_address_of_either_kind_can_be_advertised_in_brackets() {
        for (text, expected) in [
            ("[10.0.0.1]:80", "10.0.0.1:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("cache-1:80", "cache-1:80"),
        ] {
            let config = parse(&[("SIDECACHE_ADVERTISE", text)]).unwrap();
            assert_eq!(config.http.advertise.as_deref(), Some(expected));
        }
    }

    #[test]
    fn memory_that_is_not_in_use_need_not_be_there() {
        let enormous = ("SIDECACHE_EMBEDDED_MAX_MB", "1000000000");
        assert!(parse(&[enormous]).unwrap_err().to_string().contains("of memory are available"));
        let shards = ("SIDECACHE_REDIS_SHARDS", "a=redis://127.0.0.1:1");
        assert!(parse(&[enormous, shards]).is_ok());
        assert!(parse(&[("SIDECACHE_EMBEDDED_MAX_MB", "much"), shards]).is_err());
    }

    #[test]
    fn regression_every_setting_is_parsed_whatever_the_store() {
        // `log` accepted any word, and settings that only shards use were not checked without shards.
        let embedded = ("SIDECACHE_DATABASE_URL", "sqlite::memory:");
        let shards = ("SIDECACHE_REDIS_SHARDS", "a=redis://127.0.0.1:1");
        for setting in all_settings() {
            for store in [embedded, shards] {
                let variable = setting.variable();
                let environment: Vec<_> = [store]
                    .into_iter()
                    .filter(|(name, _)| *name != variable)
                    .chain([(&*variable, "not a value")])
                    .collect();
                let error = parse(&environment).expect_err(&variable).to_string();
                // A certificate without a key is reported for the key's setting; the message names the certificate's
                // setting.
                let is_named = error.starts_with(&format!("{variable}: ")) || error.contains(&*setting.name);
                assert!(is_named, "{variable}: {error}");
            }
        }
    }

    #[test]
    fn regression_a_release_gives_up_its_promises_only_where_it_is_set_twice() {
        let without = |environment: &[(&str, &str)], is_release| {
            let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            test_fault(&Settings::gather(None, pairs, []).unwrap(), is_release)
        };
        let fence = ("SIDECACHE_TEST_WITHOUT", "fence");
        let set_twice = [fence, (WRONG_ANSWERS_VARIABLE, "yes")];
        assert_eq!(without(&[fence], false), Ok(TestFault::Fence));
        assert_eq!(without(&set_twice, true), Ok(TestFault::Fence));
        assert_eq!(without(&[(WRONG_ANSWERS_VARIABLE, "yes")], true), Ok(TestFault::Nothing));
        for environment in [&[fence][..], &[fence, (WRONG_ANSWERS_VARIABLE, "no")]] {
            let error = without(environment, true).unwrap_err().to_string();
            assert!(
                error.starts_with("SIDECACHE_TEST_WITHOUT: ") && error.contains(WRONG_ANSWERS_VARIABLE),
                "{error}"
            );
        }
    }

    #[test]
    fn shards_are_parsed_by_name() {
        let config = parse(&[(
            "SIDECACHE_REDIS_SHARDS",
            "a=redis://127.0.0.1:1, b=redis-sentinel://h:2?sentinelServiceName=m",
        )]);
        let StoreConfig::Redis(redis) = config.unwrap().store else { panic!("shards were configured") };
        assert_eq!(redis.shards.iter().map(|shard| &*shard.name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_wrong_setting_is_named_on_one_line_without_its_secrets() {
        for (name, value) in [
            ("LISTEN", "8080"),
            ("ADVERTISE", "cache-1"),
            ("ADVERTISE", "http://cache-1:80"),
            ("ADVERTISE", "::1:80"),
            ("ADVERTISE", "cache-1:0"),
            ("HOSTS", "cache-1:80"),
            ("HOSTS", "https://cache.example"),
            ("PUBLIC_URL", "cache.example"),
            ("PUBLIC_URL", "https://cache.example/dashboard"),
            ("IDLE_TIMEOUT_MS", "75s"),
            ("REDIS_SHARDS", "a"),
            ("REDIS_SHARDS", "a=http://127.0.0.1"),
            ("REDIS_SHARDS", "a=redis://:secret@127.0.0.1:99999"),
            ("REDIS_SHARDS", "a=redis://127.0.0.1:1,a=redis://127.0.0.1:2"),
            ("REDIS_SHARDS", "a=redis://127.0.0.1:1,b=redis://:secret@127.0.0.1:1/0"),
            ("REDIS_SHARDS", "a b=redis://127.0.0.1:1"),
            // Without a shard's name, everything before the first `=` is part of the URL.
            ("REDIS_SHARDS", "redis-sentinel://:secret@h:1?node=redis://h:2"),
            ("REDIS_SHARDS", "a=redis-sentinel://h:1?sentinelServiceName=m&node=:secret@h:2"),
            ("REDIS_SHARDS", "a=redis-cluster://127.0.0.1:1"),
            ("DATABASE_URL", "mysql://user:secret@host/db"),
            ("DATABASE_URL", "postgres://user:secret@host:port/db"),
            ("MAX_BODIES_MB", "31"),
            ("MAX_ANSWERS_MB", "4"),
            ("MAX_BODIES_MB", "100000000"),
            ("L1_MAX_MB", "100000000"),
            ("L1_MAX_MB", "-1"),
            ("EMBEDDED_MAX_MB", "0"),
            ("MAX_STALENESS_MS", "soon"),
            ("ACCESS_LOG_SAMPLE_RATE", "1.5"),
            ("AUTO_CREATE_NAMESPACES", "perhaps"),
            ("DEFAULT_EVICTION_POLICY", "lru"),
            ("TEST_WITHOUT", "everything"),
            ("LOG_FORMAT", "xml"),
            ("LOG", "sidecache=loud"),
            ("LOG", "warning"),
        ] {
            let variable = format!("SIDECACHE_{name}");
            let error = parse(&[(&variable, value)]).expect_err(value).to_string();
            assert!(error.starts_with(&format!("{variable}: ")), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
