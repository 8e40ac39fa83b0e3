//! What the responses and requests of each call have besides the annotation on its handler: headers, links, and the
//! examples in `examples.json`. For the errors, see `failures`.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::failures;
use super::schema::refer;

/// Examples of JSON responses, by schema. An example that fits one call only is under the call and the status.
static EXAMPLES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).expect("the file is a JSON object"));

/// The request headers of calls. Those that every call accepts are in `mod.rs`. `name=component`: the parameter has
/// another name in the components.
const REQUEST_HEADERS: &[(&str, &[&str])] = &[
    (
        "get_entry",
        &["Cache-Control", "Cache-Position=Cache-Position-read", "If-Match", "If-None-Match", "Prefer=Prefer-lease"],
    ),
    ("mget", &["Cache-Control", "Cache-Position=Cache-Position-read"]),
    ("put_entry", &["If-Match", "If-None-Match=If-None-Match-change", "Cache-Lease"]),
    ("patch_entry", &["If-Match", "If-None-Match=If-None-Match-change"]),
    ("delete_entry", &["If-Match", "If-None-Match=If-None-Match-change"]),
    ("release_lease", &["Cache-Lease=Cache-Lease-required"]),
    ("flush", &["Prefer", "X-Forwarded-For"]),
    ("put_namespace", &["X-Forwarded-For"]),
    ("patch_namespace", &["X-Forwarded-For"]),
    ("delete_namespace", &["Prefer", "X-Forwarded-For"]),
];

/// The headers of a read that found the entry. `name=component`: the header has another name in the components.
const HIT: &[&str] =
    &["X-Cache-Hit=X-Cache-Hit-true", "X-Cache-TTL", "ETag", "Cache-Control", "Cache-Status", "Warning"];

const NOT_FOUND: &[&str] =
    &["X-Cache-Hit=X-Cache-Hit-404", "X-Cache-TTL", "Cache-Control", "Cache-Status", "Warning"];

/// The response headers of calls with these statuses. Those of every call are in `mod.rs`.
const RESPONSE_HEADERS: &[(&str, &[&str], &[&str])] = &[
    ("get_entry", &["200", "304"], HIT),
    ("get_entry", &["404"], NOT_FOUND),
    ("get_entry", &["404"], &["Cache-Lease", "Preference-Applied=Preference-Applied-lease", "Vary"]),
    (
        "get_entry",
        &["200", "304"],
        &["Cache-Lease=Cache-Lease-refresh", "Preference-Applied=Preference-Applied-lease"],
    ),
    ("get_entry", &["200"], &["Vary"]),
    ("put_entry", &["200", "201"], &["ETag", "Cache-Position"]),
    ("delete_entry", &["200", "404"], &["Cache-Position"]),
    ("release_lease", &["200"], &["Cache-Position"]),
    ("mset", &["200"], &["Cache-Position"]),
    ("mdelete", &["200"], &["Cache-Position"]),
    ("flush", &["200"], &["Cache-Position"]),
    ("delete_namespace", &["200"], &["Cache-Position"]),
    ("mget", &["200"], &["Cache-Control"]),
    ("patch_entry", &["200"], &["ETag", "Cache-Position"]),
    ("flush", &["200", "202"], &["Preference-Applied"]),
    ("flush", &["202"], &["Location"]),
    ("delete_namespace", &["200", "202"], &["Preference-Applied"]),
    ("delete_namespace", &["202"], &["Location"]),
    ("get_docs_file", &["200"], &["Content-Encoding"]),
];

/// The links from a successful response of this call to other calls.
fn links(call: &str) -> Value {
    let entry = json!({"ns": "$request.path.ns", "key": "$request.path.key"});
    let page = json!({"ns": "$request.path.ns", "cursor": "$response.body#/cursor"});
    match call {
        "put_entry" => json!({
            "read": {"operationId": "get_entry", "parameters": entry, "description": "Read it."},
            "change": {"operationId": "patch_entry", "parameters": entry, "description": "Change its TTL or its tags."},
            "delete": {"operationId": "delete_entry", "parameters": entry, "description": "Delete it."},
        }),
        "list_keys" | "list_audit" | "list_logs" => {
            json!({"next": {"operationId": call, "parameters": page, "description": "The next page."}})
        }
        _ => Value::Null,
    }
}

/// Adds everything that an annotation does not say about its call.
pub fn complete(operation: &mut Value) {
    let call = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let links = links(&call);
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if let Some(content) = response.pointer_mut("/content/application~1json") {
            put_examples(content, &format!("{call} {status}"));
        }
        if !links.is_null() {
            response["links"] = links.clone();
        }
    }
    failures::put_errors(&call, &mut operation["responses"]);
    for (_, statuses, names) in RESPONSE_HEADERS.iter().filter(|(of, ..)| *of == call) {
        for status in *statuses {
            for name in *names {
                let (name, component) = name.split_once('=').unwrap_or((name, name));
                operation["responses"][*status]["headers"][name] = refer("headers", component);
            }
        }
    }
    let parameters = parameters_of(operation);
    for (_, names) in REQUEST_HEADERS.iter().filter(|(of, _)| *of == call) {
        let component = |name: &'static str| name.split_once('=').map_or(name, |(_, component)| component);
        parameters.extend(names.iter().map(|name| refer("parameters", component(name))));
    }
}

/// Adds the examples under this name, or else those of the schema.
fn put_examples(content: &mut Value, name: &str) {
    let schema = content["schema"]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let found = EXAMPLES.get(name).or_else(|| EXAMPLES.get(schema?));
    for (name, value) in found.and_then(Value::as_object).into_iter().flatten() {
        content["examples"][name] = json!({"value": value});
    }
}

/// The parameters of an operation, which may be absent before.
pub fn parameters_of(operation: &mut Value) -> &mut Vec<Value> {
    let parameters = &mut operation["parameters"];
    if parameters.is_null() {
        *parameters = json!([]);
    }
    parameters.as_array_mut().expect("the parameters of an operation are a list")
}
