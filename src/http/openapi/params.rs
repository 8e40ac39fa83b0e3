//! Parameters in paths and headers. Query parameters are documented on the types that they are parsed into.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::schema;

/// The namespace in the path.
pub enum InNamespace {}

/// The namespace and the key in the path.
pub enum OfEntry {}

/// The request headers of a read.
pub enum ReadHeaders {}

/// The request headers of a flush.
pub enum FlushHeaders {}

/// The job in the path.
pub enum OfJob {}

/// The request header that the audit trail records.
pub enum ChangeHeaders {}

/// The name of a file of the page at `/docs`.
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
            header(
                "Cache-Control",
                "`no-cache`: read from the owning shard, not from L1 in this process.",
                "no-cache",
            ),
            header(
                "If-None-Match",
                "The ETags that the client has, or `*`. If one of them is the ETag of the entry, the response is a \
                 304. Ignored with `metadata=full`, because the access counts change without a new ETag.",
                "\"1732190400000000\"",
            ),
        ]
    }
}

impl IntoParams for FlushHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "Prefer",
            "`respond-async`: start a job and answer 202 at once (RFC 7240). Other preferences are ignored.",
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
        vec![header("X-Forwarded-For", "Recorded in the audit trail. The service does not verify it.", "203.0.113.7")]
    }
}

/// The files of `/docs`; the first two are Swagger UI's.
pub const FILES: [&str; 4] = ["swagger-ui-bundle.js", "swagger-ui.css", "page.js", "page.css"];

impl IntoParams for DocsFile {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let names = FILES;
        vec![of(json!({
            "name": "file", "in": "path", "required": true, "schema": {"type": "string", "enum": names},
        }))]
    }
}

/// The request id, which every call accepts.
pub fn request_id() -> Parameter {
    header("X-Request-Id", "An id for the request; the response repeats it. If absent, a new one is made.", "7f3a-1")
}

/// The trace that the request belongs to, which every call accepts.
pub fn traceparent() -> Parameter {
    header(
        "Traceparent",
        "The trace that the request belongs to (<https://www.w3.org/TR/trace-context/>); ignored if it is invalid.",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
}

fn of(parameter: Value) -> Parameter {
    schema::typed(parameter)
}

fn namespace() -> Parameter {
    of(json!({"name": "ns", "in": "path", "required": true, "schema": schema::namespace(), "example": "users"}))
}

fn key() -> Parameter {
    of(json!({
        "name": "key", "in": "path", "required": true, "schema": schema::key(), "example": "user_123",
        "description": "Percent-encoded: write a `/` in the key as `%2F`. The key `stats` is reserved. `mget`, \
                        `mset` and `mdelete` are valid keys, but a POST to their paths is a batch.",
    }))
}

/// An optional request header. The example is part of the description, because Swagger UI would send an `example`
/// field as the value by default.
fn header(name: &str, description: &str, example: &str) -> Parameter {
    of(json!({
        "name": name, "in": "header", "required": false, "schema": {"type": "string"},
        "description": format!("{description} Example: `{example}`."),
    }))
}
