//! Typed settings: one struct for each concern, parsed and checked before anything binds or connects.

mod database;
mod hosts;
mod log_filter;
mod mask;
mod memory;
mod memory_need;
mod redis;
mod service_link;
mod settings;
mod tls;

use std::net::SocketAddr;
use std::num::{NonZero, NonZeroU16};
use std::time::Duration;

use crate::model::Policy;
use database::Folder;
pub use database::{DatabaseConfig, DatabaseKind};
pub use hosts::{HostConfig, PublicUrl};
pub use memory::Available;
pub use memory_need::MemoryNeed;
pub use redis::{RedisConfig, ShardConfig};
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

/// The listener.
#[derive(Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// The address at which others reach the service, if it differs from `listen`; `host:port`.
    pub advertise: Option<String>,
    pub hosts: HostConfig,
    pub header_timeout: Duration,
    /// How long a connection stays open without a request.
    pub idle_timeout: Duration,
    pub request_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_connections: usize,
    pub max_body_bytes: usize,
    /// For all request bodies together.
    pub max_bodies_bytes: usize,
    /// For all large answers together.
    pub max_answers_bytes: usize,
}

/// Where entries live.
#[derive(Debug)]
pub enum StoreConfig {
    Embedded { max_bytes: u64 },
    Redis(RedisConfig),
}

/// L1, and how it stays consistent with the shards.
#[derive(Debug)]
pub struct L1Config {
    pub max_bytes: u64,
    pub max_staleness: Duration,
    pub without: TestFault,
}

/// A safeguard that is switched off, so that the tests can prove that they notice stale answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestFault {
    Nothing,
    /// A value read from a shard is put into L1 even if its key was invalidated during the read.
    Fence,
    /// Copies are served without proof of freshness, and stay after a loss of messages.
    Watermark,
}

/// Upper limits for one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub value_bytes: usize,
    pub batch_keys: usize,
}

/// Settings for namespaces.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    pub default_policy: Policy,
    pub auto_create: bool,
    pub max_namespaces: usize,
    pub refresh: Duration,
}

/// The access log.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// 0.0 to 1.0.
    pub sample_rate: f64,
    pub journal: JournalConfig,
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

/// Work done in the background.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepConfig {
    pub stats_flush: Duration,
    pub sweep_interval: Duration,
}

/// The process's own log on stderr.
#[derive(Debug)]
pub struct LogConfig {
    pub filter: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
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
        let duration = |name: &str, low: u64, high: u64| settings.number(name, low..=high).map(Duration::from_millis);
        let size = |name: &str, low: usize, high: usize| {
            settings.number(name, low as u64..=high as u64).map(|number| number as usize)
        };
        let listen: SocketAddr = settings.parse("listen").map_err(|_| {
            settings.error("listen", format!("expected <address>:<port>, not {:?}", settings.text("listen")))
        })?;
        let http = HttpConfig {
            listen,
            advertise: Self::advertise(settings)?,
            hosts: HostConfig::parse(settings)?,
            header_timeout: duration("header_timeout_ms", 10, DAY_MS)?,
            idle_timeout: duration("idle_timeout_ms", 10, DAY_MS)?,
            request_timeout: duration("request_timeout_ms", 10, DAY_MS)?,
            drain_timeout: duration("drain_timeout_ms", 0, DAY_MS)?,
            max_connections: size("max_connections", 1, 1_000_000)?,
            max_body_bytes: size("max_body_bytes", 1024, 1 << 30)?,
            max_bodies_bytes: usize::try_from(memory::within(settings, "max_bodies_mb", 1)?)
                .map_err(|reason| settings.error("max_bodies_mb", reason))?,
            max_answers_bytes: usize::try_from(memory::within(settings, "max_answers_mb", 1)?)
                .map_err(|reason| settings.error("max_answers_mb", reason))?,
        };
        if http.max_body_bytes > http.max_bodies_bytes {
            return Err(settings.error("max_bodies_mb", "must be large enough for one body of max_body_bytes"));
        }
        let limits = Limits {
            value_bytes: size("max_value_bytes", 1, 512 << 20)?,
            batch_keys: size("max_batch_keys", 1, 100_000)?,
        };
        if limits.value_bytes > http.max_body_bytes {
            return Err(settings.error("max_value_bytes", "a value cannot be larger than max_body_bytes"));
        }
        if http.max_answers_bytes < limits.value_bytes + ANSWER_FRAME_BYTES {
            return Err(settings.error("max_answers_mb", "must be large enough for one value of max_value_bytes"));
        }
        let l1 = L1Config {
            max_bytes: memory::within(settings, "l1_max_mb", 0)?,
            max_staleness: duration("max_staleness_ms", 20, DAY_MS)?,
            without: Self::without(settings, !cfg!(debug_assertions))?,
        };
        let store = match RedisConfig::parse(settings)? {
            None => StoreConfig::Embedded { max_bytes: memory::within(settings, "embedded_max_mb", 1)? },
            Some(redis) => {
                // Not used with Redis, so it may exceed the machine's memory, but it must be a valid number.
                memory::asked(settings, "embedded_max_mb", 1)?;
                StoreConfig::Redis(redis)
            }
        };
        if let StoreConfig::Redis(redis) = &store
            && redis.timeout >= http.request_timeout
        {
            return Err(settings.error("redis_timeout_ms", "must be less than request_timeout_ms"));
        }
        Ok(Self {
            workers: NonZero::new(size("workers", 0, 1024)?),
            http,
            store,
            l1,
            limits,
            namespaces: Self::namespaces(settings)?,
            database: DatabaseConfig::parse(settings, folder)?,
            access_log: AccessLogConfig {
                sample_rate: rate(settings, "access_log_sample_rate")?,
                journal: JournalConfig {
                    queue_rows: size("access_log_queue", 1, 10_000_000)?,
                    batch_rows: size("access_log_batch", 1, 10_000)?,
                    flush: duration("access_log_flush_ms", 1, DAY_MS)?,
                    retention: retention(settings, "access_log_retention_days")?,
                },
            },
            audit: JournalConfig {
                queue_rows: size("audit_queue", 1, 1_000_000)?,
                batch_rows: AUDIT_BATCH_ROWS,
                flush: AUDIT_FLUSH,
                retention: retention(settings, "audit_retention_days")?,
            },
            upkeep: UpkeepConfig {
                stats_flush: duration("stats_flush_ms", 10, DAY_MS)?,
                sweep_interval: duration("sweep_interval_ms", 10, DAY_MS)?,
            },
            metrics_max_namespaces: size("metrics_max_namespaces", 0, 10_000)?,
            log: Self::log(settings)?,
            ignored_variables: settings.ignored().to_vec(),
        })
    }

    fn without(settings: &Settings, is_release: bool) -> Result<TestFault, Error> {
        let without = match settings.text("test_without") {
            "" => return Ok(TestFault::Nothing),
            "fence" => TestFault::Fence,
            "watermark" => TestFault::Watermark,
            other => {
                let reason = format!("expected fence, watermark or an empty text, not {other:?}");
                return Err(settings.error("test_without", reason));
            }
        };
        if is_release && !settings.answers_may_be_wrong() {
            let reason = format!(
                "makes the service answer with stale values and is only for testing the tests; a release build also \
                 needs {WRONG_ANSWERS_VARIABLE}=yes"
            );
            return Err(settings.error("test_without", reason));
        }
        Ok(without)
    }

    fn advertise(settings: &Settings) -> Result<Option<String>, Error> {
        let text = settings.text("advertise").trim();
        if text.is_empty() {
            return Ok(None);
        }
        let is_name = |host: &str| {
            (1..=253).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let of_address = |host: &str, port: NonZeroU16| {
            let address = host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
            Some(SocketAddr::new(address, port.get()).to_string())
        };
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let advertised = parts.and_then(|(host, port)| match host {
            name if is_name(name) => Some(text.to_owned()),
            // IPv4 addresses may have brackets, too, so that a script can set `[$IP]` without knowing the kind of
            // address.
            address => of_address(address, port),
        });
        match advertised {
            Some(advertised) => Ok(Some(advertised)),
            None => Err(settings.error("advertise", format!("expected <host>:<port>, not {text:?}"))),
        }
    }

    fn namespaces(settings: &Settings) -> Result<NamespaceConfig, Error> {
        let ttl = settings.number("default_ttl", 0..=crate::model::Ttl::MAX_SECONDS)?;
        let size = settings.number("default_max_size_mb", 0..=Policy::MAX_SIZE_MB)?;
        let stale = settings.number("default_stale_if_error", 0..=crate::model::Ttl::MAX_SECONDS)?;
        let default_policy = Policy::parse(ttl, size, settings.text("default_eviction_policy"), stale)
            .map_err(|reason| settings.error("default_eviction_policy", reason))?;
        Ok(NamespaceConfig {
            default_policy,
            auto_create: settings.switch("auto_create_namespaces")?,
            max_namespaces: settings.number("max_namespaces", 1..=1_000_000)? as usize,
            refresh: Duration::from_millis(settings.number("namespace_refresh_ms", 10..=DAY_MS)?),
        })
    }

    fn log(settings: &Settings) -> Result<LogConfig, Error> {
        let filter = log_filter::parse(settings.text("log")).map_err(|reason| settings.error("log", reason))?;
        let format = match settings.text("log_format") {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(settings.error("log_format", format!("expected auto, text or json, not {other:?}"))),
        };
        Ok(LogConfig { filter, format })
    }
}

/// How long rows are kept; `None`: for ever.
fn retention(settings: &Settings, name: &str) -> Result<Option<Duration>, Error> {
    let days = settings.number(name, 0..=36_500)?;
    Ok((days > 0).then(|| Duration::from_secs(days * 24 * 3600)))
}

fn rate(settings: &Settings, name: &str) -> Result<f64, Error> {
    let rate = settings.text(name).trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| {
        settings.error(name, format!("expected a number from 0.0 to 1.0, not {:?}", settings.text(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(environment: &[(&str, &str)]) -> Result<Config, Error> {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(&Settings::gather(None, pairs, [])?)
    }

    #[test]
    fn the_defaults_parse() {
        let config = parse(&[]).unwrap();
        assert!(matches!(config.store, StoreConfig::Embedded { max_bytes } if max_bytes == 256 << 20));
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.namespaces.default_policy, Policy::parse(3600, 100, "LRU", 0).unwrap());
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
    fn regression_a_release_gives_up_its_promises_only_where_it_is_told_twice() {
        let without = |environment: &[(&str, &str)], is_release| {
            let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Config::without(&Settings::gather(None, pairs, []).unwrap(), is_release)
        };
        let fence = ("SIDECACHE_TEST_WITHOUT", "fence");
        let told_twice = [fence, (WRONG_ANSWERS_VARIABLE, "yes")];
        assert_eq!(without(&[fence], false), Ok(TestFault::Fence));
        assert_eq!(without(&told_twice, true), Ok(TestFault::Fence));
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
