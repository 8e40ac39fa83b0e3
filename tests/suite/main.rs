//! The tests of the service from outside: the real binary, real servers, real HTTP. Nothing in here
//! looks into the crate, but for [`glob`]; what holds is what the contract says.
//!
//! - [`functional`], [`exact_bytes`]: the cases F-01 to F-15, on both stores
//! - [`keys`], [`input`], [`crafted`]: what is accepted, how the rest is refused, and input made to cost much
//! - [`answers`], [`bounded_memory`]: the memory that answers, bodies and records may take
//! - [`hosts`], [`keep_alive`]: the names that are answered for, and how long connections stay
//! - [`batch`], [`mdelete`], [`flush`], [`listing`], [`namespaces`]: the other calls, in detail
//! - [`jobs`]: flushes that outlive their requests
//! - [`tag`], [`access_metadata`], [`glob`]: what entries carry, and what patterns match
//! - [`stored_form`]: what lies in Redis
//! - [`exact_numbers`], [`exact_under_load`], [`expiry`]: the stats, against a model and a walk over Redis
//! - [`quotas`], [`eviction`], [`hit_ratio`]: limits, who goes when they are reached, and what that is worth
//! - [`scale`]: a million entries
//! - [`foreign_types`]: names of ours that somebody else wrote to
//! - [`roles`]: replicas, demoted primaries, names that lead elsewhere, shards that are emptied
//! - [`resolved_names`]: a name that resolves to another address while the old server lives on
//! - [`lost_books`]: bookkeeping that is gone
//! - [`making_room`]: a quota far below what a namespace holds
//! - [`crowded_keys`]: keys that were chosen to crowd one place
//! - [`ring_mismatch`]: an instance whose setting does not fit the living fleet
//! - [`full_memory`]: stores that have no memory left
//! - [`concurrency`], [`coherence`]: many clients, and two instances on the same shards
//! - [`gathering`]: requests of one moment, which go as few scripts
//! - [`cache_status`]: which tier answered, and why not a nearer one
//! - [`order`]: reads of one instance that overtake each other
//! - [`stale_on_error`]: copies that stand in for a shard that does not answer
//! - [`chaos`]: shards and primaries that are killed, far away or busy
//! - [`staleness`]: very many reads under every fault, each held against what was written
//! - [`access_log`], [`logs`], [`audit`], [`metrics`]: what is recorded of all that
//! - [`traces`]: the request and the trace that an operation was part of
//! - [`monitoring`]: metrics, rules, dashboard and runbook, which speak of the same
//! - [`fleet`]: instances that know of each other
//! - [`dashboard`]: the pages for people, as far as they need no browser
//! - [`process`]: variables, threads and memory, and what the service is shipped with
//! - [`runbook`]: every command of the runbook
//! - [`partial`]: lists while a shard is away
//! - [`startup`], [`outage`], [`database_outage`], [`breaker`]: settings, signals, and servers that are away
//! - [`cli`]: the program as its own client, and what it does without a service
//! - [`upgrade`]: databases that an earlier version left
//! - [`migrations`]: how the schema comes up to date, beside others, with few rights, behind a pooler
//! - [`store_tls`]: certificates of one's own for Redis and PostgreSQL, and IPv6 addresses
//! - [`preflight`]: shards on which not everything works, and what is said of them
//! - [`listener`], [`connections`]: clients that are slow, odd, or ten thousand
//! - [`fast_path`]: reads and writes of entries that never see the router, among requests that do
//! - [`ring_change`]: shards that come and go
//! - [`regressions`]: bugs that were, each as it was found
//! - [`openapi`]: the interface, held against its document
//! - [`nginx`], [`haproxy`]: proxies in front of instances, and HAProxy in front of Redis
//! - [`replay`]: the example, on a generated workload and on a real trace
//! - [`browser`]: the dashboard in Chromium
//! - [`clients`]: the cache-aside programs of docs/CLIENTS.md
//! - [`support`]: what the tests stand on

mod support;

mod access_log;
mod access_metadata;
mod answers;
mod audit;
mod batch;
mod bounded_memory;
mod breaker;
mod browser;
mod cache_status;
mod chaos;
mod cli;
mod clients;
mod coherence;
mod concurrency;
mod connections;
mod crafted;
mod crowded_keys;
mod dashboard;
mod database_outage;
mod eviction;
mod exact_bytes;
mod exact_numbers;
mod exact_under_load;
mod expiry;
mod fast_path;
mod fleet;
mod flush;
mod foreign_types;
mod full_memory;
mod functional;
mod gathering;
mod glob;
mod haproxy;
mod hit_ratio;
mod hosts;
mod input;
mod jobs;
mod keep_alive;
mod keys;
mod listener;
mod listing;
mod logs;
mod lost_books;
mod making_room;
mod mdelete;
mod metrics;
mod migrations;
mod monitoring;
mod namespaces;
mod nginx;
mod openapi;
mod order;
mod outage;
mod partial;
mod preflight;
mod process;
mod quotas;
mod regressions;
mod replay;
mod resolved_names;
mod ring_change;
mod ring_mismatch;
mod roles;
mod runbook;
mod scale;
mod soak;
mod stale_on_error;
mod staleness;
mod startup;
mod store_tls;
mod stored_form;
mod tag;
mod traces;
mod upgrade;
