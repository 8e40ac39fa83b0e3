//! What calls take in their path and their headers. What they take in their query stands with the types that
//! it is parsed into.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::schema;

/// A namespace.
pub enum InNamespace {}

/// A namespace and a key.
pub enum OfEntry {}

/// What a read of an entry asks for in its head.
pub enum ReadHeaders {}

/// What a flush asks for in its head.
pub enum FlushHeaders {}

/// A job.
pub enum OfJob {}

/// Who a change is noted to come from.
pub enum ChangeHeaders {}

/// A file of the page at `/docs`.
pub enum DocsFile {}

impl IntoParams for InNamespace {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![namespace()]
    }
}

impl IntoParams for OfEntry {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![namespace(), key()]
    }
}

impl IntoParams for ReadHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            header("Cache-Control", "`no-cache`: the owning shard answers, and no copy in this process.", "no-cache"),
            header(
                "If-None-Match",
                "ETags the client has; 304 if the entry's is among them, or `*`. Of no effect with `metadata=full`: what \
                 is counted about an entry changes without its ETag.",
                "\"1732190400000000\"",
            ),
        ]
    }
}

impl IntoParams for FlushHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "Prefer",
            "`respond-async`: answer 202 with a job at once (RFC 7240). Other preferences are ignored.",
            "respond-async",
        )]
    }
}

impl IntoParams for OfJob {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![of(json!({
            "name": "id", "in": "path", "required": true, "schema": schema::job_id(),
            "example": "0f31c8f1b2a49d77-000001",
        }))]
    }
}

impl IntoParams for ChangeHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header("X-Forwarded-For", "Noted in the audit trail, as it was claimed.", "203.0.113.7")]
    }
}

impl IntoParams for DocsFile {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let names = crate::http::docs::FILES;
        vec![of(json!({
            "name": "file", "in": "path", "required": true, "schema": {"type": "string", "enum": names},
        }))]
    }
}

/// The name of a request, which every call takes.
pub fn request_id() -> Parameter {
    header("X-Request-Id", "A name for the request, given back with the answer; made where it is absent.", "7f3a-1")
}

/// The trace that a request belongs to, which every call takes.
pub fn traceparent() -> Parameter {
    header(
        "Traceparent",
        "The trace that the request belongs to (<https://www.w3.org/TR/trace-context/>); one that is none is passed over.",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
}

fn of(parameter: Value) -> Parameter {
    super::typed(parameter)
}

fn namespace() -> Parameter {
    of(json!({"name": "ns", "in": "path", "required": true, "schema": schema::namespace(), "example": "users"}))
}

fn key() -> Parameter {
    of(json!({
        "name": "key", "in": "path", "required": true, "schema": schema::key(), "example": "user_123",
        "description": "Percent-encoded: a `/` of the key is `%2F`. `stats` is no key of an entry; the keys \
                        `mget` and `mset` are as others are, but for POST.",
    }))
}

/// The example is in the text: Swagger UI would fill it in and send it, though nobody asked for it.
fn header(name: &str, description: &str, example: &str) -> Parameter {
    of(json!({
        "name": name, "in": "header", "required": false, "description": format!("{description} For instance `{example}`."),
        "schema": {"type": "string"},
    }))
}
