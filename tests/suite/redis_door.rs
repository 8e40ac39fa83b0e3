//! The port for Redis clients: connections, the protocol, and the commands; with raw sockets and with redis-cli.
//! `redis_values.rs` has the same values through both doors.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use tokio::io::AsyncWriteExt;

use crate::support::both_stores::on_both_stores;
use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::process::Signal;
use crate::support::resp::{Connection, Reply, bulk, command, ok};
use crate::support::service::{Service, Settings, run};

on_both_stores! {
    values_are_read_as_they_were_written,
    set_has_the_options_of_redis,
    counters_and_parts_of_values_change_in_one_step,
    concurrent_increments_are_all_counted,
    times_to_live_are_set_and_read,
    many_keys_are_read_written_and_deleted,
    scan_and_keys_find_every_key,
    flushes_delete_what_is_selected,
    transactions_run_their_commands,
    a_pipeline_is_answered_in_order,
    errors_have_the_words_of_redis,
}

async fn open(service: &Service, subject: &str) -> Connection {
    Connection::to(address(service), &namespace(subject)).await
}

fn address(service: &Service) -> SocketAddr {
    service.redis_address()
}

async fn values_are_read_as_they_were_written(service: &Service) {
    let mut redis = open(service, "resp").await;
    assert_eq!(redis.call(&["GET", "absent"]).await, Reply::Null);
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![b'x'; 4 << 20];
    for value in [b"".as_slice(), b"text", b"\r\n$5\r\n", &every_byte, &large] {
        assert_eq!(redis.call(&[b"SET".as_slice(), b"key", value]).await, ok());
        // The first read may come from the shard, the second one from L1.
        for _ in 0..2 {
            assert_eq!(redis.call(&["GET", "key"]).await, bulk(value));
        }
        assert_eq!(redis.call(&["STRLEN", "key"]).await.integer(), value.len() as i64);
    }
    let too_large = vec![b'x'; (4 << 20) + 1];
    let refused = redis.call(&[b"SET".as_slice(), b"key", &too_large]).await;
    assert_eq!(refused.error(), "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    for key in [b"".as_slice(), b"stats", b"%:x", b"%", b"\0\xff", "sch\u{f6}n".as_bytes(), &[0; 170]] {
        assert_eq!(redis.call(&[b"SET".as_slice(), key, key]).await, ok());
        assert_eq!(redis.call(&[b"GET".as_slice(), key]).await, bulk(key));
    }
    redis.call(&[b"SET".as_slice(), &[0; 171], b"x"]).await.error();
    assert_eq!(redis.call(&["GETRANGE", "key", "-3", "-1"]).await, bulk("xxx"));
    assert_eq!(redis.call(&["GETDEL", "stats"]).await, bulk("stats"));
    assert_eq!(redis.call(&["GETDEL", "stats"]).await, Reply::Null);
}

async fn set_has_the_options_of_redis(service: &Service) {
    let ns = namespace("resp");
    let mut redis = Connection::to(address(service), &ns).await;
    assert_eq!(redis.call(&["SET", "k", "1", "XX"]).await, Reply::Null);
    assert_eq!(redis.call(&["SET", "k", "1", "NX"]).await, ok());
    assert_eq!(redis.call(&["SET", "k", "2", "nx"]).await, Reply::Null);
    assert_eq!(redis.call(&["SETNX", "k", "2"]).await.integer(), 0);
    assert_eq!(redis.call(&["SET", "k", "2", "XX", "GET"]).await, bulk("1"));
    assert_eq!(redis.call(&["SET", "k", "3", "NX", "GET"]).await, bulk("2"));
    assert_eq!(redis.call(&["GETSET", "k", "4"]).await, bulk("2"));
    assert_eq!(redis.call(&["SET", "absent", "1", "GET"]).await, Reply::Null);
    assert_eq!(redis.call(&["SET", "k", "5", "EX", "100"]).await, ok());
    assert_eq!(redis.call(&["SET", "k", "6", "KEEPTTL"]).await, ok());
    let left = redis.call(&["TTL", "k"]).await.integer();
    assert!((90..=100).contains(&left), "{left}");
    assert_eq!(redis.call(&["SET", "k", "7"]).await, ok());
    assert_eq!(redis.call(&["TTL", "k"]).await.integer(), -1);
    assert_eq!(redis.call(&["SET", "k", "8", "PXAT", "1"]).await, ok());
    assert_eq!(redis.call(&["GET", "k"]).await, Reply::Null);
    assert_eq!(redis.call(&["SETEX", "k", "100", "9"]).await, ok());
    assert_eq!(redis.call(&["PSETEX", "k", "1", "9"]).await, ok());
    eventually(SOON, async || {
        let found = Connection::to(address(service), &ns).await.call(&["GET", "k"]).await;
        ensure!(found == Reply::Null);
        Ok(())
    })
    .await;
    for wrong in [
        &["SET", "k", "1", "NX", "XX"][..],
        &["SET", "k", "1", "NX", "NX", "XX"],
        &["SET", "k", "1", "EX", "1", "KEEPTTL"],
        &["SET", "k", "1", "EX"],
        &["SET", "k", "1", "EX", "1", "PX", "1"],
        &["SET", "k", "1", "KEEPTTL", "EX", "1"],
        &["SET", "k", "1", "WHAT"],
    ] {
        assert_eq!(redis.call(wrong).await.error(), "ERR syntax error", "{wrong:?}");
    }
    let invalid = "ERR invalid expire time in 'set' command";
    assert_eq!(redis.call(&["SET", "k", "1", "EX", "0"]).await.error(), invalid);
    assert_eq!(
        redis.call(&["SET", "k", "1", "EX", "x"]).await.error(),
        "ERR value is not an integer or out of range"
    );
}

async fn counters_and_parts_of_values_change_in_one_step(service: &Service) {
    let mut redis = open(service, "resp").await;
    assert_eq!(redis.call(&["INCR", "n"]).await.integer(), 1);
    assert_eq!(redis.call(&["INCRBY", "n", "41"]).await.integer(), 42);
    assert_eq!(redis.call(&["DECRBY", "n", "40"]).await.integer(), 2);
    assert_eq!(redis.call(&["DECR", "n"]).await.integer(), 1);
    assert_eq!(redis.call(&["EXPIRE", "n", "100"]).await.integer(), 1);
    assert_eq!(redis.call(&["INCR", "n"]).await.integer(), 2);
    assert!(redis.call(&["TTL", "n"]).await.integer() > 90, "a counter keeps its time to live");
    redis.call(&["SET", "n", "9223372036854775807"]).await;
    assert_eq!(redis.call(&["INCR", "n"]).await.error(), "ERR increment or decrement would overflow");
    redis.call(&["SET", "n", " 1"]).await;
    assert_eq!(redis.call(&["INCR", "n"]).await.error(), "ERR value is not an integer or out of range");
    assert_eq!(redis.call(&["APPEND", "a", "ab"]).await.integer(), 2);
    assert_eq!(redis.call(&["APPEND", "a", "cd"]).await.integer(), 4);
    assert_eq!(redis.call(&["SETRANGE", "a", "6", "x"]).await.integer(), 7);
    assert_eq!(redis.call(&["GET", "a"]).await, bulk("abcd\0\0x"));
    assert_eq!(redis.call(&["SETRANGE", "none", "6", ""]).await.integer(), 0);
    assert_eq!(redis.call(&["SETRANGE", "a", "99999999", ""]).await.integer(), 7);
    assert_eq!(
        redis.call(&["SETRANGE", "a", "99999999", "x"]).await.error(),
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    );
    redis.call(&["SET", "n", ""]).await;
    assert_eq!(redis.call(&["INCR", "n"]).await.error(), "ERR value is not an integer or out of range");
    assert_eq!(redis.call(&["DECRBY", "n", &i64::MIN.to_string()]).await.error(), "ERR decrement would overflow");
    assert_eq!(redis.call(&["SETRANGE", "a", "-1", "x"]).await.error(), "ERR offset is out of range");
}

async fn concurrent_increments_are_all_counted(service: &Service) {
    let ns = namespace("resp");
    let clients = (0..8).map(async |_| {
        let mut redis = Connection::to(address(service), &ns).await;
        for _ in 0..20 {
            redis.call(&["INCR", "n"]).await.integer();
        }
    });
    futures_util::future::join_all(clients).await;
    assert_eq!(Connection::to(address(service), &ns).await.call(&["GET", "n"]).await, bulk("160"));
}

async fn times_to_live_are_set_and_read(service: &Service) {
    let mut redis = open(service, "resp").await;
    assert_eq!(redis.call(&["TTL", "k"]).await.integer(), -2);
    assert_eq!(redis.call(&["EXPIRE", "k", "10"]).await.integer(), 0);
    redis.call(&["SET", "k", "v"]).await;
    assert_eq!(redis.call(&["PTTL", "k"]).await.integer(), -1);
    assert_eq!(redis.call(&["EXPIRETIME", "k"]).await.integer(), -1);
    for (arguments, expected) in [
        (["PEXPIRE", "k", "100000", "XX"], 0),
        (["PEXPIRE", "k", "100000", "NX"], 1),
        (["EXPIRE", "k", "200", "LT"], 0),
        (["EXPIRE", "k", "200", "GT"], 1),
    ] {
        assert_eq!(redis.call(&arguments).await.integer(), expected, "{arguments:?}");
    }
    let left = redis.call(&["PTTL", "k"]).await.integer();
    assert!((190_000..=200_000).contains(&left), "{left}");
    assert_eq!(redis.call(&["GET", "k"]).await, bulk("v"));
    assert_eq!(redis.call(&["PERSIST", "k"]).await.integer(), 1);
    assert_eq!(redis.call(&["PERSIST", "k"]).await.integer(), 0);
    assert_eq!(redis.call(&["TTL", "k"]).await.integer(), -1);
    assert_eq!(redis.call(&["GETEX", "k", "EX", "50"]).await, bulk("v"));
    assert!(redis.call(&["TTL", "k"]).await.integer() > 40);
    assert_eq!(redis.call(&["GETEX", "k", "PERSIST"]).await, bulk("v"));
    assert_eq!(redis.call(&["TTL", "k"]).await.integer(), -1);
    assert_eq!(redis.call(&["EXPIREAT", "k", "1"]).await.integer(), 1);
    assert_eq!(redis.call(&["EXISTS", "k"]).await.integer(), 0);
    let wrong = redis.call(&["EXPIRE", "k", "1", "NX", "GT"]).await;
    assert_eq!(wrong.error(), "ERR NX and XX, GT or LT options at the same time are not compatible");
}

async fn many_keys_are_read_written_and_deleted(service: &Service) {
    let mut redis = open(service, "resp").await;
    assert_eq!(redis.call(&["MSET", "a", "1", "b", "", "a", "2"]).await, ok());
    let read = redis.call(&["MGET", "a", "none", "b", "a"]).await;
    assert_eq!(read, Reply::Array(vec![bulk("2"), Reply::Null, bulk(""), bulk("2")]));
    assert_eq!(redis.call(&["EXISTS", "a", "b", "none", "a"]).await.integer(), 3);
    assert_eq!(redis.call(&["TOUCH", "a", "none"]).await.integer(), 1);
    assert_eq!(redis.call(&["DBSIZE"]).await.integer(), 2);
    assert_eq!(redis.call(&["TYPE", "a"]).await, Reply::Simple("string".to_owned()));
    assert_eq!(redis.call(&["TYPE", "none"]).await, Reply::Simple("none".to_owned()));
    assert_eq!(redis.call(&["OBJECT", "ENCODING", "a"]).await, bulk("int"));
    assert_eq!(redis.call(&["OBJECT", "ENCODING", "none"]).await.error(), "ERR no such key");
    assert_eq!(redis.call(&["DEL", "a", "none"]).await.integer(), 1);
    assert_eq!(redis.call(&["UNLINK", "a", "b"]).await.integer(), 1);
    // More keys than a batch over HTTP may have.
    let pairs: Vec<String> = (0..2500).flat_map(|i| [format!("k{i}"), i.to_string()]).collect();
    let mset: Vec<&str> = std::iter::once("MSET").chain(pairs.iter().map(String::as_str)).collect();
    assert_eq!(redis.call(&mset).await, ok());
    let keys: Vec<&str> = pairs.iter().step_by(2).map(String::as_str).collect();
    let mget = redis.call(&[&["MGET"], &keys[..]].concat()).await;
    assert_eq!(mget.array().len(), 2500);
    assert_eq!(mget.array()[2499], bulk("2499"));
    assert_eq!(redis.call(&[&["DEL"], &keys[..]].concat()).await.integer(), 2500);
}

async fn scan_and_keys_find_every_key(service: &Service) {
    let mut redis = open(service, "resp").await;
    let mut expected: Vec<Vec<u8>> = (0..300).map(|i| format!("user:{i}").into_bytes()).collect();
    expected.extend([b"".to_vec(), b"user:\0".to_vec(), b"user:\xff".to_vec()]);
    for key in &expected {
        assert_eq!(redis.call(&[b"SET".as_slice(), key, b"v"]).await, ok());
    }
    expected.sort();
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let page = redis.call(&["SCAN", &cursor, "COUNT", "20"]).await;
        let [next, keys] = page.array() else { panic!("a cursor and keys: {page:?}") };
        found.extend(keys.array().iter().map(|key| match key {
            Reply::Bulk(bytes) => bytes.clone(),
            other => panic!("a key expected, not {other:?}"),
        }));
        cursor = next.text();
        if cursor == "0" {
            break;
        }
    }
    found.sort();
    assert_eq!(found, expected, "without changes meanwhile, every key is found once");
    assert_eq!(redis.call(&["KEYS", "user:*"]).await.array().len(), 302);
    assert_eq!(redis.call(&[b"KEYS".as_slice(), b"user:[\xfe-\xff]"]).await.array(), [bulk(b"user:\xff")]);
    let typed = redis.call(&["SCAN", "0", "TYPE", "hash", "COUNT", "1000"]).await;
    assert!(typed.array()[1].array().is_empty());
    let matched = redis.call(&["SCAN", "0", "MATCH", "user:1?", "COUNT", "1000"]).await;
    assert_eq!(matched.array()[1].array().len(), 10);
    assert_eq!(redis.call(&["SCAN", "x"]).await.error(), "ERR invalid cursor");
    assert_eq!(redis.call(&["SCAN", "0", "COUNT", "0"]).await.error(), "ERR syntax error");
}

async fn flushes_delete_what_is_selected(service: &Service) {
    let (mut one, mut other) = (open(service, "resp").await, open(service, "resp").await);
    for redis in [&mut one, &mut other] {
        assert_eq!(redis.call(&["MSET", "a", "1", "b", "2"]).await, ok());
    }
    assert_eq!(one.call(&["FLUSHDB"]).await, ok());
    assert_eq!((one.call(&["DBSIZE"]).await.integer(), other.call(&["DBSIZE"]).await.integer()), (0, 2));
    // After AUTH, a client has one namespace.
    assert_eq!(one.call(&["FLUSHALL"]).await, ok());
    assert_eq!(other.call(&["GET", "a"]).await, bulk("1"));
    assert_eq!(other.call(&["FLUSHDB", "ASYNC"]).await, ok());
    assert_eq!(other.call(&["FLUSHDB", "NOW"]).await.error(), "ERR syntax error");
}

async fn transactions_run_their_commands(service: &Service) {
    let mut redis = open(service, "resp").await;
    let queued = Reply::Simple("QUEUED".to_owned());
    assert_eq!(redis.call(&["MULTI"]).await, ok());
    assert_eq!(redis.call(&["SET", "k", "1"]).await, queued);
    assert_eq!(redis.call(&["INCR", "k"]).await, queued);
    assert_eq!(redis.call(&["PING"]).await, queued);
    assert_eq!(redis.call(&["GETRANGE", "k", "x", "1"]).await, queued);
    let done = redis.call(&["EXEC"]).await;
    let [set, incr, ping, wrong] = done.array() else { panic!("four replies: {done:?}") };
    assert_eq!((set, incr, ping), (&ok(), &Reply::Integer(2), &Reply::Simple("PONG".to_owned())));
    assert_eq!(wrong.error(), "ERR value is not an integer or out of range");
    assert_eq!(redis.call(&["EXEC"]).await.error(), "ERR EXEC without MULTI");
    assert_eq!(redis.call(&["MULTI"]).await, ok());
    assert_eq!(redis.call(&["MULTI"]).await.error(), "ERR MULTI calls can not be nested");
    redis.call(&["NONSENSE"]).await.error();
    assert_eq!(redis.call(&["EXEC"]).await.error(), "EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(redis.call(&["MULTI"]).await, ok());
    assert_eq!(redis.call(&["SET", "k", "9"]).await, queued);
    assert_eq!(redis.call(&["DISCARD"]).await, ok());
    assert_eq!(redis.call(&["GET", "k"]).await, bulk("2"));
}

async fn a_pipeline_is_answered_in_order(service: &Service) {
    let redis = open(service, "resp").await;
    let mut bytes = Vec::new();
    for i in 0..1000 {
        bytes.extend(command(&["SET", &format!("k{i}"), &i.to_string()]));
        bytes.extend(command(&["GET", &format!("k{i}")]));
    }
    // In pieces that end anywhere.
    let (mut reader, mut writer) = redis.stream.into_split();
    let writing = async {
        for piece in bytes.chunks(4093) {
            writer.write_all(piece).await.expect("the service reads");
        }
    };
    let reading = async {
        let mut read = vec![0; 0];
        let expected: Vec<u8> =
            (0..1000).flat_map(|i: i32| format!("+OK\r\n${}\r\n{i}\r\n", i.to_string().len()).into_bytes()).collect();
        while read.len() < expected.len() {
            tokio::io::AsyncReadExt::read_buf(&mut reader, &mut read).await.expect("an open connection");
        }
        assert!(read == expected, "the replies are in the order of the commands");
    };
    tokio::join!(writing, reading);
}

async fn errors_have_the_words_of_redis(service: &Service) {
    let mut redis = open(service, "resp").await;
    for (arguments, expected) in [
        (&["FOO"][..], "ERR unknown command 'FOO', with args beginning with: "),
        (&["FOO", "a", "b\r\n"], "ERR unknown command 'FOO', with args beginning with: 'a' 'b  ' "),
        (&["LPUSH", "l", "x"], "ERR unknown command 'LPUSH', with args beginning with: 'l' 'x' "),
        (&["get"], "ERR wrong number of arguments for 'get' command"),
        (&["GET", "a", "b"], "ERR wrong number of arguments for 'get' command"),
        (&["MSET", "a"], "ERR wrong number of arguments for 'mset' command"),
        (&["MSET", "a", "1", "b"], "ERR wrong number of arguments for 'mset' command"),
        (&["CLIENT", "WHAT"], "ERR unknown subcommand 'WHAT'. Try CLIENT HELP."),
        (&["CLIENT", "MAINT_NOTIFICATIONS", "ON"], "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP."),
        (&["SELECT", "0"], "ERR SELECT is not possible, because AUTH has chosen the namespace"),
        (&["HELLO", "4"], "NOPROTO unsupported protocol version"),
        (&["HELLO", "x"], "ERR Protocol version is not an integer or out of range"),
        (&["AUTH", "a b", "x"], "WRONGPASS invalid username-password pair or user is disabled."),
    ] {
        assert_eq!(redis.call(arguments).await.error(), expected, "{arguments:?}");
    }
    assert_eq!(redis.call(&["PING"]).await, Reply::Simple("PONG".to_owned()), "the connection lives on");
}

#[tokio::test]
async fn a_connection_says_and_chooses_what_it_wants() {
    let settings = Settings::embedded().set("resp_databases", "0=default,1=sessions");
    let service = Service::start(settings);
    let mut redis = Connection::open(address(&service)).await;
    let hello = redis.call(&["HELLO", "3", "SETNAME", "me", "AUTH", "default", "secret"]).await.map();
    assert_eq!((hello["server"].text(), hello["proto"].integer()), ("sidecache".to_owned(), 3));
    assert_eq!((hello["mode"].text(), hello["role"].text()), ("standalone".to_owned(), "master".to_owned()));
    assert!(hello["modules"].array().is_empty() && hello["id"].integer() > 0);
    assert_eq!(redis.call(&["CLIENT", "GETNAME"]).await, bulk("me"));
    assert_eq!(redis.call(&["CLIENT", "SETINFO", "LIB-NAME", "test"]).await, ok());
    assert_eq!(redis.call(&["SET", "k", "in default"]).await, ok());
    assert_eq!(redis.call(&["SELECT", "1"]).await, ok());
    assert_eq!(redis.call(&["GET", "k"]).await, Reply::Null);
    assert_eq!(redis.call(&["SET", "k", "in sessions"]).await, ok());
    assert_eq!(redis.call(&["SELECT", "7"]).await, ok());
    assert_eq!(redis.call(&["SET", "k", "in db7"]).await, ok());
    let cache = service.client();
    for ns in ["default", "sessions", "db7"] {
        assert_eq!(cache.stats(ns).await.json()["total_keys"], 1, "{ns}");
    }
    let line = redis.call(&["CLIENT", "INFO"]).await.text();
    for part in ["name=me ", "db=7 ", "cmd=client ", "resp=3 ", "lib-name=test "] {
        assert!(line.contains(part), "{line}");
    }
    assert!(redis.call(&["CLIENT", "LIST"]).await.text().contains(&line));
    assert_eq!(redis.call(&["SELECT", "70000"]).await.error(), "ERR DB index is out of range");
    let info = redis.call(&["INFO"]).await.text();
    for part in
        ["# Server\r\n", "redis_version:7.4.0\r\n", "# Keyspace\r\n", "db0:keys=1,", "db7:keys=1,", "# sidecache\r\n"]
    {
        assert!(info.contains(part), "{part} is missing from {info}");
    }
    assert_eq!(redis.call(&["FLUSHALL"]).await, ok());
    assert_eq!(redis.call(&["DBSIZE"]).await.integer(), 0);
    assert_eq!(cache.stats("sessions").await.json()["total_keys"], 0);
    assert_eq!(redis.call(&["RESET"]).await, Reply::Simple("RESET".to_owned()));
    assert_eq!(redis.call(&["CLIENT", "GETNAME"]).await, Reply::Null);
    assert_eq!(redis.call(&["ECHO", "\0x"]).await, bulk("\0x"));
    assert_eq!(redis.call(&["CLIENT", "ID"]).await, hello["id"]);
    assert_eq!(redis.call(&["CONFIG", "GET", "save", "append*"]).await.map()["appendonly"], bulk("no"));
    redis.call(&["CONFIG", "SET", "save", ""]).await.error();
    assert_eq!(redis.call(&["ROLE"]).await.array()[0], bulk("master"));
    assert_eq!(redis.call(&["TIME"]).await.array().len(), 2);
    let count = redis.call(&["COMMAND", "COUNT"]).await.integer();
    assert_eq!(redis.call(&["COMMAND"]).await.array().len() as i64, count);
    let docs = redis.call(&["COMMAND", "DOCS", "get", "nothing"]).await.map();
    assert_eq!(docs["get"].map()["group"], bulk("string"));
    assert_eq!(redis.call(&["COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2"]).await.array(), [bulk("a"), bulk("b")]);
    assert_eq!(redis.call(&["QUIT"]).await, ok());
    assert_eq!(redis.rest().await, b"");
}

#[tokio::test]
async fn replies_can_be_switched_off() {
    let service = Service::start(Settings::embedded());
    let mut redis = Connection::open(address(&service)).await;
    let words = [&["CLIENT", "REPLY", "SKIP"][..], &["SET", "k", "1"], &["GET", "k"]];
    redis.send(&words.map(command).concat()).await;
    assert_eq!(redis.reply().await, bulk("1"));
    let words = [&["CLIENT", "REPLY", "OFF"][..], &["SET", "k", "2"], &["NONSENSE"]];
    redis.send(&words.map(command).concat()).await;
    assert!(redis.is_silent(Duration::from_millis(100)).await);
    assert_eq!(redis.call(&["CLIENT", "REPLY", "ON"]).await, ok());
    assert_eq!(redis.call(&["GET", "k"]).await, bulk("2"));
}

#[tokio::test]
async fn what_is_not_the_protocol_ends_the_connection() {
    let service = Service::start(Settings::embedded());
    let large = format!("SET k {}", "x".repeat(70_000));
    for (bytes, expected) in [
        ("*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "-ERR Protocol error: expected '$', got 'f'\r\n"),
        ("PING\r\n*1\r\n$-5\r\n", "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"),
        ("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("SET \"k\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (&large, "-ERR Protocol error: too big inline request\r\n"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nPING\r\n", ""),
        ("PING\r\nHost: localhost\r\nPING\r\n", "+PONG\r\n"),
    ] {
        let mut redis = Connection::open(address(&service)).await;
        redis.send(bytes.as_bytes()).await;
        assert_eq!(String::from_utf8_lossy(&redis.rest().await), expected, "{}", &bytes[..bytes.len().min(60)]);
    }
    let mut redis = Connection::open(address(&service)).await;
    redis.send(b"*0\r\n*-1\r\n\r\nSET k \"a\\x00b\"\r\nGET k\r\n").await;
    assert_eq!((redis.reply().await, redis.reply().await), (ok(), bulk("a\0b")));
}

/// A busy client always has a part of its next command on the way: the time of a command begins with that command.
#[tokio::test]
async fn regression_a_pipeline_whose_pieces_end_within_commands_is_not_slow() {
    let settings = Settings::embedded().set("request_timeout_ms", 1000).set("redis_timeout_ms", 500);
    let service = Service::start(settings);
    let mut redis = Connection::open(address(&service)).await;
    let set = command(&["SET", "k", "v"]);
    let (head, tail) = set.split_at(10);
    redis.send(head).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        redis.send(&[tail, head].concat()).await;
        assert_eq!(redis.reply().await, ok());
    }
    // The rest of this command never comes.
    assert_eq!(redis.rest().await, b"");
}

/// The replies of EXEC, and those of a key that MGET names often, take memory from the budget for answers.
#[tokio::test]
async fn regression_small_commands_with_large_replies_do_not_fill_the_memory() {
    let service = Service::start(Settings::embedded().set("max_answers_mb", 1).set("max_value_bytes", 100_000));
    let mut redis = Connection::open(address(&service)).await;
    assert_eq!(redis.call(&["SET", "k", &"x".repeat(10_000)]).await, ok());
    let full = "TRYAGAIN other answers use all the memory for answers";
    let mget = redis.call(&[&["MGET"][..], &["k"; 1000]].concat()).await;
    assert_eq!(mget.error(), full);
    let commands = [&["MULTI"][..]].into_iter().chain(std::iter::repeat_n(&["GET", "k"][..], 1000));
    redis.send(&commands.map(command).collect::<Vec<_>>().concat()).await;
    for _ in 0..=1000 {
        redis.reply().await;
    }
    let done = redis.call(&["EXEC"]).await;
    let refused = done.array().iter().filter(|reply| **reply == Reply::Error(full.to_owned())).count();
    assert!((890..900).contains(&refused), "{refused} of 1000");
    let read = redis.call(&[&["MGET"][..], &["k"; 50]].concat()).await;
    assert_eq!(read.array().len(), 50, "the memory was given back");
}

/// A client that sends without reading must not make the service collect its replies.
#[tokio::test]
async fn a_client_that_never_reads_is_closed() {
    let settings = Settings::embedded().set("request_timeout_ms", 1000).set("redis_timeout_ms", 500);
    let service = Service::start(settings);
    let mut redis = Connection::open(address(&service)).await;
    let value = "x".repeat(1 << 20);
    assert_eq!(redis.call(&["SET", "k", &value]).await, ok());
    service.forget_peak();
    let before = service.resident_bytes();
    let get = command(&["GET", "k"]).repeat(1000);
    let flood = async {
        loop {
            if redis.stream.write_all(&get).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), flood).await.expect("the service closes the connection");
    let grown = service.peak_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    eventually(SOON, async || {
        let metrics = service.client().metrics().await;
        ensure!(metrics.total("sidecache_resp_connections") == 0.0);
        ensure!(metrics.total("sidecache_http_connections_stalled_total") == 1.0);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn half_a_command_is_not_waited_for_forever_but_an_idle_client_is() {
    let settings = Settings::embedded()
        .set("request_timeout_ms", 600)
        .set("redis_timeout_ms", 500)
        .set("header_timeout_ms", 100)
        .set("idle_timeout_ms", 100);
    let service = Service::start(settings);
    let mut idle = Connection::open(address(&service)).await;
    let mut slow = Connection::open(address(&service)).await;
    slow.send(b"*2\r\n$3\r\nGET\r\n").await;
    assert_eq!(slow.rest().await, b"");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(idle.call(&["PING"]).await, Reply::Simple("PONG".to_owned()));
}

#[tokio::test]
async fn both_doors_share_the_limit_on_connections() {
    let service = Service::start(Settings::embedded().set("max_connections", 3));
    let full = Reply::Error("ERR max number of clients reached".to_owned());
    let mut all = Vec::new();
    while all.len() < 3 {
        let mut redis = Connection::open(address(&service)).await;
        // The connection of the start-up probe may still be open for a moment.
        match redis.call(&["PING"]).await {
            Reply::Simple(_) => all.push(redis),
            told => assert_eq!(told, full),
        }
    }
    let mut redis = Connection::open(address(&service)).await;
    assert_eq!(redis.call(&["PING"]).await, full);
    assert_eq!(redis.rest().await, b"");
}

#[tokio::test]
async fn sigterm_answers_what_was_sent_and_closes() {
    let mut service = Service::start(Settings::embedded());
    let mut idle = Connection::open(address(&service)).await;
    let mut busy = Connection::open(address(&service)).await;
    assert_eq!(idle.call(&["PING"]).await, Reply::Simple("PONG".to_owned()));
    busy.send(&command(&["SET", "k", "v"])).await;
    service.signal(Signal::Term);
    assert_eq!(busy.reply().await, ok());
    assert_eq!(busy.rest().await, b"");
    assert_eq!(idle.rest().await, b"");
    assert!(service.ended().success());
}

#[tokio::test]
async fn a_default_address_that_is_taken_is_left_out_and_a_set_one_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:6378");
    let service = Service::start(Settings::embedded().unset("resp_listen"));
    service.client().set("users", "k", "1").await.expect(201);
    if taken.is_ok() {
        assert!(service.log().contains("no listener for Redis clients"), "{}", service.log());
    }
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound");
    let finished = run(&Settings::embedded().set("resp_listen", address));
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("SIDECACHE_RESP_LISTEN"), "{}", finished.stderr);
}

/// redis-cli and redis-benchmark, as people use them.
#[tokio::test]
async fn redis_cli_and_redis_benchmark_work() {
    let service = Service::start(Settings::embedded());
    let port = address(&service).port().to_string();
    let cli = async |arguments: &[&str]| output("redis-cli", &[&["-p", &port], arguments].concat()).await;
    assert_eq!(cli(&["SET", "hello", "world", "EX", "60"]).await, "OK\n");
    assert_eq!(cli(&["-3", "GET", "hello"]).await, "world\n");
    assert_eq!(cli(&["-n", "2", "GET", "hello"]).await, "\n");
    assert_eq!(cli(&["--user", "shop", "--pass", "x", "--no-auth-warning", "INCR", "n"]).await, "1\n");
    assert_eq!(cli(&["--scan"]).await, "hello\n");
    assert!(cli(&["--bigkeys"]).await.contains("Biggest string found"));
    assert!(cli(&["INFO", "server"]).await.contains("redis_version:"));
    let benchmark = ["-p", &port, "-t", "set,get", "-n", "5000", "-c", "20", "-P", "16", "-q"];
    let told = output("redis-benchmark", &benchmark).await;
    assert!(told.contains("SET: ") && told.contains("GET: ") && !told.contains("Error"), "{told}");
}

/// redis-py speaks RESP3 by default, and gives up if HELLO fails.
#[tokio::test]
async fn redis_py_works_in_both_protocols() {
    let service = Service::start(Settings::embedded());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_clients");
    let installed = output("sh", &[&format!("{folder}/install.sh")]).await;
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/redis_clients/bin/python");
    let port = address(&service).port().to_string();
    let told = output(python, &[&format!("{folder}/redis_py.py"), &port]).await;
    assert_eq!(told, "done\n", "installed: {installed}");
}

/// What a program writes.
async fn output(program: &'static str, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run =
        move || Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let output = tokio::task::spawn_blocking(run).await.expect("it ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
