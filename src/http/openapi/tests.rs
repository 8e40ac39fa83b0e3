//! The document is complete, matches the router and the table of error codes, and equals the committed file.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// The environment variable that makes the test rewrite the committed document.
const RENEW: &str = "OPENAPI";

/// The paths in the source code of the router.
fn routes() -> BTreeSet<&'static str> {
    let router = include_str!("../mod.rs");
    router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_route_is_documented_and_nothing_else() {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(routes(), paths.keys().map(String::as_str).collect());
}

/// Collects the codes that the schemas under `value` list.
fn codes(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(names) = fields.get("code").and_then(|code| code["enum"].as_array()) {
                found.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            fields.values().for_each(|value| codes(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| codes(value, found)),
        _ => {}
    }
}

#[test]
fn every_code_is_documented_for_some_call() {
    let document = openapi();
    let mut found = BTreeSet::new();
    codes(&document["paths"], &mut found);
    codes(&document["components"]["responses"], &mut found);
    let all = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(found, all);
    assert_eq!(document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap().len(), Code::ALL.len());
}

/// Collects every `$ref` under `value`.
fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves_and_every_schema_is_used() {
    let document = openapi();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(format!("#/components/schemas/{name}").as_str()), "the schema {name}");
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = openapi();
    let mut names = BTreeSet::new();
    for operation in
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values())
    {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} twice");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
    }
}

#[test]
fn the_committed_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let text = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
    if std::env::var_os(RENEW).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let line = committed.lines().zip(text.lines()).position(|(committed, now)| committed != now);
    assert!(
        committed == text,
        "docs/openapi.json differs from the code (from line {:?} on): check the change, then run `make openapi`",
        line.map(|line| line + 1)
    );
}
