//! Databases of an earlier version, with rows: existing data stays, and new columns have their defaults. On SQLite
//! and on PostgreSQL.

use anyhow::ensure;
use serde_json::json;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqlSafeStr};

use crate::support::database::{self, Database};
use crate::support::eventually::{SOON, eventually};
use crate::support::service::Service;

/// The migrations of the earlier version.
const EARLIER: [(i64, &str, &str, &str); 2] = [
    (
        1,
        "foundation",
        include_str!("../../migrations/sqlite/0001_foundation.sql"),
        include_str!("../../migrations/postgres/0001_foundation.sql"),
    ),
    (
        2,
        "audit",
        include_str!("../../migrations/sqlite/0002_audit.sql"),
        include_str!("../../migrations/postgres/0002_audit.sql"),
    ),
];

async fn migrate_as_earlier(database: &Database) {
    let migration = |(number, name, sqlite, postgres): (i64, &'static str, &'static str, &'static str)| {
        let sql = if matches!(database, Database::Sqlite(_)) { sqlite } else { postgres };
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let migrator = Migrator::with_migrations(EARLIER.into_iter().map(migration).collect());
    match database {
        Database::Sqlite(folder) => {
            let data = folder.path().join("data");
            std::fs::create_dir_all(&data).expect("a folder for the file");
            let options = SqliteConnectOptions::new().filename(data.join("sidecache.db")).create_if_missing(true);
            let mut file = options.connect().await.expect("a new file");
            migrator.run(&mut file).await.expect("the earlier schema");
        }
        Database::Postgres(_) => {
            let mut connection = database.postgres().await.expect("the server");
            migrator.run(&mut connection).await.expect("the earlier schema");
        }
    }
}

#[tokio::test]
async fn fields_that_an_older_policy_does_not_have_get_their_defaults() {
    for (settings, database) in database::both_settings() {
        migrate_as_earlier(&database).await;
        let policy = r#"{"default_ttl":60,"max_size_mb":5,"eviction_policy":"LFU"}"#;
        database
            .execute(
                &format!(
                    "INSERT INTO cache_namespaces VALUES ('old', 60, 5, 'LFU', 1704067200000, 1704067200000); \
                     INSERT INTO cache_audit (namespace, at, client, request_id, action, after, complete) \
                     VALUES ('old', 1704067200000, '127.0.0.1', 'x', 'policy_created', '{policy}', 1)"
                ),
                &format!(
                    "INSERT INTO cache_namespaces VALUES ('old', 60, 5, 'LFU', to_timestamp(1704067200), \
                     to_timestamp(1704067200)); \
                     INSERT INTO cache_audit (namespace, at, client, request_id, action, after, complete) \
                     VALUES ('old', to_timestamp(1704067200), '127.0.0.1', 'x', 'policy_created', '{policy}', TRUE)"
                ),
            )
            .await;
        let service = Service::start(settings.set("audit_retention_days", 0));
        let cache = service.client();
        let known = async |name: &str| {
            eventually(SOON, async || {
                let answer = cache.policy(name).await;
                ensure!(answer.status == 200, "{}", answer.text());
                Ok(answer.json())
            })
            .await
        };
        let mut expected = json!({
            "name": "old", "default_ttl": 60, "max_size_mb": 5, "eviction_policy": "LFU", "stale_if_error": 0,
            "ttl_jitter": 0.0, "refresh_after": 1.0, "stale_while_revalidate": 0, "tombstone_ttl": 60,
            "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z",
        });
        assert_eq!(known("old").await, expected);
        let row = cache.audit("old", &[]).await.expect(200).json()["audit"][0]["after"].clone();
        for field in ["stale_if_error", "ttl_jitter", "refresh_after", "stale_while_revalidate", "tombstone_ttl"] {
            assert_eq!(row[field], expected[field], "{row}");
        }

        // An instance of the earlier version may still use the same PostgreSQL.
        database
            .execute(
                "INSERT INTO cache_namespaces (name, default_ttl, max_size_mb, eviction_policy, created_at, \
                 updated_at) VALUES ('older', 1, 2, 'LRU', 0, 0); \
                 UPDATE cache_namespaces_revision SET revision = revision + 1",
                "INSERT INTO cache_namespaces VALUES ('older', 1, 2, 'LRU', now(), now()) \
                 ON CONFLICT (name) DO NOTHING; \
                 UPDATE cache_namespaces_revision SET revision = revision + 1",
            )
            .await;
        let older = known("older").await;
        assert_eq!((&older["stale_if_error"], &older["tombstone_ttl"]), (&json!(0), &json!(60)));

        let body =
            r#"{"default_ttl":60,"max_size_mb":5,"eviction_policy":"LFU","stale_if_error":30,"ttl_jitter":0.1}"#;
        let mut stored = cache.put_policy("old", body).await.expect(200).json();
        stored["updated_at"] = expected["updated_at"].clone();
        expected["stale_if_error"] = json!(30);
        expected["ttl_jitter"] = json!(0.1);
        assert_eq!(stored, expected);
    }
}
