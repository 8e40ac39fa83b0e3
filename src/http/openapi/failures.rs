//! Errors in the OpenAPI document: which calls can return which error, and an example of each.
//!
//! [`detail`] matches every code, so a new code cannot be forgotten here. A test fails if a code is not listed for
//! any call.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::schema::refer;
use crate::http::error::{Code, Error};
use crate::store;

/// Any call can return these.
const ANY: &[Code] =
    &[Code::Internal, Code::Overloaded, Code::Timeout, Code::InvalidHost, Code::Misdirected, Code::BodyTooLarge];

const NAMESPACE: &[Code] = &[Code::InvalidNamespace, Code::InvalidQuery];

const KEY: &[Code] = &[Code::InvalidNamespace, Code::InvalidKey, Code::InvalidQuery];

/// A call with `If-Match` or `If-None-Match` can return these.
const PRECONDITION: &[Code] = &[Code::InvalidPrecondition, Code::PreconditionFailed];

/// A change of one entry can return these.
const OUTDATED: &[Code] = &[Code::NewerVersionExists];

/// A read with `Cache-Position` can return these.
const POSITION: &[Code] = &[Code::InvalidPosition, Code::PositionLost];

const SELECTION: &[Code] = &[Code::InvalidPattern, Code::InvalidTag];

/// A call with a body can return these.
const BODY: &[Code] = &[Code::InvalidBody, Code::RequestTimeout, Code::BodyTooLarge];

/// A call that uses the shards can return these.
const SHARD: &[Code] = &[Code::ForeignType, Code::RingMismatch, Code::ShardUnavailable];

const DATABASE: &[Code] = &[Code::DatabaseUnavailable];

/// A deletion with a source version can return these, because it may create its namespace.
const DELETE: &[Code] = &[Code::PoliciesUnknown];

/// A call that changes something can return these.
const CHANGE: &[Code] = &[Code::OutcomeUnknown];

/// A call that stores entries can return these.
const STORE: &[Code] = &[
    Code::InvalidTtl,
    Code::InvalidTag,
    Code::ReservedKey,
    Code::ValueTooLarge,
    Code::PoliciesUnknown,
    Code::MakingRoom,
    Code::StorageFull,
];

/// A `PATCH` of an entry can return these.
const PATCH: &[Code] = &[
    Code::InvalidTtl,
    Code::InvalidTag,
    Code::ReservedKey,
    Code::KeyNotFound,
    Code::PoliciesUnknown,
    Code::MakingRoom,
    Code::StorageFull,
];

/// The errors of each call, in addition to [`ANY`].
const CALLS: &[(&str, &[&[Code]])] = &[
    ("get_entry", &[KEY, &[Code::KeyNotFound, Code::KnownAbsent, Code::NotInMemory], PRECONDITION, POSITION, SHARD]),
    ("put_entry", &[KEY, BODY, STORE, PRECONDITION, OUTDATED, &[Code::LeaseLost], SHARD, CHANGE]),
    ("patch_entry", &[KEY, BODY, PATCH, PRECONDITION, SHARD, CHANGE]),
    ("delete_entry", &[KEY, &[Code::ReservedKey, Code::KeyNotFound], PRECONDITION, OUTDATED, DELETE, SHARD, CHANGE]),
    ("release_lease", &[KEY, &[Code::ReservedKey, Code::InvalidPrecondition, Code::LeaseLost], SHARD, CHANGE]),
    ("mget", &[NAMESPACE, BODY, &[Code::InvalidPosition, Code::TooManyKeys]]),
    (
        "mset",
        &[NAMESPACE, BODY, STORE, &[Code::InvalidKey, Code::InvalidPrecondition, Code::TooManyKeys], SHARD, CHANGE],
    ),
    ("mdelete", &[NAMESPACE, BODY, &[Code::InvalidKey, Code::ReservedKey, Code::TooManyKeys], SHARD, CHANGE]),
    ("list_keys", &[NAMESPACE, SELECTION, &[Code::InvalidCursor], SHARD]),
    ("flush", &[NAMESPACE, SELECTION, SHARD, CHANGE]),
    ("get_stats", &[NAMESPACE, SHARD]),
    ("list_namespaces", &[&[Code::InvalidQuery, Code::PoliciesUnknown]]),
    ("get_namespace", &[NAMESPACE, &[Code::NamespaceNotFound, Code::PoliciesUnknown]]),
    ("put_namespace", &[NAMESPACE, BODY, &[Code::InvalidPolicy], DATABASE, CHANGE]),
    ("patch_namespace", &[NAMESPACE, BODY, &[Code::InvalidPolicy, Code::NamespaceNotFound], DATABASE, CHANGE]),
    ("delete_namespace", &[NAMESPACE, &[Code::NamespaceNotFound, Code::PoliciesUnknown], DATABASE, SHARD, CHANGE]),
    ("list_audit", &[NAMESPACE, &[Code::InvalidCursor], DATABASE]),
    ("list_logs", &[NAMESPACE, &[Code::InvalidCursor], DATABASE]),
    ("list_jobs", &[&[Code::InvalidQuery], DATABASE]),
    ("get_job", &[&[Code::InvalidQuery, Code::JobNotFound], DATABASE]),
    ("cancel_job", &[&[Code::InvalidQuery, Code::JobNotFound], DATABASE, CHANGE]),
    ("get_cluster", &[&[Code::InvalidQuery]]),
    ("get_health", &[]),
    ("get_livez", &[]),
    ("get_readyz", &[]),
    ("get_metrics", &[]),
    ("get_openapi", &[]),
    ("get_docs", &[]),
    ("get_docs_file", &[&[Code::NoSuchRoute]]),
];

/// The `detail` in the example of this code, for codes that have one.
fn detail(code: Code) -> Option<String> {
    let text: &str = match code {
        Code::InvalidNamespace => "a namespace may only contain A-Z, a-z, 0-9, `_`, `.` and `-`, not \"a b\"",
        Code::InvalidKey => "a key must have 1 to 512 bytes, this one has 513",
        Code::InvalidTtl => "`ttl` must be a whole number of seconds from 1 to 3153600000, not \"0\"",
        Code::InvalidTag => "a tag must have 1 to 128 bytes, this one has 0",
        Code::InvalidPattern => "a pattern must have 1 to 1024 bytes, this one has 0",
        Code::InvalidPolicy => "`eviction_policy` must be one of LRU, LFU, FIFO, TTL, NONE, not \"lru\"",
        Code::InvalidPrecondition => "If-Match: expected `*` or ETags such as \"17\", in quotes, not \"17\"",
        Code::InvalidPosition => "Cache-Position: pass the value of an answer unchanged, not \"a=1\"",
        Code::InvalidCursor => "pass the `cursor` of the previous page unchanged",
        Code::InvalidBody => {
            "`tll`: unknown field `tll`, expected one of `value`, `ttl`, `tags`, `source_version`, `absent`, \
             `stale_while_revalidate` at line 1 column 18"
        }
        Code::InvalidQuery => "`limit` must be a whole number from 1 to 1000, not \"0\"",
        Code::ReservedKey => "the key `stats` is reserved",
        Code::ValueTooLarge => "the value has 5000000 bytes, at most 4194304 are allowed",
        Code::TooManyKeys => "a batch has at most 1000 keys, and this one has more",
        Code::NamespaceNotFound => "no namespace of this name is configured",
        Code::JobNotFound => "there is no such job, or it ended more than an hour ago",
        Code::NoSuchRoute => &Error::NoSuchRoute.to_string(),
        Code::MethodNotAllowed => &Error::MethodNotAllowed.to_string(),
        Code::CrossSite => &Error::CrossSite.to_string(),
        Code::InvalidHost => "the request has no Host header",
        Code::Misdirected => &Error::Misdirected { host: "cache.example".to_owned() }.to_string(),
        Code::NotImplemented => &Error::UnsupportedCondition { header: "If-Match" }.to_string(),
        Code::RequestTimeout => &Error::SlowBody.to_string(),
        Code::BodyTooLarge => &Error::BodyTooLarge { limit: 32 << 20 }.to_string(),
        Code::StorageFull => "the namespace's quota is used up",
        Code::PreconditionFailed => "the precondition is not met: there is no such entry",
        Code::NewerVersionExists => {
            "a newer source version is known: the ETag of the present entry is \"1795953600000000\""
        }
        Code::NotInMemory => &store::Error::NotInMemory.to_string(),
        Code::LeaseLost => "the lease is lost: it has ended, or the key was changed after it was given",
        Code::ForeignType => {
            "on shard a the key cache_tag:users:red is a list that sidecache did not write: \
             flush the namespace to remove it"
        }
        Code::KeyNotFound
        | Code::KnownAbsent
        | Code::Internal
        | Code::MakingRoom
        | Code::RingMismatch
        | Code::PositionLost
        | Code::OutcomeUnknown
        | Code::Overloaded
        | Code::Timeout
        | Code::ShardUnavailable
        | Code::DatabaseUnavailable
        | Code::PoliciesUnknown => return None,
    };
    Some(text.to_owned())
}

/// The examples of all codes, by name.
pub fn examples() -> Value {
    let example = |code: &Code| {
        let mut value = json!({"error": code.text(), "code": code.as_str()});
        if let Some(detail) = detail(*code) {
            value["detail"] = detail.into();
        }
        (code.as_str().to_owned(), json!({"summary": code.text(), "value": value}))
    };
    Code::ALL.iter().map(example).collect::<Map<_, _>>().into()
}

/// Adds the errors of this call to its responses.
pub fn put_errors(call: &str, responses: &mut Value) {
    let (_, sets) = CALLS.iter().find(|(of, _)| *of == call).expect("every call is in the table");
    let mut by_status: BTreeMap<StatusCode, Vec<Code>> = BTreeMap::new();
    for code in sets.iter().chain([&ANY]).copied().flatten() {
        let codes = by_status.entry(code.status()).or_default();
        if !codes.contains(code) {
            codes.push(*code);
        }
    }
    for (status, codes) in by_status {
        let response = &mut responses[status.as_str()];
        let error = self::response(status, &codes);
        *response = if response.is_null() { error } else { either(&*response, error) };
    }
}

/// The response of a status, with its possible codes.
pub fn response(status: StatusCode, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let examples: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), refer("examples", name))).collect();
    let code = json!({"type": "object", "properties": {"code": {"type": "string", "enum": names}}});
    let schema = json!({"allOf": [refer("schemas", "Error"), code]});
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = json!({
        "description": format!("{reason}: `{}`.", names.join("`, `")),
        "content": {"application/json": {"schema": schema, "examples": examples}},
    });
    match status {
        StatusCode::SERVICE_UNAVAILABLE => response["headers"]["Retry-After"] = refer("headers", "Retry-After"),
        StatusCode::METHOD_NOT_ALLOWED => response["headers"]["Allow"] = refer("headers", "Allow"),
        _ => {}
    }
    response
}

/// The response of a status that has the call's own body or the body of an error.
fn either(own: &Value, mut error: Value) -> Value {
    let text = |response: &Value| response["description"].as_str().unwrap_or_default().to_owned();
    error["description"] = format!("{}; or {}", text(own), text(&error)).into();
    let own = &own["content"]["application/json"];
    let both = &mut error["content"]["application/json"];
    both["schema"] = json!({"anyOf": [own["schema"], both["schema"]]});
    for (name, example) in own["examples"].as_object().into_iter().flatten() {
        both["examples"][name] = example.clone();
    }
    error
}
