//! The composition root: builds every part of the service, starts its tasks and drains it at the end. The only file
//! that knows all modules.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::audit::Audit;
use crate::cache::{Cache, Near, Orphans};
use crate::clock::{Moment, unix_micros};
use crate::coherence::{Coherence, WaitingRooms};
use crate::config::{Config, DatabaseKind, MemoryNeed, RespConfig, StoreConfig, TestFault, UpkeepConfig};
use crate::dashboard;
use crate::database::Database;
use crate::fleet::{Fleet, Sources, advertised};
use crate::http::{self, App, Bounds, Connections, FastPath, Hosts};
use crate::jobs::Jobs;
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::namespaces::{self, Registry, Synchronizer};
use crate::net::{self, ConnectionLimit, RequestIds, Server};
use crate::resp::{Clients, Door, RedisClients};
use crate::stats::ReadCounters;
use crate::store::embedded::Embedded;
use crate::store::redis::Redis;
use crate::store::{InvalidationSink, SharedStore, Store as _};
use crate::telemetry::{self, DroppedLines};
use crate::trends::Trends;
use crate::workers::Workers;

/// Namespaces swept for expired entries at one tick.
const SWEPT_PER_TICK: usize = 100;

/// How many times within the grace period the service looks for namespaces without a policy, see [`Orphans`].
const LOOKS_PER_GRACE: u32 = 6;

/// How often the service checks whether the shards have enough memory.
const MEMORY_LOOK: Duration = Duration::from_secs(2);

/// How long the start waits for shards and database, and the pause between two checks.
const WARM_UP: Duration = Duration::from_secs(1);
const WARM_UP_STEP: Duration = Duration::from_millis(5);

/// How long the start waits for an SQLite file. The file may have to be rewritten first, see `database::space`.
const FILE_WARM_UP: Duration = Duration::from_secs(60);

/// Runs the service until SIGTERM or SIGINT, then drains it.
///
/// # Errors
/// The address cannot be bound, or a signal handler cannot be installed.
pub async fn run(mut config: Config, dropped_log_lines: DroppedLines) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let workers = Arc::new(Workers::start(config.workers).context("cannot start the workers")?);
    let (descriptors, others) = (net::raise_descriptors(), shard_connections(&config.store, workers.count()));
    config.http.max_connections = net::possible_connections(descriptors, config.http.max_connections, others);
    let listener = net::bind(config.http.listen)
        .with_context(|| format!("SIDECACHE_LISTEN: cannot listen on {}", config.http.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let redis_listener = bind_for_redis_clients(&config.resp)?;

    log_warnings(&config);
    let service = Service::start(&config, address, &workers, dropped_log_lines)?;
    service.warm_up().await;
    let (app, ids) = (service.app.clone(), RequestIds::new(&service.instance));
    app.metrics.connections_limit.set(config.http.max_connections as f64);
    let fast_path = FastPath::new(app.clone(), ids.clone());
    let pages = dashboard::router(app.clone());
    let router = http::router(app.clone(), ids.clone(), pages);
    let connections = Connections::new(router, Some(fast_path), &config.http, ids, app.metrics.clone());
    let limit = ConnectionLimit::new(config.http.max_connections);
    let (drain_timeout, metrics) = (config.http.drain_timeout, app.metrics.clone());
    let open = metrics.connections.clone();
    let server = Server::new(connections, workers.clone(), limit.clone(), drain_timeout, open, metrics.clone());
    let redis_clients = async {
        let Some(listener) = redis_listener else { return };
        let door = service.door(&config, listener.local_addr().map_or(0, |address| address.port()));
        let open = metrics.resp_connections.clone();
        let clients = RedisClients::new(Arc::new(door));
        let server = Server::new(clients, workers.clone(), limit, drain_timeout, open, metrics.clone());
        server.run(listener, app.draining.clone()).await;
    };
    announce(address, &config);

    let asked_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: current requests may finish");
        let stop_by = Instant::now() + config.http.drain_timeout;
        app.draining.cancel();
        stop_by
    };
    let (stop_by, (), ()) = tokio::join!(asked_to_stop, server.run(listener, app.draining.clone()), redis_clients);
    service.stop(stop_by).await;
    // The connections to the shards run on the workers, so the workers are dropped last.
    drop(workers);
    Ok(())
}

/// Opens the listening socket for Redis clients. If nobody set its address, another program may have taken the port.
///
/// # Errors
/// The address was set, and cannot be bound.
fn bind_for_redis_clients(config: &RespConfig) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.listen else { return Ok(None) };
    match net::bind(address) {
        Ok(listener) => {
            let address = listener.local_addr().unwrap_or(address);
            tracing::info!(%address, "listening for Redis clients");
            Ok(Some(listener))
        }
        Err(error) if config.is_default => {
            tracing::warn!(%address, %error, "no listener for Redis clients: set `resp_listen`, empty for none");
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("SIDECACHE_RESP_LISTEN: cannot listen on {address} for Redis clients"))
        }
    }
}

/// The maximum number of connections to shards. The factor 2 leaves room for connections that are being replaced and
/// for queries to Sentinels.
fn shard_connections(store: &StoreConfig, workers: usize) -> usize {
    match store {
        StoreConfig::Embedded { .. } => 0,
        // Each shard has one more connection, for the subscription.
        StoreConfig::Redis(redis) => 2 * redis.shards.len() * (redis.connections(workers) + 1),
    }
}

/// Everything that runs, except the listener.
struct Service {
    /// The name of this process, as the shards and request ids show it.
    instance: String,
    app: Arc<App>,
    registry: Arc<Registry>,
    /// When cancelled, the background tasks end. Cancelled after the last request, because requests need the tasks.
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Service {
    fn start(
        config: &Config,
        listening: SocketAddr,
        workers: &Workers,
        dropped_log_lines: DroppedLines,
    ) -> anyhow::Result<Self> {
        let (tasks, shutdown, draining) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let instance = instance_name();
        let metrics = Arc::new(Metrics::default());
        let database = Arc::new(Database::new(&config.database));

        let without = config.l1.without;
        if without != TestFault::Nothing {
            tracing::warn!(?without, "answers may be stale: test_without is set");
        }
        let registry = Arc::new(Registry::new(config.namespaces.clone()));
        let waiting = Arc::new(WaitingRooms::default());
        let l1 = L1::new(config.l1.max_bytes);
        let l1 = Arc::new(if without == TestFault::Fence { l1.without_fence() } else { l1 });
        let (store, coherence): (SharedStore, _) = match &config.store {
            StoreConfig::Embedded { max_bytes } => (Arc::new(Embedded::new(*max_bytes)), None),
            StoreConfig::Redis(redis) => {
                let max_staleness = config.l1.max_staleness;
                let store =
                    Redis::start(redis, &instance, &metrics, workers, &registry).context("SIDECACHE_REDIS_SHARDS")?;
                let coherence =
                    Coherence::new(l1.clone(), store.shard_names(), max_staleness, waiting.clone(), metrics.clone());
                let without_watermark = without == TestFault::Watermark;
                let coherence = Arc::new(if without_watermark { coherence.without_watermark() } else { coherence });
                let sink: Arc<dyn InvalidationSink> = coherence.clone();
                store.start_tasks(redis, &sink, max_staleness, config.upkeep.stats_flush, &tasks, &shutdown);
                (Arc::new(store), Some(coherence))
            }
        };
        let near =
            coherence.clone().map(|coherence| Near::new(l1.clone(), coherence, registry.clone(), metrics.clone()));

        let policies = Arc::new(namespaces::Repository::new(database.clone()));
        let synchronizer = Synchronizer {
            registry: registry.clone(),
            repository: policies.clone(),
            refresh: config.namespaces.refresh,
        };
        tasks.spawn(synchronizer.run(shutdown.clone()));

        let (access_log, writer) = AccessLog::new(&config.access_log, &instance, database.clone(), &metrics);
        tasks.spawn(writer.run(shutdown.clone()));
        let (audit, writer) = Audit::new(&config.audit, &instance, database.clone(), &metrics);
        tasks.spawn(writer.run(shutdown.clone()));

        let jobs = Jobs::new(&instance, database.clone(), audit.clone(), metrics.clone(), draining.clone());
        let jobs = Arc::new(jobs);
        tasks.spawn(jobs.clone().watch(shutdown.clone()));

        let counters = Arc::new(ReadCounters::new(store.clone(), registry.clone(), metrics.clone()));
        let trends = Trends::new(
            store.clone(),
            registry.clone(),
            counters.clone(),
            metrics.clone(),
            config.metrics_max_namespaces,
        );
        let trends = Arc::new(trends);
        tasks.spawn(trends.clone().run(shutdown.clone()));
        let cache = Arc::new(Cache {
            store: store.clone(),
            near,
            waiting,
            registry: registry.clone(),
            policies,
            counters,
            access_log,
            audit,
            jobs: jobs.clone(),
            metrics: metrics.clone(),
            limits: config.limits,
            status_of: http::status_of,
        });
        let has_shared_database = matches!(config.database.kind, DatabaseKind::Postgres(_));
        let upkeep = upkeep(cache.clone(), store.clone(), registry.clone(), config.upkeep, has_shared_database);
        let until = shutdown.clone();
        tasks.spawn(async move { until.run_until_cancelled(upkeep).await });
        let addresses = match &config.store {
            StoreConfig::Embedded { .. } => BTreeMap::new(),
            StoreConfig::Redis(redis) => {
                let shards = redis.shards.iter();
                shards.map(|shard| (shard.name.clone(), shard.address.clone())).collect()
            }
        };
        let sources = Sources {
            store,
            addresses,
            l1: l1.clone(),
            coherence,
            registry: registry.clone(),
            trends: trends.clone(),
            metrics: metrics.clone(),
        };
        let address = advertised(config.http.advertise.as_deref(), listening);
        let hosts = Arc::new(Hosts::new(&config.http, &address));
        let fleet = Arc::new(Fleet::new(&instance, address, sources));
        tasks.spawn(fleet.clone().run(shutdown.clone()));
        let app = Arc::new(App {
            cache,
            fleet,
            trends,
            l1,
            jobs,
            database,
            background: Handle::current(),
            bounds: Arc::new(Bounds::new(&config.http, &config.limits, hosts.clone(), metrics.clone())),
            hosts,
            metrics,
            dropped_log_lines,
            started: Moment::now(),
            draining,
        });
        Ok(Self { instance, app, registry, shutdown, tasks })
    }

    /// What the connections of Redis clients use.
    fn door(&self, config: &Config, port: u16) -> Door {
        let app = &self.app;
        Door {
            cache: app.cache.clone(),
            metrics: app.metrics.clone(),
            ids: RequestIds::new(&self.instance),
            databases: config.resp.databases.clone(),
            bodies: app.bounds.bodies.clone(),
            answers: app.bounds.answers.clone(),
            request_timeout: config.http.request_timeout,
            max_request_bytes: config.http.max_body_bytes,
            max_value_bytes: config.limits.value_bytes,
            max_clients: config.http.max_connections,
            failure: http::failure,
            instance: self.instance.clone(),
            port,
            started: app.started,
            clients: Clients::default(),
        }
    }

    /// Waits up to [`WARM_UP`] for shards and database, so that the first requests do not fail. A shard or database
    /// that does not answer by then may still come up later.
    async fn warm_up(&self) {
        let App { cache, database, .. } = &*self.app;
        if database.kind() == "sqlite" {
            self.read_file().await;
        }
        let connected = async {
            while !self.registry.is_loaded() || cache.health().await.iter().any(|shard| !shard.reachable) {
                sleep(WARM_UP_STEP).await;
            }
        };
        if timeout(WARM_UP, connected).await.is_ok() {
            return;
        }
        let shards = cache.health().await.into_iter().filter(|shard| !shard.reachable);
        let mut missing: Vec<String> = shards.map(|shard| format!("shard {}", shard.name)).collect();
        if !self.registry.is_loaded() {
            missing.push(format!("the {} database", database.kind()));
        }
        let (missing, database) = (missing.join(", "), database.trouble());
        tracing::warn!(missing, database, "starting although these do not answer; `check-config --connect` says why");
    }

    /// Brings an SQLite file up to date and waits until the policies are read from it. No other process is involved,
    /// so it is worth waiting longer than [`WARM_UP`].
    async fn read_file(&self) {
        let read = async {
            while let Err(error) = self.app.database.bring_up_to_date().await {
                if !error.may_pass() {
                    return;
                }
                sleep(WARM_UP_STEP).await;
            }
            while !self.registry.is_loaded() {
                sleep(WARM_UP_STEP).await;
            }
        };
        // If the file cannot be read, the caller logs it and /health reports it.
        let _ = timeout(FILE_WARM_UP, read).await;
    }

    /// Writes to store and database what is only in memory, within the time that is left.
    async fn stop(self, stop_by: Instant) {
        // Flush jobs write rows to the audit trail, so they must end before the audit trail is closed.
        let rest = stop_by.saturating_duration_since(Instant::now());
        if timeout(rest / 2, self.app.jobs.stop()).await.is_err() {
            tracing::warn!("stopped before every job was ended");
        }
        self.shutdown.cancel();
        self.tasks.close();
        let settled = async {
            self.app.cache.settle().await;
            self.tasks.wait().await;
            self.app.database.close().await;
        };
        if timeout_at(stop_by, settled).await.is_err() {
            tracing::warn!("stopped before everything in memory was written");
        }
        tracing::info!("stopped");
    }
}

/// The periodic background work on the store: writes hit and miss counts, removes expired and evicted entries from
/// the totals, removes orphaned namespaces, checks the shards' memory.
async fn upkeep(
    cache: Arc<Cache>,
    store: SharedStore,
    registry: Arc<Registry>,
    config: UpkeepConfig,
    has_shared_database: bool,
) {
    let counting = async {
        let mut ticks = ticks(config.stats_flush);
        loop {
            ticks.tick().await;
            cache.settle().await;
        }
    };
    let sweeping = async {
        let (mut ticks, mut turn) = (ticks(config.sweep_interval), 0);
        loop {
            ticks.tick().await;
            let namespaces = registry.all();
            for record in namespaces.iter().cycle().skip(turn).take(SWEPT_PER_TICK.min(namespaces.len())) {
                if let Err(error) = store.sweep(&record.namespace, record.policy.quota()).await {
                    tracing::debug!(%error, "cannot sweep a namespace");
                }
            }
            turn = (turn + SWEPT_PER_TICK) % namespaces.len().max(1);
        }
    };
    let walking = async {
        let mut ticks = ticks(config.sweep_interval);
        loop {
            ticks.tick().await;
            if let Err(error) = store.find_evicted(&registry.names()).await {
                tracing::debug!(%error, "cannot look for evicted entries");
            }
        }
    };
    let removing = async {
        // An SQLite file is not shared: this instance does not know the namespaces of others.
        if !has_shared_database {
            return;
        }
        let (mut ticks, mut orphans) = (ticks(Orphans::grace(&cache) / LOOKS_PER_GRACE), Orphans::default());
        loop {
            ticks.tick().await;
            orphans.look(&cache).await;
        }
    };
    let looking = async {
        let mut ticks = ticks(MEMORY_LOOK);
        loop {
            ticks.tick().await;
            store.look_at_memory(&registry.names()).await;
        }
    };
    tokio::join!(counting, sweeping, walking, removing, looking);
}

/// A tick in each `period`. Work that takes longer delays the ticks that follow.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A random name for this process; practically unique.
fn instance_name() -> String {
    let seed = (std::process::id(), unix_micros());
    format!("{:016x}", RandomState::new().hash_one(seed))
}

/// Logs consequences of the settings that a user might not expect.
fn log_warnings(config: &Config) {
    if !config.ignored_variables.is_empty() {
        let variables = config.ignored_variables.join(", ");
        tracing::debug!(
            variables,
            "ignoring environment variables that Kubernetes sets for a Service named like this program"
        );
    }
    if let Some(warning) = MemoryNeed::of(config).warning() {
        tracing::warn!("{warning}");
    }
    if let StoreConfig::Redis(redis) = &config.store {
        for shard in &redis.shards {
            tracing::info!(shard = shard.name, address = shard.address, "shard");
        }
    }
}

/// Announces the address: on stdout with commands to try if the log is text for people, otherwise as a log line.
fn announce(address: SocketAddr, config: &Config) {
    let store = match &config.store {
        StoreConfig::Embedded { .. } => "embedded store".to_owned(),
        StoreConfig::Redis(redis) => format!("{} Redis shards", redis.shards.len()),
    };
    let (version, database) = (env!("CARGO_PKG_VERSION"), config.database.kind.as_str());
    let greeting = format!("sidecache {version} listens on http://{address} ({store}, database {database})");
    if !telemetry::is_text(&config.log) {
        tracing::info!("{greeting}");
        return;
    }
    let to_try = loopback_address(address);
    let text = format!(
        "{greeting}\n\
         try it:\n  \
         curl -i -X PUT http://{to_try}/api/v1/cache/demo/hello -d '{{\"value\": {{\"greeting\": \"world\"}}, \"ttl\": 60}}'\n  \
         curl -i http://{to_try}/api/v1/cache/demo/hello\n"
    );
    // The service also runs when stdout is closed.
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// An address that works on this machine: `0.0.0.0` and `[::]` are replaced by loopback.
fn loopback_address(listening: SocketAddr) -> SocketAddr {
    let address = match listening.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listening.port())
}
