//! Schemas that cannot be derived from a type: the types of the model with their limits, and the fixed words in
//! responses. Schemas without values from the code are in `components.json`.

use std::ops::RangeInclusive;

use serde::Deserialize as _;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};

use crate::http::docs::FILES;
use crate::http::json::MAX_ETAGS_LEN;
use crate::http::page_limit::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::jobs::Kind;
use crate::model::{
    EvictionPolicy, Key, LeaseRequest, Namespace, Operation, Pattern, Policy, SourceVersion, Tag, Tags, Ttl,
};

/// The characters of keys, tags and patterns. Their limits are in bytes, but a schema counts characters: text that is
/// not ASCII reaches the limit earlier than the schema says.
const NO_CONTROL: &str = r"^[^\u0000-\u001F\u007F-\u009F]+$";

/// The characters of a namespace. Excludes `.` and `..`: at most two dots before another character, or at least three
/// dots.
const NAMESPACE: &str = r"^(\.{0,2}[A-Za-z0-9_-][A-Za-z0-9_.-]*|\.{3}[A-Za-z0-9_.-]*)$";

/// The schemas that the file `components.json`, and schemas below, refer to.
pub fn components() -> [(&'static str, Value); 4] {
    let key = text(Key::MAX_LEN, "sidecache-key", "A key");
    let mut writable_key = key.clone();
    writable_key["not"] = json!({"const": "stats"});
    [
        ("NamespaceName", json!({"type": "string", "pattern": NAMESPACE, "maxLength": Namespace::MAX_LEN})),
        ("Key", key),
        ("WritableKey", writable_key),
        ("DocsFile", one_of(FILES)),
    ]
}

/// Defines a function for each schema, for the attribute `schema_with`.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident: $schema:expr;)+) => {$(
        $(#[$doc])*
        pub fn $name() -> RefOr<Schema> {
            typed($schema)
        }
    )+};
}

schemas! {
    // Parameters and request bodies.
    keys: json!({
        "type": "array", "maxItems": 1000,
        "items": {"type": "string", "description": "An invalid key has the error `invalid_key` in the response."},
    });
    lease: or_null(json!({
        "type": "integer", "minimum": LeaseRequest::SHORTEST.as_secs(), "maximum": LeaseRequest::LONGEST.as_secs(),
        "description": "Asks for a lease of this many seconds on each key without an entry.",
    }));
    writable_key: refer("schemas", "WritableKey");
    writable_keys: json!({"type": "array", "maxItems": 1000, "items": refer("schemas", "WritableKey")});
    entries: json!({"type": "array", "maxItems": 1000, "items": refer("schemas", "MsetEntry")});
    ttl: or_null(seconds(1, "TTL in seconds; absent or null: the namespace's `default_ttl`."));
    absent: or_null(json!({
        "type": "boolean", "default": false,
        "description": "True: there is no such thing in the source. The entry has no value, and reads of it are a 404 \
                        `known_absent`.",
    }));
    stale_while_revalidate: or_null(seconds(0, "For how many seconds after its TTL the entry is still answered, while one \
        of the clients that ask for a lease refreshes it. Absent or null: as the namespace's policy says."));
    new_ttl: or_null(seconds(1, "The new TTL in seconds, from now on; null: the entry never expires."));
    new_tags: json!({
        "type": "array", "items": text(Tag::MAX_LEN, "sidecache-tag", "A tag"), "maxItems": Tags::MAX,
        "description": "All tags that the entry has from now on; an empty list: none.",
    });
    tag: text(Tag::MAX_LEN, "sidecache-tag", "A tag");
    tags: or_null(json!({
        "type": "array", "items": text(Tag::MAX_LEN, "sidecache-tag", "A tag"), "maxItems": Tags::MAX,
        "description": "Labels: entries with the same tag can be listed or flushed together. Duplicates are dropped.",
    }));
    source_version: or_null(source_version_number());
    source_version_in_query: source_version_number();
    etags: or_null(json!({
        "type": "string", "maxLength": MAX_ETAGS_LEN, "format": "sidecache-etags",
        "description": "As the header of a PUT: `*`, or ETags in quotes. An entry whose preconditions are not met is not \
                        stored, and has the error `precondition_failed`.",
    }));
    pattern: text(
        Pattern::MAX_LEN,
        "sidecache-pattern",
        "A glob as in Redis: `*`, `?`, `[abc]`, `[a-c]`, `[^a]`, and `\\` before a literal character",
    );
    list_cursor: cursor("list");
    audit_cursor: cursor("audit");
    log_cursor: cursor("log");
    limit: json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT});
    full: one_of(["full"]);
    partial: one_of(["true", "false"]);
    dry_run: json!({"type": "boolean", "default": false});
    mode: json!({"type": "string", "enum": ["stale"]});
    asked_default_ttl: or_null(
        seconds(0, "TTL in seconds of entries that are written without a TTL; 0: they never expire.")
    );
    asked_stale_if_error: or_null(
        seconds(0, "How many seconds an expired copy is still served while its shard fails; 0: never.")
    );
    asked_ttl_jitter: or_null(part(
        &Policy::TTL_JITTER,
        "The TTL of each write is shortened at random by up to this part; 0: off. Rounded to thousandths.",
    ));
    asked_refresh_after: or_null(part(
        &Policy::REFRESH_AFTER,
        "The part of its TTL after which an entry is refreshed; 1: off. Rounded to thousandths.",
    ));
    asked_stale_while_revalidate: or_null(
        seconds(0, "How many seconds an expired entry is still served while it is refreshed; 0: off.")
    );
    asked_tombstone_ttl: or_null(
        seconds(1, "How many seconds the `source_version` of a deleted entry is remembered.")
    );
    asked_max_size_mb: or_null(json!({
        "type": "integer", "minimum": 0, "maximum": Policy::MAX_SIZE_MB,
        "description": "Quota in MiB; 0: no quota. Each entry counts its value, key and tags, plus 384 bytes.",
    }));
    asked_eviction_policy: json!({
        "type": ["string", "null"], "enum": eviction_policies_or_null(),
        "description": "Which entries are evicted when the quota is reached.",
    });

    // Fields of responses.
    date: json!({"type": "string", "format": "date-time"});
    date_or_null: or_null(json!({"type": "string", "format": "date-time"}));
    operation: one_of(Operation::ALL.map(Operation::as_str));
    eviction_policy: one_of(EvictionPolicy::ALL.map(EvictionPolicy::as_str));
    job_kind: one_of(Kind::ALL.map(Kind::as_str));
    job_state: one_of(["running", "done", "failed", "cancelled"]);
    health_status: one_of(["healthy", "degraded", "unhealthy"]);
    redis_state: one_of(["connected", "degraded", "disconnected", "not_configured"]);
    store_kind: one_of(["redis", "embedded"]);
    connection_state: one_of(["connected", "disconnected"]);
    /// `refused`: the shard answers but cannot be used; its findings say why.
    shard_state: one_of(["connected", "disconnected", "refused"]);
    severity: one_of(["warning", "degraded", "refused"]);
    database_kind: one_of(["sqlite", "postgres"]);
    probe_status: one_of(["alive", "ready", "not_ready"]);
    not_ready_reason: one_of(["draining", "policies_unknown", "ring_mismatch", "no_shard"]);
    role: json!({"type": ["string", "null"], "enum": ["primary", "replica", null]});
    l1: json!({
        "type": "object", "required": ["entries", "bytes", "max_bytes", "hits"],
        "properties": {"entries": count(), "bytes": count(), "max_bytes": count(), "hits": count()},
        "description": "L1 of the instance: `max_bytes` is 0 if L1 is off, `hits` counts since the start.",
    });
    load: json!({
        "type": "object", "required": ["operations_per_second", "p50_us", "p99_us"],
        "properties": {
            "operations_per_second": {"type": "number", "minimum": 0}, "p50_us": latency(50), "p99_us": latency(99),
        },
        "description": "The recent load of the instance.",
    });
    failed_keys: json!({
        "type": "object", "additionalProperties": refer("schemas", "ErrorCode"),
        "description": "The error of each key that failed; absent if no key failed.",
    });
}

/// Says that a write has either a value or `"absent": true`.
pub fn put_alternatives(write: &mut Value) {
    write["oneOf"] = json!([
        {"required": ["value"], "properties": {"absent": {"enum": [false, null]}}},
        {"required": ["absent"], "properties": {"absent": {"const": true}, "value": false}},
    ]);
}

fn one_of<const N: usize>(words: [&str; N]) -> Value {
    json!({"type": "string", "enum": words.as_slice()})
}

fn eviction_policies_or_null() -> Vec<Option<&'static str>> {
    EvictionPolicy::ALL.into_iter().map(|policy| Some(policy.as_str())).chain([None]).collect()
}

fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

fn text(most: usize, format: &str, description: &str) -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": most, "pattern": NO_CONTROL, "format": format,
        "description": format!("{description}: UTF-8 without control characters, at most {most} bytes."),
    })
}

fn seconds(least: u64, description: &str) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": Ttl::MAX_SECONDS, "description": description})
}

/// A part of a whole.
fn part(range: &RangeInclusive<f64>, description: &str) -> Value {
    // The library reads whole numbers as integers.
    let bound = |number: f64| if number.fract() == 0.0 { json!(number as u64) } else { json!(number) };
    let (least, most) = (bound(*range.start()), bound(*range.end()));
    json!({"type": "number", "minimum": least, "maximum": most, "description": description})
}

/// A cursor: opaque to clients.
fn cursor(of_what: &str) -> Value {
    json!({
        "type": "string", "format": format!("sidecache-{of_what}-cursor"),
        "description": "The `cursor` of the previous page, unchanged.",
    })
}

fn source_version_number() -> Value {
    json!({
        "type": "integer", "minimum": 0, "maximum": SourceVersion::MAX,
        "description": "The source's own count of its changes. A change with a smaller number than the present entry, or \
                        than a recent deletion (`tombstone_ttl`), is refused with `newer_version_exists`.",
    })
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn latency(percent: u8) -> Value {
    json!({
        "type": ["integer", "null"], "minimum": 0,
        "description": format!("{percent} % of the operations of the last minute took at most this many µs."),
    })
}

/// A reference to a part of the document's components.
pub fn refer(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// Converts a schema from JSON to the type of the library.
///
/// # Panics
/// The JSON does not fit the type. In debug builds, also if the library does not know a field and drops it.
fn typed(schema: Value) -> RefOr<Schema> {
    let typed = RefOr::deserialize(&schema).expect("the JSON above has the form of a schema");
    debug_assert_eq!(serde_json::to_value(&typed).ok(), Some(schema), "a field is lost");
    typed
}
