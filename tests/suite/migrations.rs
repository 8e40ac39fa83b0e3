//! Schema migrations: when another instance fails, with few rights, behind a pooler, after a failover. Also: what the
//! tables look like to other tools.

use std::time::Duration;

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::client::namespace;
use crate::support::database::{self, Database};
use crate::support::eventually::{LATER, eventually};
use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres;
use crate::support::service::{Service, Settings};

async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("PostgreSQL runs it");
}

/// The bug: the lock of a failed migration stayed with its pooled connection for up to twenty minutes, and every
/// instance waited for it.
#[tokio::test]
async fn regression_a_failed_migration_holds_no_lock() {
    let url = postgres::shared().fresh_database();
    let database = Database::Postgres(url.clone());
    // A foreign table has the name that the second migration uses.
    execute(&url, "CREATE TABLE cache_audit (other int)").await;
    let settings = || Settings::shards().set("database_url", &url);
    let stuck = Service::launch(settings());
    eventually(LATER, async || {
        let health = stuck.client().health().await.json();
        let error = health["database"]["error"].as_str().unwrap_or_default().to_owned();
        ensure!(error.contains("cache_audit") && error.contains("already exists"), "{health}");
        Ok(())
    })
    .await;
    // The service retries, and holds no lock between two attempts.
    eventually(LATER, async || {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let held = database.number(locks).await?;
        ensure!(held == 0, "{held} locks are held");
        Ok(())
    })
    .await;
    execute(&url, "DROP TABLE cache_audit").await;
    let other = Service::start(settings());
    other.client().put_policy("n", "{}").await.expect(201);
    eventually(LATER, async || {
        let answer = stuck.client().policy("n").await;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
}

/// Another session's lock delays the start by no more than a timeout. The migration runs later.
#[tokio::test]
async fn waiting_for_another_sessions_lock_has_a_timeout() {
    let url = postgres::shared().fresh_database();
    let mut other = PgConnection::connect(&url).await.expect("the server");
    // The advisory lock that serialises the migrations of all instances.
    sqlx::query("SELECT pg_advisory_lock(8316288573538132840)").execute(&mut other).await.expect("the lock is free");
    let service = Service::launch(Settings::shards().set("database_url", &url).set("database_timeout_ms", 300));
    eventually(LATER, async || {
        let health = service.client().health().await.json();
        let error = health["database"]["error"].as_str().unwrap_or_default().to_owned();
        ensure!(error.contains("lock timeout"), "{health}");
        Ok(())
    })
    .await;
    drop(other);
    eventually(LATER, async || {
        let health = service.client().health().await.json();
        ensure!(health["status"] == "healthy", "{health}");
        Ok(())
    })
    .await;
}

/// The bug: the service locked and created tables even on a complete schema, which this role may not do.
#[tokio::test]
async fn regression_a_role_without_create_rights_works_on_a_complete_schema() {
    let server = postgres::shared();
    let url = server.fresh_database();
    Service::start(Settings::shards().set("database_url", &url)).stop();
    let role = format!("reader_{}", url.rsplit('/').next().expect("a database"));
    execute(
        &url,
        &format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
             REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM {role}"
        ),
    )
    .await;
    let limited = url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    let service = Service::start(Settings::shards().set("database_url", limited));
    let (cache, database) = (service.client(), Database::Postgres(url));
    cache.put_policy("n", r#"{"default_ttl":7}"#).await.expect(201);
    cache.set("n", "k", "1").await.expect(201);
    cache.flush("n", &[]).await.expect(200);
    eventually(LATER, async || {
        for table in ["cache_access_logs", "cache_audit"] {
            ensure!(database.count(table).await? >= 2, "rows of {table}");
        }
        Ok(())
    })
    .await;
}

/// The bug: one row that this release could not read kept it from reading all policies.
#[tokio::test]
async fn regression_a_row_of_a_later_release_affects_only_its_namespace() {
    for (service, database) in database::both(|settings| settings) {
        let cache = service.client();
        let later = "INSERT INTO cache_namespaces (name, eviction_policy) VALUES ('later', 'ARC'); \
                     ALTER TABLE cache_namespaces ADD COLUMN colour TEXT; \
                     INSERT INTO cache_namespaces (name, default_ttl) VALUES ('known', 60); \
                     UPDATE cache_namespaces_revision SET revision = revision + 1";
        database.execute(later, later).await;
        eventually(LATER, async || {
            let answer = cache.policy("known").await;
            ensure!(answer.status == 200, "{}", answer.text());
            let policy = answer.json();
            ensure!(policy["default_ttl"] == 60 && policy["max_size_mb"] == 100, "{policy}");
            ensure!(policy["eviction_policy"] == "LRU", "{policy}");
            Ok(())
        })
        .await;
        cache.set("known", "k", "1").await.expect(201);
        cache.set("later", "k", "1").await.expect_error(503, "policies_unknown");
        cache.policy("later").await.expect_error(503, "policies_unknown");
        cache.put_policy("other", "{}").await.expect(201);
        // Replacing the policy makes the namespace usable again.
        cache.put_policy("later", r#"{"default_ttl":5}"#).await.expect(201);
        cache.set("later", "k", "1").await.expect(201);
    }
}

/// What other tools rely on: the names and order of the columns, and the defaults of a row that was inserted by hand.
#[tokio::test]
async fn the_tables_match_their_documentation() {
    for (service, database) in database::both(|settings| settings) {
        let columns = async |table: &str| {
            let sql = match database {
                Database::Sqlite(_) => {
                    format!(
                        "SELECT group_concat(name, ' ') FROM (SELECT name FROM pragma_table_info('{table}') ORDER BY cid)"
                    )
                }
                Database::Postgres(_) => format!(
                    "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns \
                     WHERE table_name = '{table}'"
                ),
            };
            database.text(&sql).await.expect("the tables are there")
        };
        let namespaces = columns("cache_namespaces").await;
        assert!(namespaces.starts_with("id name default_ttl max_size_mb eviction_policy created_at"), "{namespaces}");
        let logs = columns("cache_access_logs").await;
        assert!(logs.starts_with("id namespace key_pattern operation hit latency_ms timestamp"), "{logs}");
        for name in ["first", "second"] {
            let sql = format!("INSERT INTO cache_namespaces (name) VALUES ('{name}')");
            database.execute(&sql, &sql).await;
        }
        let ids = database.number("SELECT count(DISTINCT id) FROM cache_namespaces WHERE id > 0").await;
        assert_eq!(ids.expect("numbers"), 2);
        let wanted = "SELECT count(*) FROM cache_namespaces WHERE default_ttl = 3600 AND max_size_mb = 100 \
                      AND eviction_policy = 'LRU'";
        assert_eq!(database.number(wanted).await.expect("a number"), 2);
        drop(service);
    }
}

/// The bug: after a failover the old primary was a replica. The service kept its connections to it, and every change
/// failed.
#[tokio::test]
async fn regression_a_connection_to_a_read_only_server_is_replaced() {
    let url = postgres::shared().fresh_database();
    let name = url.rsplit('/').next().expect("a database").to_owned();
    let service = Service::start(Settings::shards().set("database_url", &url));
    let cache = service.client();
    cache.put_policy("n", "{}").await.expect(201);
    // From here on all sessions are read-only, as on a replica, until the setting is reset.
    let control = postgres::shared().url("postgres");
    execute(
        &control,
        &format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = on; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ),
    )
    .await;
    eventually(LATER, async || {
        let answer = cache.put_policy("n", "{}").await;
        ensure!(answer.status == 503, "{}", answer.text());
        Ok(())
    })
    .await;
    execute(&control, &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    eventually(LATER, async || {
        let answer = cache.put_policy("n", "{}").await;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
}

/// The bug: PgBouncer refused connections because of a parameter, and prepared statements ran on another connection
/// than the one that prepared them.
#[tokio::test]
async fn regression_behind_pgbouncer_in_transaction_mode_everything_works() {
    let direct = postgres::shared().fresh_database();
    let pooler = PgBouncer::in_front_of(postgres::shared());
    let settings = || Settings::shards().set("database_url", pooler.url(&direct)).set("access_log_flush_ms", 20);
    let services = [Service::start(settings()), Service::start(settings())];
    let (database, ns) = (Database::Postgres(direct), namespace("pooled"));
    for round in 0..20 {
        for service in &services {
            let cache = service.client();
            cache.put_policy(&ns, format!("{{\"default_ttl\":{}}}", 10 + round)).await;
            cache.set(&ns, "k", "1").await;
            cache.flush(&ns, &[]).await.expect(200);
            cache.fetch("/api/v1/jobs").await.expect(200);
            cache.logs(&ns, &[("limit", "5")]).await.expect(200);
            cache.audit(&ns, &[("limit", "5")]).await.expect(200);
        }
    }
    eventually(LATER, async || {
        let flushes = database.number("SELECT count(*) FROM cache_audit WHERE action = 'flush'").await?;
        let changes = database.number("SELECT count(*) FROM cache_audit WHERE action LIKE 'policy%'").await?;
        ensure!((flushes, changes) == (40, 40), "{flushes} flushes, {changes} changes of the policy");
        let sets = database.number("SELECT count(*) FROM cache_access_logs WHERE operation = 'set'").await?;
        ensure!(sets == 40, "{sets} sets");
        Ok(())
    })
    .await;
    for service in &services {
        let log = service.log();
        assert!(!log.contains("lost the connection to the database") && !log.contains("does not answer"), "{log}");
    }
}

/// The bug: the file kept its largest size after rows were pruned.
#[tokio::test]
async fn regression_the_sqlite_file_shrinks_after_pruning() {
    let [(settings, database), _] = database::both_settings();
    Service::start(settings.clone()).stop();
    // As an earlier release left it: many rows older than the retention, and auto-vacuum off.
    let old = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) \
               INSERT INTO cache_access_logs (namespace, key_pattern, operation, latency_ms, timestamp) \
               SELECT 'old', hex(randomblob(200)), 'get', 1.0, 1000 FROM n; \
               PRAGMA auto_vacuum = 0; VACUUM";
    database.execute(old, "").await;
    let Database::Sqlite(folder) = &database else { panic!("the first database is SQLite") };
    let size = || std::fs::metadata(folder.path().join("data/sidecache.db")).expect("the file").len();
    let before = size();
    assert!(before > 20 << 20, "{before}");
    let service = Service::start(settings);
    eventually(Duration::from_secs(60), async || {
        ensure!(size() < 2 << 20, "{before} bytes, now {}", size());
        Ok(())
    })
    .await;
    service.client().put_policy("n", "{}").await.expect(201);
    assert_eq!(database.number("PRAGMA auto_vacuum").await.expect("a number"), 2);
}
