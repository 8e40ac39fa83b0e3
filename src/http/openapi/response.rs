//! Builds the responses of the document: JSON responses, references to schemas and headers, and named examples.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Response};

use super::{failures, schema};
use crate::http::error::Code;

pub type Responses = BTreeMap<String, RefOr<Response>>;

/// The responses of one call, by status.
pub struct Answers(pub Responses);

impl Answers {
    /// The errors with these codes.
    pub fn errors(sets: &[&[Code]]) -> Self {
        let by_status = failures::responses(sets);
        Self(by_status.into_iter().map(|(status, response)| (status.as_str().to_owned(), of(response))).collect())
    }

    /// Adds a response. It replaces the errors of that status.
    pub fn and(mut self, status: StatusCode, response: Value) -> Self {
        self.0.insert(status.as_str().to_owned(), of(response));
        self
    }

    /// Adds a JSON response. `schema` is the name of a schema in the components; `examples` are by name.
    pub fn json(self, status: StatusCode, description: &str, schema: &str, examples: Value) -> Self {
        self.and(status, json_response(description, &refer("schemas", schema), &[], examples))
    }

    /// Adds a JSON response with a status that is also the status of errors with these codes.
    pub fn json_or_errors(
        self,
        status: StatusCode,
        description: &str,
        schema: &str,
        examples: Value,
        codes: &[Code],
    ) -> Self {
        let mut response = failures::response(status, codes);
        let errors = response["content"]["application/json"].take();
        let schema = json!({"anyOf": [refer("schemas", schema), errors["schema"]]});
        let mut both = json_response("", &schema, &[], examples)["content"]["application/json"].take();
        for (name, example) in errors["examples"].as_object().into_iter().flatten() {
            both["examples"][name] = example.clone();
        }
        response["content"]["application/json"] = both;
        response["description"] =
            format!("{description}; or {}", response["description"].as_str().unwrap_or_default()).into();
        self.and(status, response)
    }
}

fn of(response: Value) -> RefOr<Response> {
    schema::typed(response)
}

pub fn refer(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// References to headers in the components. `name=component` refers to a header that has another name there.
pub fn headers(names: &[&str]) -> Value {
    let pairs = names.iter().map(|name| {
        let (name, component) = name.split_once('=').unwrap_or((name, name));
        (name.to_owned(), refer("headers", component))
    });
    Value::Object(pairs.collect())
}

pub fn json_response(description: &str, schema: &Value, header_names: &[&str], examples: Value) -> Value {
    let examples = if let Value::Object(examples) = examples { examples } else { Map::new() };
    let examples: Map<_, _> = examples.into_iter().map(|(name, value)| (name, json!({"value": value}))).collect();
    let mut content = json!({"schema": schema});
    if !examples.is_empty() {
        content["examples"] = examples.into();
    }
    let mut response = json!({"description": description, "content": {"application/json": content}});
    if !header_names.is_empty() {
        response["headers"] = headers(header_names);
    }
    response
}
