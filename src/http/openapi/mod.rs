//! The OpenAPI 3.1 document. It is generated from the code: from the annotations on the handlers, the types of their
//! requests and responses, the table of error codes and the limits of the model.
//!
//! Annotations cannot say everything. These files have the rest:
//!
//! - [`schema`]: schemas that cannot be derived from a type
//! - [`calls`]: headers, links and examples (`examples.json`) of each call
//! - [`failures`]: the errors that a call can return, with examples
//! - `components.json`: parts that need no value from the code: headers, parameters, and the schemas of the responses
//!   that the code writes as bytes, because they contain stored values byte for byte
//!
//! This file adds what all calls share, such as the request id, a HEAD for every GET, and the paths of the keys
//! `mget`, `mset`, `mdelete` and `stats`.

mod calls;
mod failures;
pub mod schema;

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use self::schema::refer;
use super::error::Code;
use super::{
    answer, batch, cluster, docs, entry, error, flush, health, history, jobs, lease, list, namespaces, patch, stats,
};

/// The document as the annotations describe it.
#[derive(OpenApi)]
#[openapi(
    info(title = "sidecache", description = ABOUT, license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    servers((url = "/", description = "This service")),
    tags(
        (name = "entries", description = "Read, store, change or delete one entry."),
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
        entry::get, entry::put, patch::patch, entry::delete, lease::release,
        namespaces::list, namespaces::get, namespaces::put, namespaces::patch, namespaces::delete,
        history::audit, history::logs,
        jobs::list, jobs::show, jobs::cancel,
        cluster::cluster, health::health, health::livez, health::readyz, health::metrics,
        document, docs::page, docs::file,
    ),
    // Schemas that no annotation names.
    components(schemas(error::Answer, batch::MsetEntry)),
)]
struct Annotations;

const ABOUT: &str = include_str!("about.md");

/// The path of an entry.
const ENTRY_PATH: &str = "/api/v1/cache/{ns}/{key}";

/// Keys that need their own path in the document, because a POST to that path is a batch.
const BATCHES: [&str; 3] = ["mget", "mset", "mdelete"];

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// The parts of the document's components that need no value from the code.
const COMPONENTS: &str = include_str!("components.json");

/// The whole document.
pub fn openapi() -> Value {
    let mut document = serde_json::to_value(Annotations::openapi()).expect("the document is JSON");
    put_components(&mut document["components"]);
    let paths = document["paths"].as_object_mut().expect("a document has paths");
    for_each_operation(paths, |_, _, operation| calls::complete(operation));
    put_entries_named_as_batches(paths);
    put_reserved_key(paths);
    for_each_operation(paths, put_what_all_have);
    for path in paths.values_mut() {
        if let Some(get) = path.get("get") {
            path["head"] = head_of(get);
        }
    }
    document
}

/// Calls `change` with the path, the method and the operation.
fn for_each_operation(paths: &mut Map<String, Value>, change: impl Fn(&str, &str, &mut Value)) {
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get_mut(method) {
                change(path, method, operation);
            }
        }
    }
}

/// Adds the components that do not come from types.
fn put_components(components: &mut Value) {
    let fixed: Value = serde_json::from_str(COMPONENTS).expect("the file is JSON");
    for (kind, parts) in fixed.as_object().into_iter().flatten() {
        for (name, part) in parts.as_object().into_iter().flatten() {
            components[kind][name] = part.clone();
        }
    }
    for (name, schema) in schema::components() {
        components["schemas"][name] = schema;
    }
    for name in ["SetBody", "MsetEntry"] {
        schema::put_alternatives(&mut components["schemas"][name]);
    }
    components["examples"] = failures::examples();
    // Responses that do not depend on the call.
    for (name, code) in [
        ("NoSuchRoute", Code::NoSuchRoute),
        ("UnsupportedCondition", Code::NotImplemented),
        ("CrossSite", Code::CrossSite),
        ("MethodNotAllowed", Code::MethodNotAllowed),
    ] {
        let mut response = failures::response(code.status(), &[code]);
        response["headers"]["X-Request-Id"] = refer("headers", "X-Request-Id");
        components["responses"][name] = response;
    }
    // PUT, PATCH and DELETE refuse the key `stats`.
    let mut key = components["parameters"]["key"].clone();
    key["schema"] = refer("schemas", "WritableKey");
    components["parameters"]["writable_key"] = key;
}

/// Adds GET, PUT, PATCH and DELETE of the entries that have the name of a batch as their key.
fn put_entries_named_as_batches(paths: &mut Map<String, Value>) {
    for key in BATCHES {
        for method in ["get", "put", "patch", "delete"] {
            let mut operation = paths[ENTRY_PATH][method].clone();
            without_key(&mut operation, key);
            paths[&format!("/api/v1/cache/{{ns}}/{key}")][method] = operation;
        }
    }
}

/// Adds PUT, PATCH and DELETE of the key `stats`, which is reserved: they always fail.
fn put_reserved_key(paths: &mut Map<String, Value>) {
    for method in ["put", "patch", "delete"] {
        let mut operation = paths[ENTRY_PATH][method].clone();
        without_key(&mut operation, "stats");
        operation["summary"] = "Refused: the key stats is reserved".into();
        let responses = operation["responses"].as_object_mut().expect("an operation has responses");
        // The 400 for an invalid body stays: the body is checked before the key.
        responses.retain(|status, _| !matches!(status.as_str(), "200" | "201" | "404" | "507"));
        paths["/api/v1/cache/{ns}/stats"][method] = operation;
    }
}

/// Turns an operation on any key into an operation on this key.
fn without_key(operation: &mut Value, key: &str) {
    let id = operation["operationId"].as_str().unwrap_or_default().replace("_entry", &format!("_entry_{key}"));
    operation["operationId"] = id.into();
    let summary = operation["summary"].as_str().unwrap_or_default();
    operation["summary"] = format!("{summary} whose key is {key}").into();
    operation["tags"] = json!(["special-keys"]);
    remove_from_responses(operation, &["links"]);
}

/// Adds what every operation has: the parameters of its path, the request id and the trace as parameters, the request
/// id and `Keep-Alive` as response headers, the 431, and the errors of every method except GET.
fn put_what_all_have(path: &str, method: &str, operation: &mut Value) {
    let names_in_path = path.split(['{', '}']).skip(1).step_by(2);
    let is_write = matches!(method, "put" | "patch" | "delete");
    let in_path = names_in_path.map(|name| if name == "key" && is_write { "writable_key" } else { name });
    let parameters = calls::parameters_of(operation);
    parameters.splice(0..0, in_path.map(|name| refer("parameters", name)));
    parameters.extend(["X-Request-Id", "Traceparent"].map(|name| refer("parameters", name)));
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for name in ["X-Request-Id", "Keep-Alive"] {
            response["headers"][name] = refer("headers", name);
        }
    }
    operation["responses"]["431"] = refer("responses", "HeadTooLarge");
    if method != "get" {
        operation["responses"]["403"] = refer("responses", "CrossSite");
        operation["responses"]["501"] = refer("responses", "UnsupportedCondition");
    }
}

/// The HEAD operation of a GET: the same responses without bodies.
fn head_of(get: &Value) -> Value {
    let mut head = get.clone();
    head["operationId"] = format!("{}_head", get["operationId"].as_str().unwrap_or_default()).into();
    head["summary"] = format!("{} (headers only)", get["summary"].as_str().unwrap_or_default()).into();
    remove_from_responses(&mut head, &["content", "links"]);
    head
}

fn remove_from_responses(operation: &mut Value, fields: &[&str]) {
    let responses = operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for response in responses.filter_map(Value::as_object_mut) {
        response.retain(|field, _| !fields.contains(&field.as_str()));
    }
}

/// `GET /openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    tag = "documentation",
    summary = "This document",
    responses((
        status = 200, description = "This document, in OpenAPI 3.1.", body = ref("#/components/schemas/Document"),
    ))
)]
pub async fn document() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| openapi().to_string().into());
    answer::raw_json(StatusCode::OK, TEXT.clone())
}

#[cfg(test)]
mod tests;
