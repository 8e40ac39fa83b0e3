//! Errors in the OpenAPI document: which calls can return which error, and an example of each.
//!
//! [`detail`] matches every code, so a new code cannot be forgotten here. A test fails if a code is not listed for
//! any call.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::error::Code;

/// Any call can return these.
pub const ANY: &[Code] =
    &[Code::Internal, Code::Overloaded, Code::Timeout, Code::InvalidHost, Code::Misdirected, Code::BodyTooLarge];

/// A call with a body can return these.
pub const BODY: &[Code] = &[Code::InvalidBody, Code::RequestTimeout, Code::BodyTooLarge];

/// A call that uses the shards can return these.
pub const SHARD: &[Code] = &[Code::ForeignType, Code::RingMismatch, Code::ShardUnavailable];

/// A call that changes something can return these.
pub const CHANGE: &[Code] = &[Code::OutcomeUnknown];

/// A call that stores entries can return these.
pub const STORE: &[Code] = &[
    Code::InvalidTtl,
    Code::InvalidTag,
    Code::ReservedKey,
    Code::ValueTooLarge,
    Code::PoliciesUnknown,
    Code::MakingRoom,
    Code::StorageFull,
];

/// The `detail` in the example of this code, for codes that have one.
fn detail(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::InvalidNamespace => "a namespace may only contain A-Z, a-z, 0-9, `_`, `.` and `-`, not \"a b\"",
        Code::InvalidKey => "a key must have 1 to 512 bytes, this one has 513",
        Code::InvalidTtl => "`ttl` must be a whole number of seconds from 1 to 3153600000, not \"0\"",
        Code::InvalidTag => "a tag must have 1 to 128 bytes, this one has 0",
        Code::InvalidPattern => "a pattern must have 1 to 1024 bytes, this one has 0",
        Code::InvalidPolicy => "`eviction_policy` must be one of LRU, LFU, FIFO, TTL, NONE, not \"lru\"",
        Code::InvalidCursor => "pass the `cursor` of the previous page unchanged",
        Code::InvalidBody => "`tll`: unknown field `tll`, expected one of `value`, `ttl`, `tags` at line 1 column 18",
        Code::InvalidQuery => "`limit` must be a whole number from 1 to 1000, not \"0\"",
        Code::ReservedKey => "the key `stats` is reserved",
        Code::ValueTooLarge => "the value has 5000000 bytes, at most 4194304 are allowed",
        Code::TooManyKeys => "a batch has at most 1000 keys, and this one has more",
        Code::NamespaceNotFound => "no namespace of this name is configured",
        Code::JobNotFound => "there is no such job, or it ended more than an hour ago",
        Code::NoSuchRoute => "unknown path: /docs lists all paths; write a `/` in a key as `%2F`",
        Code::MethodNotAllowed => {
            "the path does not support this method; the `Allow` header lists the methods that it supports"
        }
        Code::CrossSite => {
            "a page of another site made the browser send this request (see `sec-fetch-site` and `origin`)"
        }
        Code::InvalidHost => "the request has no Host header",
        Code::Misdirected => {
            "\"cache.example\" is not a host of this service: use localhost or an IP address, or add it to the setting `hosts`"
        }
        Code::NotImplemented => {
            "`If-Match` is not supported on this call, and nothing was changed: send the request without it"
        }
        Code::RequestTimeout => "the body did not arrive in time",
        Code::BodyTooLarge => "the body has more than 33554432 bytes",
        Code::StorageFull => "the namespace's quota is used up",
        Code::ForeignType => {
            "on shard a the key cache_tag:users:red is a list that sidecache did not write: \
             flush the namespace to remove it"
        }
        Code::KeyNotFound
        | Code::Internal
        | Code::MakingRoom
        | Code::RingMismatch
        | Code::OutcomeUnknown
        | Code::Overloaded
        | Code::Timeout
        | Code::ShardUnavailable
        | Code::DatabaseUnavailable
        | Code::PoliciesUnknown => return None,
    })
}

/// An example of an error with this code.
fn example(code: Code) -> Value {
    let mut value = json!({"error": code.text(), "code": code.as_str()});
    if let Some(detail) = detail(code) {
        value["detail"] = detail.into();
    }
    json!({"summary": code.text(), "value": value})
}

/// The examples of all codes, by name.
pub fn examples() -> Value {
    Code::ALL.iter().map(|code| (code.as_str().to_owned(), example(*code))).collect::<serde_json::Map<_, _>>().into()
}

/// The responses for these codes, by status.
pub fn responses(sets: &[&[Code]]) -> BTreeMap<StatusCode, Value> {
    let mut by_status: BTreeMap<StatusCode, Vec<Code>> = BTreeMap::new();
    for code in sets.iter().copied().flatten() {
        let codes = by_status.entry(code.status()).or_default();
        if !codes.contains(code) {
            codes.push(*code);
        }
    }
    by_status.into_iter().map(|(status, codes)| (status, response(status, &codes))).collect()
}

/// The response of a status, with its possible codes.
pub fn response(status: StatusCode, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let refer = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("#/components/examples/{name}")}));
    let examples: serde_json::Map<_, _> = names.iter().map(refer).collect();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = json!({
        "description": format!("{reason}: `{}`.", names.join("`, `")),
        "content": {"application/json": {"schema": schema(&names), "examples": examples}},
    });
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response["headers"]["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After"});
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response["headers"]["Allow"] = json!({"$ref": "#/components/headers/Allow"});
    }
    response
}

fn schema(names: &[&str]) -> Value {
    let code = json!({"type": "object", "properties": {"code": {"type": "string", "enum": names}}});
    json!({"allOf": [{"$ref": "#/components/schemas/Error"}, code]})
}
