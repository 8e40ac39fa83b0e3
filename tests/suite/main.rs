//! The end-to-end tests: the real binary, real servers, real HTTP. They check the contract and use no code of the
//! crate, except for [`glob`].
//!
//! - [`functional`], [`exact_bytes`]: the cases F-01 to F-15, on both stores
//! - [`keys`], [`input`], [`crafted`]: valid input, errors for invalid input, and input that is made to be expensive
//! - [`answers`], [`bounded_memory`]: limits on the memory for answers, bodies and records
//! - [`hosts`], [`keep_alive`]: the host names that the service accepts, and how long connections stay open
//! - [`batch`], [`mdelete`], [`flush`], [`listing`], [`namespaces`]: the other calls, in detail
//! - [`jobs`]: flushes that take longer than their requests
//! - [`tag`], [`access_metadata`], [`glob`]: tags and metadata of entries, and patterns
//! - [`patch`]: changes of the TTL and the tags of an entry
//! - [`source_versions`]: newest wins by the source's own count
//! - [`stored_form`]: what the service stores in Redis
//! - [`exact_numbers`], [`exact_under_load`], [`expiry`]: the stats, compared with a model and a walk over Redis
//! - [`absent`]: entries that say that the source has no such thing
//! - [`ttl_jitter`]: TTLs that are shortened at random
//! - [`quotas`], [`eviction`], [`hit_ratio`]: quotas, which entries are evicted, and how well the policies work
//! - [`scale`]: a million entries
//! - [`foreign_types`]: names of the service that hold another Redis type
//! - [`roles`]: replicas, demoted primaries, names that lead to another server, shards that are emptied
//! - [`resolved_names`]: a host name that resolves to a new address while the old server still runs
//! - [`lost_books`]: lost bookkeeping
//! - [`making_room`]: a quota far below the size of a namespace
//! - [`crowded_keys`]: keys chosen to end up in one bucket
//! - [`ring_mismatch`]: an instance whose shards do not match those of the running fleet
//! - [`full_memory`]: stores without free memory
//! - [`concurrency`], [`coherence`]: many clients at once, and two instances on the same shards
//! - [`gathering`]: concurrent requests that are sent to a shard in few scripts
//! - [`cache_status`]: which tier answered, and why a nearer one did not
//! - [`directives`]: reads that say how fresh their answer must be, and answers that say how fresh they are
//! - [`positions`]: the numbers of changes, and reads that are not older than a position
//! - [`order`]: reads of one instance that overtake each other
//! - [`stale_on_error`]: stale copies that are served while a shard does not answer
//! - [`chaos`]: shards and primaries that are killed, far away or busy
//! - [`staleness`]: very many reads under every fault, each compared with the writes
//! - [`loop_checker`], [`stampede`]: programs that read, load on a miss and fill with a lease, under the same faults;
//!   and very many of them at once
//! - [`refresh`], [`stale_mark`]: entries that are refreshed before they expire, or answered after it or after a mark
//! - [`access_log`], [`logs`], [`audit`], [`metrics`]: what the service records
//! - [`traces`]: request ids and trace context
//! - [`monitoring`]: whether metrics, rules, dashboard and documents agree
//! - [`fleet`]: instances that know each other
//! - [`dashboard`]: the dashboard's pages, without a browser
//! - [`process`]: environment variables, threads, memory, and the files shipped with the service
//! - [`runbook`]: every command of the runbook
//! - [`partial`]: lists while a shard is unavailable
//! - [`startup`], [`outage`], [`database_outage`], [`breaker`]: settings, signals, and unavailable servers
//! - [`soak`]: memory, threads and files during a long mixed load
//! - [`cli`]: the program as a client, and its commands that need no service
//! - [`upgrade`]: databases of an earlier version
//! - [`migrations`]: schema migrations with several instances, with few rights, behind a pooler
//! - [`store_tls`]: TLS to Redis and PostgreSQL with private certificates, and IPv6 addresses
//! - [`preflight`]: shards with limited rights or other problems, and how they are reported
//! - [`listener`], [`connections`]: unusual clients, slow clients, and ten thousand clients
//! - [`redis_door`], [`redis_values`]: Redis clients, and the same values through both doors
//! - [`fast_path`]: reads and writes that are answered before the router
//! - [`ring_change`]: shards that are added and removed
//! - [`regressions`]: bugs that were found and fixed
//! - [`openapi`]: the interface, compared with its document
//! - [`nginx`], [`haproxy`]: nginx and HAProxy in front of the instances, and HAProxy in front of Redis servers
//! - [`replay`]: the `replay` example, on a generated workload and on a recorded trace
//! - [`browser`]: the dashboard in Chromium
//! - [`clients`]: the cache-aside programs of docs/CLIENTS.md
//! - [`support`]: the test infrastructure

mod support;

mod absent;
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
mod conditions;
mod connections;
mod crafted;
mod crowded_keys;
mod dashboard;
mod database_outage;
mod directives;
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
mod leases;
mod listener;
mod listing;
mod logs;
mod loop_checker;
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
mod patch;
mod positions;
mod preflight;
mod process;
mod quotas;
mod redis_door;
mod redis_values;
mod refresh;
mod regressions;
mod replay;
mod resolved_names;
mod ring_change;
mod ring_mismatch;
mod roles;
mod runbook;
mod scale;
mod soak;
mod source_versions;
mod stale_mark;
mod stale_on_error;
mod staleness;
mod stampede;
mod startup;
mod store_tls;
mod stored_form;
mod tag;
mod traces;
mod ttl_jitter;
mod upgrade;
