//! TLS to Redis, Sentinels and PostgreSQL with a private certificate authority, a system certificate store that
//! contains broken certificates, and IPv6 addresses.

use std::path::Path;
use std::process::Stdio;

use anyhow::ensure;
use tempfile::TempDir;

use crate::support::certificates::{Authority, Issued};
use crate::support::client::namespace;
use crate::support::eventually::{LATER, eventually};
use crate::support::postgres::{self, Postgres};
use crate::support::process::{self, Process, Signal};
use crate::support::redis::Redis;
use crate::support::sentinel::Group;
use crate::support::service::{self, Service, Settings};
use crate::support::{ports, scratch};

/// Starts a Redis that requires a client certificate of `authority`. Returns it with its TLS port.
fn redis_with_tls(authority: &Authority, issued: &Issued) -> (Redis, u16) {
    let port = ports::free();
    let words = tls_words(authority, issued, port).map(|(name, value)| [format!("--{name}"), value]).concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    (Redis::start_as(&words), port)
}

fn tls_words(authority: &Authority, issued: &Issued, port: u16) -> [(&'static str, String); 5] {
    let shown = |path: &Path| path.display().to_string();
    [
        ("tls-port", port.to_string()),
        ("tls-cert-file", shown(&issued.certificate)),
        ("tls-key-file", shown(&issued.key)),
        ("tls-ca-cert-file", shown(authority.certificate())),
        ("tls-auth-clients", "yes".to_owned()),
    ]
}

/// Settings that trust `authority`, with a client certificate for the shards.
fn settings(authority: &Authority, shards: String) -> Settings {
    let client = authority.issue("sidecache", "DNS:sidecache");
    Settings::none()
        .set("redis_shards", shards)
        .set("redis_tls_ca", authority.certificate().display())
        .set("redis_tls_cert", client.certificate.display())
        .set("redis_tls_key", client.key.display())
}

async fn works(service: &Service) {
    let (cache, ns) = (service.client(), namespace("tls"));
    cache.set(&ns, "k", "1").await.expect(201);
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
}

#[tokio::test]
async fn a_shard_with_a_private_ca_and_client_certificates_works() {
    let authority = Authority::new();
    let (_redis, port) = redis_with_tls(&authority, &authority.issue("redis", "DNS:localhost"));
    let shards = format!("a=rediss://localhost:{port}");
    works(&Service::start(settings(&authority, shards.clone()))).await;
    // A certificate of the same authority for another name is not accepted.
    let misnamed = Settings::none().argument("check-config").argument("--connect");
    let misnamed = misnamed.set("redis_shards", format!("a=rediss://127.0.0.1:{port}"));
    let misnamed = service::run(&misnamed.set("redis_tls_ca", authority.certificate().display()));
    assert_eq!(misnamed.status.code(), Some(3), "{}{}", misnamed.stdout, misnamed.stderr);
    // It is accepted if `redis_tls_server_name` names it.
    let by_address = settings(&authority, format!("a=rediss://127.0.0.1:{port}"));
    works(&Service::start(by_address.set("redis_tls_server_name", "localhost"))).await;
}

/// The bug: the Sentinel names its server by address, but the server's certificate contains no address.
#[tokio::test]
async fn regression_a_server_that_a_sentinel_names_by_address_is_verified_by_the_sentinels_name() {
    let authority = Authority::new();
    let issued = authority.issue("redis", "DNS:localhost");
    let (_redis, redis_port) = redis_with_tls(&authority, &issued);
    let (port, _sentinel) = sentinel(&authority, &issued, redis_port);
    let url = format!("a=rediss-sentinel://localhost:{port}?sentinelServiceName=group");
    works(&Service::start(settings(&authority, url))).await;
}

fn sentinel(authority: &Authority, issued: &Issued, redis_port: u16) -> (u16, (Process, TempDir)) {
    let (port, folder) = (ports::free(), scratch::folder("sentinel"));
    let words = tls_words(authority, issued, port).map(|(name, value)| format!("{name} {value}\n")).concat();
    let text = format!(
        "port 0\nbind 127.0.0.1\ndir {}\n{words}tls-replication yes\nsentinel monitor group 127.0.0.1 {redis_port} 1\n",
        folder.path().display()
    );
    let configuration = scratch::file(folder.path(), "sentinel.conf", &text);
    let program = process::program_named("redis-server", "redis-server");
    let mut command = process::dying_with_us(&program, Signal::Kill);
    command.arg(configuration).arg("--sentinel");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (port, (Process::spawn(command, Signal::Kill), folder))
}

/// Starts a PostgreSQL that accepts users other than `postgres` only over TLS, with a client certificate of
/// `authority` in their name.
fn postgres_with_tls(authority: &Authority) -> Postgres {
    let issued = authority.issue("postgres", "DNS:localhost");
    let rules = "host all postgres 127.0.0.1/32 trust\nhostssl all all all cert\n";
    let rules = scratch::file(authority.folder(), "rules", rules);
    let files = [
        ("cert.pem", &*issued.certificate),
        ("key.pem", &*issued.key),
        ("ca.pem", authority.certificate()),
        ("rules", &*rules),
    ];
    let settings = [
        "ssl=on",
        "ssl_cert_file={}/cert.pem",
        "ssl_key_file={}/key.pem",
        "ssl_ca_file={}/ca.pem",
        "hba_file={}/rules",
    ];
    Postgres::start_with(&files, &settings)
}

#[tokio::test]
async fn a_postgres_with_a_private_ca_and_client_certificates_works() {
    let authority = Authority::new();
    let server = postgres_with_tls(&authority);
    let url = server.fresh_database();
    let database = url.rsplit('/').next().expect("a database");
    server.psql("CREATE ROLE secure LOGIN SUPERUSER").expect("a role");
    let client = authority.issue("secure", "DNS:secure");
    let url = format!("postgres://secure@localhost:{}/{database}", server.address().port());
    let settings = Settings::none().set("database_url", &url);
    let without = settings.clone().set("database_tls_ca", authority.certificate().display());
    let without = service::run(&without.argument("check-config").argument("--connect"));
    assert_eq!(without.status.code(), Some(3), "{}{}", without.stdout, without.stderr);
    let settings = settings
        .set("database_tls_ca", authority.certificate().display())
        .set("database_tls_cert", client.certificate.display())
        .set("database_tls_key", client.key.display());
    let service = Service::start(settings);
    service.client().put_policy("n", "{}").await.expect(201);
    // The certificate does not contain this address, so it is not accepted.
    let misnamed = Settings::none()
        .set("database_url", url.replace("localhost", "127.0.0.1"))
        .set("database_tls_ca", authority.certificate().display());
    let misnamed = service::run(&misnamed.argument("check-config").argument("--connect"));
    assert!(misnamed.stdout.contains("TLS") || misnamed.stdout.contains("certificate"), "{}", misnamed.stdout);
}

/// The bug: one unreadable certificate stopped all TLS to Redis, and PostgreSQL did not use the system's store at
/// all.
#[tokio::test]
async fn regression_a_broken_certificate_in_the_systems_store_is_ignored() {
    let authority = Authority::new();
    let (_redis, port) = redis_with_tls(&authority, &authority.issue("redis", "DNS:localhost"));
    let server = postgres_with_tls(&authority);
    let url = server.fresh_database();
    server.psql("CREATE ROLE secure LOGIN SUPERUSER").expect("a role");
    let database = url.rsplit('/').next().expect("a database");
    let own = std::fs::read_to_string(authority.certificate()).expect("a certificate");
    let block = |base64: &str| format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    let text = format!("{}{own}{}", block("AAAA"), block("!!!!"));
    let folder = scratch::folder("store");
    let store = scratch::file(folder.path(), "store.pem", &text);
    let (shop, secure) = (authority.issue("shop", "DNS:shop"), authority.issue("secure", "DNS:secure"));
    let settings = Settings::none()
        .variable("SSL_CERT_FILE", store.display())
        .set("redis_shards", format!("a=rediss://localhost:{port}"))
        .set("redis_tls_cert", shop.certificate.display())
        .set("redis_tls_key", shop.key.display())
        .set(
            "database_url",
            format!("postgres://secure@localhost:{}/{database}?sslmode=verify-full", server.address().port()),
        )
        .set("database_tls_cert", secure.certificate.display())
        .set("database_tls_key", secure.key.display());
    let service = Service::start(settings);
    works(&service).await;
    service.client().put_policy("n", "{}").await.expect(201);
}

#[tokio::test]
async fn shards_and_the_database_can_have_ipv6_addresses() {
    let authority = Authority::new();
    let issued = authority.issue("redis", "IP:::1,IP:127.0.0.1");
    let (_redis, port) = {
        let port = ports::free();
        let words = tls_words(&authority, &issued, port).map(|(name, value)| [format!("--{name}"), value]).concat();
        let words: Vec<&str> =
            ["--bind", "127.0.0.1", "::1"].into_iter().chain(words.iter().map(String::as_str)).collect();
        (Redis::start_as(&words), port)
    };
    let url = postgres::shared().fresh_database().replace("127.0.0.1", "[::1]");
    let settings = settings(&authority, format!("a=rediss://[::1]:{port}")).set("database_url", url);
    let service = Service::start(settings);
    works(&service).await;
    service.client().put_policy("n", "{}").await.expect(201);
}

#[tokio::test]
async fn sentinels_and_their_servers_can_have_ipv6_addresses() {
    let mut group = Group::start_on_ipv6();
    let service = Service::start(Settings::none().set("redis_shards", format!("a={}", group.url())));
    let (cache, ns) = (service.client(), namespace("sentinels-on-ipv6"));
    cache.set(&ns, "k", "1").await.expect(201);
    let primary = group.primary();
    group.kill(primary);
    group.wait_for_primary(1 - primary);
    eventually(LATER, async || {
        let answer = cache.set(&ns, "k", "2").await;
        ensure!(answer.status < 300, "{}", answer.text());
        Ok(())
    })
    .await;
}

#[test]
fn errors_name_the_invalid_tls_setting() {
    let authority = Authority::new();
    let issued = authority.issue("one", "DNS:one");
    let certificate = issued.certificate.display().to_string();
    let check = |pairs: &[(&str, &str)]| {
        let settings = pairs.iter().fold(Settings::none(), |settings, (name, value)| settings.set(name, value));
        let finished = service::run(&settings.argument("check-config"));
        assert_eq!(finished.status.code(), Some(2), "{pairs:?}: {}{}", finished.stdout, finished.stderr);
        finished.stderr
    };
    let shards = ("redis_shards", "a=rediss://h:1");
    assert!(check(&[shards, ("redis_tls_ca", "/nowhere.pem")]).contains("SIDECACHE_REDIS_TLS_CA: /nowhere.pem"));
    assert!(check(&[shards, ("redis_tls_cert", &certificate)]).contains("SIDECACHE_REDIS_TLS_KEY"));
    let other = authority.issue("two", "DNS:two").key.display().to_string();
    let pair = [shards, ("redis_tls_cert", &*certificate), ("redis_tls_key", &*other)];
    assert!(check(&pair).contains("SIDECACHE_REDIS_TLS_CERT"));
    let plain = [("redis_shards", "a=redis://h:1"), ("redis_tls_cert", &*certificate)];
    let key = issued.key.display().to_string();
    assert!(check(&[plain[0], plain[1], ("redis_tls_key", &key)]).contains("rediss://"));
    let database = ("database_url", "postgres://h/db?sslmode=disable");
    assert!(check(&[database, ("database_tls_ca", &certificate)]).contains("sslmode=disable"));
}
