//! Schemas that cannot be derived from a type: the types of the model with their limits, the fixed words in
//! responses, and the bodies that the code writes as bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::error::Code;
use crate::http::page_limit::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::jobs::Kind;
use crate::model::{EvictionPolicy, Namespace, Operation, Pattern, Policy, Tag, Tags, Ttl};

/// The characters of keys, tags and patterns. Their limits are in bytes, but a schema counts characters: text that is
/// not ASCII reaches the limit earlier than the schema says.
const NO_CONTROL: &str = r"^[^\u0000-\u001F\u007F-\u009F]+$";

/// Converts JSON to a schema.
pub fn of(schema: Value) -> RefOr<Schema> {
    typed(schema)
}

fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> RefOr<Schema> {
    of(json!({"type": "string", "enum": words.into_iter().collect::<Vec<_>>()}))
}

fn text(most: usize, format: &str, description: &str) -> Value {
    let description = format!("{description}: UTF-8 without control characters, at most {most} bytes.");
    let mut schema = json!({
        "type": "string", "minLength": 1, "maxLength": most, "pattern": NO_CONTROL, "format": format,
    });
    schema["description"] = description.into();
    schema
}

fn or_null(mut schema: Value) -> RefOr<Schema> {
    schema["type"] = json!([schema["type"], "null"]);
    of(schema)
}

pub fn namespace() -> Value {
    // Excludes `.` and `..`: at most two dots before another character, or at least three dots.
    let pattern = r"^(\.{0,2}[A-Za-z0-9_-][A-Za-z0-9_.-]*|\.{3}[A-Za-z0-9_.-]*)$";
    json!({"type": "string", "pattern": pattern, "maxLength": Namespace::MAX_LEN})
}

pub fn key() -> Value {
    text(crate::model::Key::MAX_LEN, "sidecache-key", "A key")
}

pub fn keys() -> RefOr<Schema> {
    of(json!({
        "type": "array", "maxItems": 1000,
        "items": {"type": "string", "description": "An invalid key has the error `invalid_key` in the response."},
    }))
}

pub fn deleted_keys() -> RefOr<Schema> {
    of(json!({"type": "array", "maxItems": 1000, "items": key()}))
}

pub fn written_key() -> RefOr<Schema> {
    of(key())
}

pub fn entries() -> RefOr<Schema> {
    of(json!({"type": "array", "maxItems": 1000, "items": {"$ref": "#/components/schemas/MsetEntry"}}))
}

fn seconds(least: u64, description: &str) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": Ttl::MAX_SECONDS, "description": description})
}

pub fn ttl() -> RefOr<Schema> {
    or_null(seconds(1, "TTL in seconds; absent or null: the namespace's `default_ttl`."))
}

pub fn tag() -> RefOr<Schema> {
    of(text(Tag::MAX_LEN, "sidecache-tag", "A tag"))
}

pub fn tags() -> RefOr<Schema> {
    let tag = text(Tag::MAX_LEN, "sidecache-tag", "A tag");
    or_null(json!({
        "type": "array", "items": tag, "maxItems": Tags::MAX,
        "description": "Labels: entries with the same tag can be listed or flushed together. Duplicates are dropped.",
    }))
}

pub fn pattern() -> RefOr<Schema> {
    of(text(
        Pattern::MAX_LEN,
        "sidecache-pattern",
        "A glob as in Redis: `*`, `?`, `[abc]`, `[a-c]`, `[^a]`, and `\\` before a literal character",
    ))
}

/// A cursor: opaque to clients.
fn cursor(of_what: &str) -> RefOr<Schema> {
    of(json!({
        "type": "string", "format": format!("sidecache-{of_what}-cursor"),
        "description": "The `cursor` of the previous page, unchanged.",
    }))
}

pub fn list_cursor() -> RefOr<Schema> {
    cursor("list")
}

pub fn audit_cursor() -> RefOr<Schema> {
    cursor("audit")
}

pub fn log_cursor() -> RefOr<Schema> {
    cursor("log")
}

pub fn limit() -> RefOr<Schema> {
    of(json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}))
}

pub fn full() -> RefOr<Schema> {
    one_of(["full"])
}

pub fn dry_run() -> RefOr<Schema> {
    of(json!({"type": "boolean", "default": false}))
}

pub fn date() -> RefOr<Schema> {
    of(json!({"type": "string", "format": "date-time"}))
}

pub fn date_or_null() -> RefOr<Schema> {
    or_null(json!({"type": "string", "format": "date-time"}))
}

pub fn job_id() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-z-]{1,64}$"})
}

pub fn job_kind() -> RefOr<Schema> {
    one_of(Kind::ALL.map(Kind::as_str))
}

pub fn job_state() -> RefOr<Schema> {
    one_of(["running", "done", "failed", "cancelled"])
}

pub fn operation() -> RefOr<Schema> {
    one_of(Operation::ALL.map(Operation::as_str))
}

pub fn eviction_policy() -> RefOr<Schema> {
    one_of(EvictionPolicy::ALL.map(EvictionPolicy::as_str))
}

pub fn asked_default_ttl() -> RefOr<Schema> {
    or_null(seconds(0, "TTL in seconds of entries that are written without a TTL; 0: they never expire."))
}

pub fn asked_stale_if_error() -> RefOr<Schema> {
    or_null(seconds(0, "How many seconds an expired copy is still served while its shard fails; 0: never."))
}

pub fn asked_max_size_mb() -> RefOr<Schema> {
    or_null(json!({
        "type": "integer", "minimum": 0, "maximum": Policy::MAX_SIZE_MB,
        "description": "Quota in MiB; 0: no quota. Each entry counts its value, key and tags, plus 384 bytes.",
    }))
}

pub fn asked_eviction_policy() -> RefOr<Schema> {
    let mut names: Vec<Value> = EvictionPolicy::ALL.map(EvictionPolicy::as_str).map(Value::from).into();
    names.push(Value::Null);
    of(json!({
        "type": ["string", "null"], "enum": names,
        "description": "Which entries are evicted when the quota is reached.",
    }))
}

pub fn partial() -> RefOr<Schema> {
    one_of(["true", "false"])
}

pub fn health_status() -> RefOr<Schema> {
    one_of(["healthy", "degraded", "unhealthy"])
}

pub fn redis_state() -> RefOr<Schema> {
    one_of(["connected", "degraded", "disconnected", "not_configured"])
}

pub fn store_kind() -> RefOr<Schema> {
    one_of(["redis", "embedded"])
}

pub fn connection_state() -> RefOr<Schema> {
    one_of(["connected", "disconnected"])
}

/// `refused`: the shard answers but cannot be used; its findings say why.
pub fn shard_state() -> RefOr<Schema> {
    one_of(["connected", "disconnected", "refused"])
}

pub fn severity() -> RefOr<Schema> {
    one_of(["warning", "degraded", "refused"])
}

pub fn database_kind() -> RefOr<Schema> {
    one_of(["sqlite", "postgres"])
}

pub fn probe_status() -> RefOr<Schema> {
    one_of(["alive", "ready", "not_ready"])
}

pub fn not_ready_reason() -> RefOr<Schema> {
    one_of(["draining", "policies_unknown", "ring_mismatch", "no_shard"])
}

pub fn role() -> RefOr<Schema> {
    of(json!({"type": ["string", "null"], "enum": ["primary", "replica", null]}))
}

pub fn l1() -> RefOr<Schema> {
    let count = json!({"type": "integer", "minimum": 0});
    of(json!({
        "type": "object",
        "required": ["entries", "bytes", "max_bytes", "hits"],
        "properties": {"entries": count, "bytes": count, "max_bytes": count, "hits": count},
        "description": "L1 of the instance: `max_bytes` is 0 if L1 is off, `hits` counts since the start.",
    }))
}

pub fn load() -> RefOr<Schema> {
    let latency = |percent: u8| {
        json!({
            "type": ["integer", "null"], "minimum": 0,
            "description": format!("{percent} % of the operations of the last minute took at most this many µs."),
        })
    };
    of(json!({
        "type": "object",
        "required": ["operations_per_second", "p50_us", "p99_us"],
        "properties": {
            "operations_per_second": {"type": "number", "minimum": 0},
            "p50_us": latency(50),
            "p99_us": latency(99),
        },
        "description": "The recent load of the instance.",
    }))
}

pub fn failed_keys() -> RefOr<Schema> {
    of(json!({
        "type": "object", "additionalProperties": {"$ref": "#/components/schemas/ErrorCode"},
        "description": "The error of each key that failed; absent if no key failed.",
    }))
}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        one_of(Self::ALL.iter().map(|code| code.as_str()))
    }
}

impl ToSchema for Code {
    fn name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }
}

/// The schemas of the responses that the code writes as bytes, because they contain stored values byte for byte.
pub fn written_by_hand() -> [(&'static str, Value); 3] {
    let date = json!({"type": "string", "format": "date-time"});
    let count = json!({"type": "integer", "minimum": 0});
    let metadata = json!({
        "type": "object",
        "required": ["ttl_remaining", "created_at"],
        "properties": {
            "ttl_remaining": {
                "type": ["integer", "null"], "minimum": 0,
                "description": "Seconds left, rounded up; null: the entry never expires. 0: the entry is stale.",
            },
            "created_at": date,
            "expires_at": {"type": ["string", "null"], "format": "date-time", "description": "With `metadata=full`."},
            "last_accessed": date,
            "access_count": count,
            "size_bytes": count,
            "version": {"type": "integer", "minimum": 0, "description": "The number in the ETag."},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": false,
    });
    let entry = json!({
        "type": "object",
        "required": ["value", "metadata"],
        "properties": {
            "value": {"description": "The JSON that was stored, byte for byte."},
            "metadata": {"$ref": "#/components/schemas/Metadata"},
        },
        "additionalProperties": false,
    });
    let fetched = json!({
        "type": "object",
        "required": ["value", "found"],
        "properties": {
            "value": {"description": "Null if nothing was found."},
            "found": {"type": "boolean"},
            "stale": {"const": true, "description": "The value is an expired copy, because the key's shard failed."},
            "error": {"$ref": "#/components/schemas/ErrorCode"},
            "detail": {"type": "string", "description": "The cause and what to do, if the error is `foreign_type`."},
        },
        "additionalProperties": false,
    });
    let mget = json!({
        "type": "object",
        "required": ["results", "hits", "misses"],
        "properties": {
            "results": {"type": "object", "additionalProperties": fetched, "description": "By key."},
            "hits": count,
            "misses": count,
            "errors": {
                "type": "integer", "minimum": 1,
                "description": "How many keys are invalid or belong to a shard that failed; absent if there are none.",
            },
        },
        "additionalProperties": false,
    });
    [("Metadata", metadata), ("Entry", entry), ("MgetAnswer", mget)]
}

/// Converts a part of the document from JSON to the type of the library.
///
/// # Panics
/// The JSON does not fit the type. In debug builds, also if the library does not know a field and drops it.
pub fn typed<T: DeserializeOwned + Serialize>(part: Value) -> T {
    let typed = T::deserialize(&part).expect("the parts of the document that are written as JSON have its form");
    debug_assert_eq!(serde_json::to_value(&typed).ok(), Some(part), "a field is lost");
    typed
}
