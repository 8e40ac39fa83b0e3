//! `INFO`: numbers of this instance under the names that Redis gives them, and a section of its own.

use std::fmt::Write as _;

use super::command::Call;
use super::connect::REDIS_VERSION;
use super::failure::Answer;
use crate::clock::Moment;

/// The sections in their order; also what `INFO` without an argument shows.
const SECTIONS: [&str; 6] = ["server", "clients", "memory", "stats", "keyspace", "sidecache"];

pub async fn info(call: &mut Call<'_>) -> Answer {
    let is_wanted = |section: &&str| {
        let names = |word: &[u8]| {
            word.eq_ignore_ascii_case(section.as_bytes())
                || ["all", "everything", "default"].iter().any(|all| word.eq_ignore_ascii_case(all.as_bytes()))
        };
        call.len() == 1 || call.request.from(1).any(names)
    };
    let wanted: Vec<&str> = SECTIONS.into_iter().filter(is_wanted).collect();
    let mut text = String::new();
    for section in wanted {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let lines = match section {
            "server" => server(call),
            "clients" => clients(call),
            "memory" => memory(call).await,
            "stats" => stats(call),
            "keyspace" => keyspace(call).await,
            _ => sidecache(call),
        };
        let title = match section {
            "sidecache" => section.to_owned(),
            section => section[..1].to_ascii_uppercase() + &section[1..],
        };
        write!(text, "# {title}\r\n").expect("a String takes everything");
        for (name, value) in lines {
            write!(text, "{name}:{value}\r\n").expect("a String takes everything");
        }
    }
    call.reply.verbatim(&text);
    Ok(())
}

type Lines = Vec<(String, String)>;

fn lines<const N: usize>(lines: [(&str, String); N]) -> Lines {
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn server(call: &Call<'_>) -> Lines {
    let uptime = Moment::now().since(call.door.started).as_secs();
    lines([
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("process_id", std::process::id().to_string()),
        ("run_id", call.door.instance.clone()),
        ("tcp_port", call.door.port.to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
        // Clients wait for this to be 0 before they send commands.
        ("loading", "0".to_owned()),
    ])
}

fn clients(call: &Call<'_>) -> Lines {
    lines([
        ("connected_clients", call.door.clients.count().to_string()),
        ("maxclients", call.door.max_clients.to_string()),
        ("blocked_clients", "0".to_owned()),
    ])
}

/// The memory of the store, as far as the shards report it.
async fn memory(call: &Call<'_>) -> Lines {
    let shards = call.door.cache.health().await;
    let used: u64 = shards.iter().map(|shard| shard.used_bytes).sum();
    let limit: u64 = shards.iter().map(|shard| shard.limit_bytes).sum();
    lines([
        ("used_memory", used.to_string()),
        ("used_memory_human", format!("{:.2}M", used as f64 / f64::from(1 << 20))),
        ("maxmemory", limit.to_string()),
        ("maxmemory_policy", "noeviction".to_owned()),
    ])
}

fn stats(call: &Call<'_>) -> Lines {
    lines([
        ("total_connections_received", call.door.clients.connected().to_string()),
        ("total_commands_processed", call.door.metrics.resp_commands.value().to_string()),
    ])
}

/// The databases with names, and the selected one: their keys, and their part of the hits and misses.
async fn keyspace(call: &Call<'_>) -> Lines {
    let mut databases: Vec<_> = call
        .door
        .databases
        .numbers()
        .filter(|_| !call.session.is_named())
        .filter_map(|number| Some((format!("db{number}"), call.door.databases.namespace(number)?)))
        .collect();
    let selected = call.session.namespace();
    if databases.iter().all(|(_, namespace)| namespace != selected) {
        let database = call.session.client.names.lock().database.clone();
        let is_number = database.bytes().all(|byte| byte.is_ascii_digit()) && !call.session.is_named();
        let name = if is_number { format!("db{database}") } else { "db0".to_owned() };
        databases.push((name, selected.clone()));
    }
    let mut lines = Lines::new();
    for (name, namespace) in databases {
        if let Ok(known) = call.door.cache.known_stats(&namespace).await
            && known.totals.keys > 0
        {
            lines.push((name, format!("keys={},expires=0,avg_ttl=0", known.totals.keys)));
        }
    }
    lines
}

fn sidecache(call: &Call<'_>) -> Lines {
    lines([
        ("sidecache_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("sidecache_namespace", call.session.namespace().to_string()),
        ("sidecache_shards", call.door.cache.shard_names().join(",")),
    ])
}
