//! The OpenAPI 3.1 document. It is generated from the code: from the annotations on the handlers, the types of their
//! requests and responses, the table of error codes and the limits of the model.
//!
//! The annotations refer to these modules:
//!
//! - [`params`]: parameters in paths and headers
//! - [`answers`]: the responses of each call
//! - [`failures`]: the errors that a call can return, with examples
//! - [`response`]: functions that build responses, used by the two above
//! - [`schema`]: schemas that cannot be derived from a type
//!
//! This file adds what the annotations do not contain: a HEAD for every GET, what all calls share, such as the
//! request id, and the paths of the keys `mget`, `mset`, `mdelete` and `stats`.

pub mod answers;
pub mod failures;
pub mod params;
mod response;
pub mod schema;

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::error::Code;
use super::{answer, batch, cluster, docs, entry, error, flush, health, history, jobs, list, namespaces, stats};

/// The document as the annotations describe it.
#[derive(OpenApi)]
#[openapi(
    info(title = "sidecache", description = ABOUT, license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    servers((url = "/", description = "This service")),
    tags(
        (name = "entries", description = "Read, store or delete one entry."),
        (name = "batches", description = "Many entries in one request."),
        (name = "namespaces", description = "The content of a namespace, and its policy."),
        (name = "history", description = "The audit trail and the access log of a namespace."),
        (name = "jobs", description = "Flushes that take longer than their request."),
        (name = "operations", description = "Health, metrics and cluster state, for operators and their tools."),
        (name = "special-keys", description = "Entries with the key `mget`, `mset`, `mdelete` or `stats`. Their paths \
                                               also have another meaning."),
        (name = "documentation", description = "This document, and the page that shows it."),
    ),
    paths(
        list::list, flush::flush, stats::stats, batch::mget, batch::mset, batch::mdelete,
        entry::get, entry::put, entry::delete,
        namespaces::list, namespaces::get, namespaces::put, namespaces::patch, namespaces::delete,
        history::audit, history::logs,
        jobs::list, jobs::show, jobs::cancel,
        cluster::cluster, health::health, health::livez, health::readyz, health::metrics,
        document, docs::page, docs::file,
    ),
    components(schemas(
        Code, error::Answer,
        entry::SetBody, entry::SetAnswer, entry::DeleteAnswer,
        batch::MgetBody, batch::MsetBody, batch::MsetEntry, batch::MsetAnswer, batch::MdeleteBody, batch::MdeleteAnswer,
        list::ListAnswer, flush::FlushAnswer, flush::DryRunAnswer, stats::StatsAnswer,
        namespaces::PolicyBody, namespaces::PolicyChangeBody, namespaces::NamespaceAnswer, namespaces::NamespacesAnswer,
        history::AuditAnswer, history::ChangeAnswer, history::PolicyAnswer, history::LogAnswer, history::LineAnswer,
        jobs::JobAnswer, jobs::JobResult, jobs::JobsAnswer,
        cluster::ClusterAnswer, cluster::InstanceAnswer, cluster::ShardAnswer,
        health::HealthAnswer, health::ShardAnswer, health::FindingAnswer, health::DatabaseAnswer, health::RingAnswer, health::StatusAnswer,
    )),
)]
struct Annotations;

const ABOUT: &str = include_str!("about.md");

/// The path of an entry.
const ENTRY_PATH: &str = "/api/v1/cache/{ns}/{key}";

/// Keys that need their own path in the document, because a POST to that path is a batch.
const BATCHES: [&str; 3] = ["mget", "mset", "mdelete"];

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Headers that a response may leave out.
const SOMETIMES: [&str; 7] =
    ["X-Cache-TTL", "Warning", "Retry-After", "ETag", "Content-Encoding", "Preference-Applied", "Keep-Alive"];

/// The whole document.
pub fn openapi() -> Value {
    let mut document = serde_json::to_value(Annotations::openapi()).expect("the document is JSON");
    document["components"]["headers"] = headers();
    document["components"]["examples"] = failures::examples();
    document["components"]["parameters"] = json!({
        "X-Request-Id": serde_json::to_value(params::request_id()).expect("a parameter is JSON"),
        "Traceparent": serde_json::to_value(params::traceparent()).expect("a parameter is JSON"),
    });
    document["components"]["responses"] = anywhere();
    for (name, schema) in schema::written_by_hand() {
        document["components"]["schemas"][name] = schema;
    }
    forbid_reserved(&mut document["components"]["schemas"]["MsetEntry"]["properties"]["key"]);
    forbid_reserved(&mut document["components"]["schemas"]["MdeleteBody"]["properties"]["keys"]["items"]);
    let paths = document["paths"].as_object_mut().expect("a document has paths");
    put_entries_named_as_batches(paths);
    put_reserved_key(paths);
    for method in ["put", "delete"] {
        for parameter in paths[ENTRY_PATH][method]["parameters"].as_array_mut().into_iter().flatten() {
            if parameter["name"] == "key" {
                forbid_reserved(&mut parameter["schema"]);
            }
        }
    }
    for path in paths.values_mut() {
        let path = path.as_object_mut().expect("a path is an object");
        for method in METHODS {
            if let Some(operation) = path.get_mut(method) {
                put_what_all_have(operation);
                if method != "get" {
                    operation["responses"]["403"] = json!({"$ref": "#/components/responses/CrossSite"});
                    operation["responses"]["501"] = json!({"$ref": "#/components/responses/UnsupportedCondition"});
                }
            }
        }
        if let Some(get) = path.get("get") {
            let head = head_of(get);
            path.insert("head".to_owned(), head);
        }
    }
    document
}

/// Adds GET, PUT and DELETE of the entries that have the name of a batch as their key.
fn put_entries_named_as_batches(paths: &mut Map<String, Value>) {
    for key in BATCHES {
        for method in ["get", "put", "delete"] {
            let mut operation = paths[ENTRY_PATH][method].clone();
            without_key(&mut operation, key);
            paths[&format!("/api/v1/cache/{{ns}}/{key}")][method] = operation;
        }
    }
}

/// Adds PUT and DELETE of the key `stats`, which is reserved: they always fail.
fn put_reserved_key(paths: &mut Map<String, Value>) {
    for method in ["put", "delete"] {
        let mut operation = paths[ENTRY_PATH][method].clone();
        without_key(&mut operation, "stats");
        operation["summary"] = "Refused: the key stats is reserved".into();
        let responses = operation["responses"].as_object_mut().expect("an operation has responses");
        // The 400 for an invalid body stays: the body is checked before the key.
        responses.retain(|status, _| !matches!(status.as_str(), "200" | "201" | "404" | "507"));
        paths["/api/v1/cache/{ns}/stats"][method] = operation;
    }
}

/// Excludes the reserved key `stats` from a schema. This changes the JSON, because the library does not support
/// `not`.
fn forbid_reserved(key: &mut Value) {
    key["not"] = json!({"const": "stats"});
}

/// Turns an operation on any key into an operation on this key.
fn without_key(operation: &mut Value, key: &str) {
    let id = operation["operationId"].as_str().unwrap_or_default().replace("_entry", &format!("_entry_{key}"));
    operation["operationId"] = id.into();
    let summary = operation["summary"].as_str().unwrap_or_default();
    operation["summary"] = format!("{summary} whose key is {key}").into();
    operation["tags"] = json!(["special-keys"]);
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["name"] != "key");
    }
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(response) = response.as_object_mut() {
            response.remove("links");
        }
    }
}

/// Adds what every operation has: the request id and the trace as parameters, the request id and `Keep-Alive` as
/// response headers, and the 431.
fn put_what_all_have(operation: &mut Value) {
    if operation["parameters"].is_null() {
        operation["parameters"] = json!([]);
    }
    let common =
        ["X-Request-Id", "Traceparent"].map(|name| json!({"$ref": format!("#/components/parameters/{name}")}));
    operation["parameters"].as_array_mut().into_iter().for_each(|parameters| parameters.extend(common.clone()));
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for name in ["X-Request-Id", "Keep-Alive"] {
            response["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
        }
    }
    operation["responses"]["431"] = json!({"$ref": "#/components/responses/HeadTooLarge"});
}

/// The HEAD operation of a GET: the same responses without bodies.
fn head_of(get: &Value) -> Value {
    let mut head = get.clone();
    head["operationId"] = format!("{}_head", get["operationId"].as_str().unwrap_or_default()).into();
    head["summary"] = format!("{} (headers only)", get["summary"].as_str().unwrap_or_default()).into();
    for response in head["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(response) = response.as_object_mut() {
            response.remove("content");
            response.remove("links");
        }
    }
    head
}

/// The response headers, for `components`.
fn headers() -> Value {
    let text = |description: &str, example: &str| json!({"description": description, "schema": {"type": "string"}, "example": example});
    let mut headers = json!({
        "X-Request-Id": text("The id of the request: the client's own, or a new one.", "0f31c8f1b2a49d77-2a"),
        "X-Cache-Hit-true": {"description": "An entry was found.", "schema": {"type": "string", "const": "true"}},
        "X-Cache-Hit-false": {"description": "No entry was found.", "schema": {"type": "string", "const": "false"}},
        "X-Cache-TTL": {
            "description": "Seconds left, rounded up; absent for an entry that never expires.",
            "schema": {"type": "integer", "minimum": 0},
            "example": 3500,
        },
        "ETag": {
            "description": "The version of the entry.",
            "schema": {"type": "string", "pattern": "^\"[0-9]+\"$"},
            "example": "\"1704067200000000\"",
        },
        "Cache-Control": {
            "description": "An HTTP cache in front of the service must revalidate each time, with the ETag.",
            "schema": {"type": "string", "const": "no-cache"},
        },
        "Keep-Alive": text("How many seconds the connection stays open without a request.", "timeout=75"),
        "Cache-Status": text(
            "Which tier answered, and why a tier closer to the client did not (RFC 9211).",
            "sidecache-shard; hit; ttl=3500; detail=a, sidecache-l1; fwd=miss",
        ),
        "Warning": text("The entry is stale (`stale_if_error`).", "111 sidecache \"Revalidation Failed\""),
        "Retry-After": {
            "description": "Seconds to wait before a retry; absent if the outcome is unknown.",
            "schema": {"type": "integer", "minimum": 1},
            "example": 1,
        },
        "Content-Encoding": {
            "description": "The files of Swagger UI are always sent compressed, whatever `Accept-Encoding` says.",
            "schema": {"type": "string", "const": "gzip"},
        },
        "Location": text("The path of the job.", "/api/v1/jobs/0f31c8f1b2a49d77-000001"),
        "Preference-Applied": {
            "description": "The preference of the request that was applied.",
            "schema": {"type": "string", "const": "respond-async"},
        },
        "Allow": text("The methods that the path supports.", "GET,HEAD,PUT,DELETE"),
    });
    for (name, header) in headers.as_object_mut().into_iter().flatten() {
        // `ETag` is required, because the responses of misses, which have no ETag, do not list it.
        if !SOMETIMES.contains(&name.as_str()) || name == "ETag" {
            header["required"] = true.into();
        }
    }
    headers
}

/// Responses that do not depend on the call. `CrossSite` and `UnsupportedCondition` apply to every method except GET.
fn anywhere() -> Value {
    let mut responses = json!({
        "NoSuchRoute": failures::response(StatusCode::NOT_FOUND, &[Code::NoSuchRoute]),
        "UnsupportedCondition": failures::response(StatusCode::NOT_IMPLEMENTED, &[Code::NotImplemented]),
        "CrossSite": failures::response(StatusCode::FORBIDDEN, &[Code::CrossSite]),
        "MethodNotAllowed": failures::response(StatusCode::METHOD_NOT_ALLOWED, &[Code::MethodNotAllowed]),
    });
    for response in responses.as_object_mut().into_iter().flat_map(Map::values_mut) {
        response["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/X-Request-Id"});
    }
    responses["HeadTooLarge"] = json!({
        "description": "The head of the request has more than 32 KiB or more than 100 headers. The response has no \
                        body, and no request id because the head was not read to its end.",
    });
    responses
}

/// `GET /openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    tag = "documentation",
    summary = "This document",
    responses(answers::OpenApiDocument)
)]
pub async fn document() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| openapi().to_string().into());
    answer::raw_json(StatusCode::OK, TEXT.clone())
}

#[cfg(test)]
mod tests;
