//! The responses of each call. There is one type per call, and the annotation on the handler names that type.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::IntoResponses;

use super::failures::{self, ANY, BODY, CHANGE, SHARD, STORE};
use super::response::{Answers, Responses, headers, json_response, refer};
use crate::http::error::Code;

/// Defines the type that holds the responses of a call.
macro_rules! answers {
    ($($call:ident: $make:expr;)+) => {$(
        pub enum $call {}

        impl IntoResponses for $call {
            fn responses() -> Responses {
                $make.0
            }
        }
    )+};
}

/// The headers of a read that found the entry.
const HIT: &[&str] =
    &["X-Cache-Hit=X-Cache-Hit-true", "X-Cache-TTL", "ETag", "Cache-Control", "Cache-Status", "Warning"];

const MISS: &[&str] = &["X-Cache-Hit=X-Cache-Hit-false", "Cache-Control", "Cache-Status"];

const NAMESPACE: &[Code] = &[Code::InvalidNamespace, Code::InvalidQuery];

const KEY: &[Code] = &[Code::InvalidNamespace, Code::InvalidKey, Code::InvalidQuery];

const SELECTION: &[Code] = &[Code::InvalidPattern, Code::InvalidTag];

const DATABASE: &[Code] = &[Code::DatabaseUnavailable];

/// The 503 errors of a call that also has a 503 response with a body of its own.
const UNANSWERED: &[Code] = &[Code::Overloaded, Code::Timeout];

const OK: StatusCode = StatusCode::OK;

fn get_entry() -> Answers {
    let metadata = json!({"ttl_remaining": 3500, "created_at": "2024-01-01T00:00:00Z"});
    let full = json!({
        "ttl_remaining": null, "created_at": "2024-01-01T00:00:00Z", "expires_at": null,
        "last_accessed": "2024-01-01T00:10:00Z", "access_count": 42, "size_bytes": 15,
        "version": 1_704_067_200_000_000_u64, "tags": ["vip"],
    });
    let examples = json!({
        "plain": {"value": {"name": "Ada"}, "metadata": metadata},
        "metadata=full": {"value": {"name": "Ada"}, "metadata": full},
    });
    let mut not_found = failures::response(StatusCode::NOT_FOUND, &[Code::KeyNotFound]);
    not_found["headers"] = headers(MISS);
    Answers::errors(&[KEY, SHARD, ANY])
        .and(OK, json_response("The entry.", &refer("schemas", "Entry"), HIT, examples))
        .and(
            StatusCode::NOT_MODIFIED,
            json!({"description": "The client already has this version (`If-None-Match`).", "headers": headers(HIT)}),
        )
        .and(StatusCode::NOT_FOUND, not_found)
}

fn put_entry() -> Answers {
    let stored = |created: bool| {
        let description = if created { "The entry is new." } else { "The entry was replaced." };
        let example = json!({"stored": {"success": true, "key": "user_123", "created": created}});
        let mut response = json_response(description, &refer("schemas", "SetAnswer"), &["ETag"], example);
        let entry = json!({"ns": "$request.path.ns", "key": "$request.path.key"});
        response["links"] = json!({
            "read": {"operationId": "get_entry", "parameters": entry, "description": "Read it."},
            "delete": {"operationId": "delete_entry", "parameters": entry, "description": "Delete it."},
        });
        response
    };
    Answers::errors(&[KEY, BODY, STORE, SHARD, CHANGE, ANY])
        .and(StatusCode::CREATED, stored(true))
        .and(OK, stored(false))
}

fn delete_entry() -> Answers {
    Answers::errors(&[KEY, &[Code::ReservedKey, Code::KeyNotFound], SHARD, CHANGE, ANY]).json(
        OK,
        "The entry is deleted.",
        "DeleteAnswer",
        json!({"deleted": {"success": true, "deleted": true}}),
    )
}

fn mget() -> Answers {
    let examples = json!({
        "one of two": {
            "results": {"user_1": {"value": {"name": "Ada"}, "found": true}, "user_2": {"value": null, "found": false}},
            "hits": 1, "misses": 1,
        },
        "a shard is unavailable": {
            "results": {"user_1": {"value": null, "found": false, "error": "shard_unavailable"}},
            "hits": 0, "misses": 0, "errors": 1,
        },
        "an invalid key": {
            "results": {"user_1": {"value": 1, "found": true}, "": {"value": null, "found": false, "error": "invalid_key"}},
            "hits": 1, "misses": 0, "errors": 1,
        },
    });
    Answers::errors(&[NAMESPACE, BODY, &[Code::TooManyKeys], ANY]).json(
        OK,
        "A result for every requested key. If a key is invalid or its shard fails, only that key has an error.",
        "MgetAnswer",
        examples,
    )
}

fn mset() -> Answers {
    let examples = json!({
        "all": {"success": true, "stored": 2},
        "a shard is unavailable": {"success": false, "stored": 1, "errors": {"user_2": "shard_unavailable"}},
    });
    let answers = Answers::errors(&[NAMESPACE, BODY, STORE, &[Code::InvalidKey, Code::TooManyKeys], CHANGE, ANY])
        .json(OK, "All entries are stored, or only some of them (`success` is false).", "MsetAnswer", examples);
    let unavailable = &[
        Code::ShardUnavailable,
        Code::Timeout,
        Code::Overloaded,
        Code::OutcomeUnknown,
        Code::MakingRoom,
        Code::RingMismatch,
        Code::PoliciesUnknown,
    ];
    let failed = [
        (StatusCode::CONFLICT, &[Code::ForeignType][..]),
        (StatusCode::INTERNAL_SERVER_ERROR, &[Code::Internal]),
        (StatusCode::SERVICE_UNAVAILABLE, unavailable),
        (StatusCode::INSUFFICIENT_STORAGE, &[Code::StorageFull]),
    ];
    failed.into_iter().fold(answers, |answers, (status, codes)| {
        let errors = json!({"user_1": codes[0].as_str()});
        let example = json!({"none stored": {"success": false, "stored": 0, "errors": errors}});
        answers.json_or_errors(
            status,
            "Nothing was stored, and `errors` has the reasons",
            "MsetAnswer",
            example,
            codes,
        )
    })
}

fn mdelete() -> Answers {
    let examples = json!({
        "all": {"success": true, "deleted_count": 2},
        "a shard is unavailable": {"success": false, "deleted_count": 1, "errors": {"user_2": "shard_unavailable"}},
    });
    let errors = &[NAMESPACE, BODY, &[Code::InvalidKey, Code::ReservedKey, Code::TooManyKeys], CHANGE, ANY];
    let answers = Answers::errors(errors);
    let answers =
        answers.json(OK, "All keys are deleted, or only some (`success` is false).", "MdeleteAnswer", examples);
    let unavailable =
        &[Code::ShardUnavailable, Code::Timeout, Code::Overloaded, Code::OutcomeUnknown, Code::RingMismatch];
    let failed = [
        (StatusCode::INTERNAL_SERVER_ERROR, &[Code::Internal][..]),
        (StatusCode::SERVICE_UNAVAILABLE, unavailable),
        (StatusCode::CONFLICT, &[Code::ForeignType]),
    ];
    failed.into_iter().fold(answers, |answers, (status, codes)| {
        let errors = json!({"user_1": codes[0].as_str()});
        let example = json!({"none deleted": {"success": false, "deleted_count": 0, "errors": errors}});
        answers.json_or_errors(
            status,
            "Nothing was deleted, and `errors` has the reasons",
            "MdeleteAnswer",
            example,
            codes,
        )
    })
}

fn delete_namespace() -> Answers {
    let example = json!({"deleted": {"success": true, "deleted_count": 150}});
    let schema = refer("schemas", "FlushAnswer");
    let done = json_response("The policy and all entries are deleted.", &schema, &["Preference-Applied"], example);
    Answers::errors(&[NAMESPACE, &[Code::NamespaceNotFound, Code::PoliciesUnknown], DATABASE, SHARD, CHANGE, ANY])
        .and(OK, done)
        .and(StatusCode::ACCEPTED, accepted("delete_namespace"))
}

/// The response to a request that continues as a job.
fn accepted(kind: &str) -> Value {
    let mut example = job("running", &Value::Null);
    example["kind"] = json!(kind);
    json_response(
        "The request continues as a job, even if the client disconnects.",
        &refer("schemas", "Job"),
        &["Location", "Preference-Applied"],
        json!({"job": example}),
    )
}

fn flush() -> Answers {
    let schema = json!({"anyOf": [refer("schemas", "DryRunAnswer"), refer("schemas", "FlushAnswer")]});
    let examples = json!({
        "flushed": {"success": true, "deleted_count": 150},
        "dry_run=true": {"success": true, "deleted_count": 0, "matched_count": 150},
    });
    let done = json_response(
        "The selected entries are deleted, or only counted.",
        &schema,
        &["Preference-Applied"],
        examples,
    );
    Answers::errors(&[NAMESPACE, SELECTION, SHARD, CHANGE, ANY])
        .and(OK, done)
        .and(StatusCode::ACCEPTED, accepted("flush"))
}

/// An example of a job.
fn job(state: &str, result: &Value) -> Value {
    let ended_at = if result.is_null() { Value::Null } else { json!("2026-11-20T12:00:09.000Z") };
    json!({
        "id": "0f31c8f1b2a49d77-000001", "kind": "flush", "state": state, "namespace": "users", "pattern": "user_*",
        "tag": null, "done": 250_000, "estimate": 1_000_000, "started_at": "2026-11-20T12:00:00.123Z",
        "ended_at": ended_at, "result": result,
    })
}

/// A job in each state.
fn jobs() -> Value {
    json!({
        "running": job("running", &Value::Null),
        "done": job("done", &json!({"success": true, "deleted_count": 250_000})),
        "failed": job("failed", &json!({
            "success": false, "deleted_count": 250_000, "error": "The key's shard is unavailable",
            "code": "shard_unavailable",
        })),
        "cancelled": job("cancelled", &json!({"success": false, "deleted_count": 250_000})),
    })
}

fn list_jobs() -> Answers {
    let example = json!({"jobs": {"jobs": [job("running", &Value::Null)]}});
    Answers::errors(&[&[Code::InvalidQuery], DATABASE, ANY]).json(OK, "The jobs.", "JobsAnswer", example)
}

fn get_job() -> Answers {
    Answers::errors(&[&[Code::InvalidQuery, Code::JobNotFound], DATABASE, ANY]).json(OK, "The job.", "Job", jobs())
}

fn cancel_job() -> Answers {
    Answers::errors(&[&[Code::InvalidQuery, Code::JobNotFound], DATABASE, CHANGE, ANY]).json(
        OK,
        "The current state of the job.",
        "Job",
        jobs(),
    )
}

/// A page of `schema`, with a link to the next page.
fn page(errors: &[&[Code]], schema: &str, operation: &str, example: &Value) -> Answers {
    let description = "A page. Pass `cursor` to get the next page; it is null on the last page.";
    let mut response = json_response(description, &refer("schemas", schema), &[], json!({"page": example}));
    let parameters = json!({"ns": "$request.path.ns", "cursor": "$response.body#/cursor"});
    response["links"] =
        json!({"next": {"operationId": operation, "parameters": parameters, "description": "The next page."}});
    Answers::errors(errors).and(OK, response)
}

fn list() -> Answers {
    let example = json!({"size": 3, "keys": ["user_1", "user_2"], "cursor": "Mwo0Mgp1c2VyXzI"});
    page(&[NAMESPACE, SELECTION, &[Code::InvalidCursor], SHARD, ANY], "ListAnswer", "list_keys", &example)
}

fn audit() -> Answers {
    let policy = json!({"default_ttl": 0, "max_size_mb": 100, "eviction_policy": "LRU", "stale_if_error": 0});
    let example = json!({
        "audit": [{
            "at": "2026-11-20T12:00:00.123Z", "client": "10.0.0.7", "forwarded_for": null, "request_id": "7f3a-1",
            "action": "policy_created", "before": null, "after": policy, "pattern": null, "tag": null,
            "deleted_count": null, "complete": true,
        }],
        "cursor": null,
    });
    page(&[NAMESPACE, &[Code::InvalidCursor], DATABASE, ANY], "AuditAnswer", "list_audit", &example)
}

fn logs() -> Answers {
    let example = json!({
        "logs": [{
            "at": "2026-11-20T12:00:00.123Z", "operation": "get", "key_pattern": "user_*", "hit": true,
            "latency_ms": 0.042, "request_id": "7f3a-1", "trace_id": null, "outcome": "hit", "status": 200,
            "error_code": null, "tier": "l1", "client": "10.0.0.9", "instance": "0f31c8f1b2a49d77",
        }],
        "cursor": null,
    });
    page(&[NAMESPACE, &[Code::InvalidCursor], DATABASE, ANY], "LogAnswer", "list_logs", &example)
}

fn stats() -> Answers {
    let example = json!({"stats": {
        "namespace": "users", "hits": 900, "misses": 100, "hit_rate": 0.9, "total_keys": 150,
        "memory_used_mb": 0.5, "memory_used_bytes": 524_288, "memory_charged_bytes": 928_288, "evictions": 3, "evictions_quota": 2,
        "evictions_redis": 1, "expirations": 12, "expired_not_swept": 0, "repairing": false,
    }});
    Answers::errors(&[NAMESPACE, SHARD, ANY]).json(OK, "The statistics.", "StatsAnswer", example)
}

/// An example of a policy.
fn namespace() -> Value {
    json!({
        "name": "users", "default_ttl": 3600, "max_size_mb": 100, "eviction_policy": "LRU", "stale_if_error": 0,
        "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z",
    })
}

fn list_namespaces() -> Answers {
    let example = json!({"namespaces": {"namespaces": [namespace()]}});
    Answers::errors(&[&[Code::InvalidQuery, Code::PoliciesUnknown], ANY]).json(
        OK,
        "All policies, sorted by name.",
        "NamespacesAnswer",
        example,
    )
}

fn get_namespace() -> Answers {
    Answers::errors(&[NAMESPACE, &[Code::NamespaceNotFound, Code::PoliciesUnknown], ANY]).json(
        OK,
        "The policy.",
        "Namespace",
        json!({"namespace": namespace()}),
    )
}

fn put_namespace() -> Answers {
    let example = json!({"namespace": namespace()});
    Answers::errors(&[NAMESPACE, BODY, &[Code::InvalidPolicy], DATABASE, CHANGE, ANY])
        .json(StatusCode::CREATED, "The policy was created.", "Namespace", example.clone())
        .json(OK, "The policy was replaced.", "Namespace", example)
}

fn patch_namespace() -> Answers {
    let example = json!({"namespace": namespace()});
    Answers::errors(&[NAMESPACE, BODY, &[Code::InvalidPolicy, Code::NamespaceNotFound], DATABASE, CHANGE, ANY]).json(
        OK,
        "The policy after the change.",
        "Namespace",
        example,
    )
}

fn cluster() -> Answers {
    let example = json!({"cluster": {
        "ring": {"version": "9d6ac9e15b1b1a3f", "agreed": true},
        "instances": [{
            "id": "0f31c8f1b2a49d77", "address": "10.0.0.5:8080", "version": "0.1.0",
            "started_at": "2026-11-20T12:00:00.000Z", "last_seen_ms": 0, "ring_version": "9d6ac9e15b1b1a3f",
            "self": true, "l1": {"entries": 12, "bytes": 4096, "max_bytes": 67_108_864, "hits": 900},
            "load": {"operations_per_second": 120.5, "p50_us": 40, "p99_us": 900},
        }],
        "shards": [{
            "name": "a", "address": "redis://10.0.0.7:6379", "state": "connected", "role": "primary", "used_bytes": 1_048_576, "limit_bytes": 0,
            "keys": 150, "ring_share": 1.0, "watermark_age_ms": 80, "findings": [],
        }],
        "warnings": [],
    }});
    Answers::errors(&[&[Code::InvalidQuery], ANY]).json(
        OK,
        "All live instances, and the shards.",
        "ClusterAnswer",
        example,
    )
}

fn health() -> Answers {
    let example = |status: &str, redis: &str, state: &str| {
        json!({"health": {
            "status": status, "redis": redis, "memory_usage": "45%", "store": "redis", "version": "0.1.0",
            "uptime_seconds": 3600,
            "shards": [{
                "name": "a", "state": state, "used_bytes": 471_859, "limit_bytes": 1_048_576, "findings": [],
            }],
            "database": {"kind": "postgres", "state": "connected", "error": null, "policies_known": true},
            "ring": {"version": "9d6ac9e15b1b1a3f", "agreed": true},
            "warnings": [],
        }})
    };
    Answers::errors(&[ANY])
        .json(
            OK,
            "`healthy`; or `degraded`: part of what this instance needs is down.",
            "Health",
            example("healthy", "connected", "connected"),
        )
        .json_or_errors(
            StatusCode::SERVICE_UNAVAILABLE,
            "`unhealthy`: no request can be served",
            "Health",
            example("unhealthy", "disconnected", "disconnected"),
            UNANSWERED,
        )
}

fn probe(status: &str) -> Answers {
    let example = json!({"status": {"status": status}});
    Answers::errors(&[ANY]).json(OK, &format!("The instance is {status}."), "ProbeAnswer", example)
}

fn readyz() -> Answers {
    let example = json!({"status": {"status": "not_ready", "reason": "draining"}});
    let no = "The instance is not ready yet, or is stopping";
    probe("ready").json_or_errors(StatusCode::SERVICE_UNAVAILABLE, no, "ProbeAnswer", example, UNANSWERED)
}

/// A response that is text and not JSON.
fn plain(content_type: &str, description: &str, example: &str) -> Answers {
    let content = json!({content_type: {"schema": {"type": "string"}, "example": example}});
    Answers::errors(&[ANY]).and(OK, json!({"description": description, "content": content}))
}

fn metrics() -> Answers {
    let example = "# TYPE sidecache_http_connections gauge\nsidecache_http_connections 3\n";
    plain("text/plain", "The metrics in the Prometheus text format.", example)
}

fn document() -> Answers {
    let content = json!({"application/json": {"schema": {"type": "object", "required": ["openapi"]}}});
    Answers::errors(&[ANY]).and(OK, json!({"description": "This document, in OpenAPI 3.1.", "content": content}))
}

fn docs_page() -> Answers {
    plain("text/html", "The page.", "<!doctype html>")
}

fn docs_file() -> Answers {
    let text = json!({"schema": {"type": "string"}});
    let content = json!({"text/css": text, "text/javascript": text});
    let file = json!({"description": "The file.", "content": content, "headers": headers(&["Content-Encoding"])});
    Answers::errors(&[ANY, &[Code::NoSuchRoute]]).and(OK, file)
}

answers! {
    GetEntry: get_entry();
    PutEntry: put_entry();
    DeleteEntry: delete_entry();
    Mget: mget();
    Mset: mset();
    Mdelete: mdelete();
    List: list();
    Flush: flush();
    Stats: stats();
    ListNamespaces: list_namespaces();
    GetNamespace: get_namespace();
    PutNamespace: put_namespace();
    PatchNamespace: patch_namespace();
    DeleteNamespace: delete_namespace();
    Audit: audit();
    Logs: logs();
    ListJobs: list_jobs();
    GetJob: get_job();
    CancelJob: cancel_job();
    Cluster: cluster();
    Health: health();
    Livez: probe("alive");
    Readyz: readyz();
    Metrics: metrics();
    OpenApiDocument: document();
    DocsPage: docs_page();
    DocsAsset: docs_file();
}
