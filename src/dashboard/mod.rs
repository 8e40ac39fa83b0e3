//! The dashboard: web pages for people. The binary contains everything that they need.
//!
//! The server renders whole pages (`maud`), with charts as SVG. A small script updates regions of a page, which
//! arrive as server-sent events ([`events`]). Without the script, everything works except these updates. The data
//! comes from `cache`, `fleet` and `trends`. Each source has a deadline: if a shard is down or hangs, the page is
//! still shown, and says what is missing. Flushes and deletions must be confirmed. Changes that another site makes
//! the browser send are refused (`http::is_same_site` and [`form`]).

mod address;
mod audit;
mod chart;
mod entry;
mod entry_ttl;
mod events;
mod figure;
mod fleet;
mod fleet_snapshot;
mod flush;
mod form;
mod job;
mod json;
mod listing;
mod namespace;
mod overview;
mod page;
mod problem;
mod state;
mod table_query;
mod topic;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use self::problem::Problem;
use self::state::{Dashboard, Shared};
use crate::http::{Error, SharedApp, is_same_site, query};

/// Security headers: a page loads content only from this server, and other sites cannot embed it.
const SECURITY: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    // With `no-referrer`, browsers would send `Origin: null` with a form.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The routes of all pages.
pub fn router(app: SharedApp) -> Router {
    let guard = from_fn_with_state(app.clone(), guard);
    let of_namespace = "/dashboard/namespaces/{ns}";
    Router::new()
        .route("/dashboard", get(overview::get))
        .route(of_namespace, get(namespace::get))
        .route(&format!("{of_namespace}/flush"), post(flush::post))
        .route(&format!("{of_namespace}/flushed"), get(result))
        .route(&format!("{of_namespace}/deleted"), get(result))
        .route(&format!("{of_namespace}/key"), get(entry::get))
        .route(&format!("{of_namespace}/key/delete"), post(entry::delete))
        .route(&format!("{of_namespace}/key/ttl"), post(entry_ttl::post))
        .route(&format!("{of_namespace}/keys/{{key}}"), get(entry::get))
        .route(&format!("{of_namespace}/keys/{{key}}/delete"), post(entry::delete))
        .route(&format!("{of_namespace}/keys/{{key}}/ttl"), post(entry_ttl::post))
        .route("/dashboard/jobs/{id}", get(job::get))
        .route("/dashboard/jobs/{id}/cancel", post(job::cancel))
        .route("/dashboard/events", get(events::get))
        .route("/dashboard/assets/{name}", get(asset))
        // Addresses that people type from memory.
        .route("/", get(async || Redirect::temporary(address::OVERVIEW)))
        .route("/dashboard/", get(async || Redirect::temporary(address::OVERVIEW)))
        .route("/docs/", get(async || Redirect::temporary("/docs")))
        .route("/dashboard/{*rest}", get(async || Problem::from(Error::NoSuchRoute)))
        .method_not_allowed_fallback(async || Problem::from(Error::MethodNotAllowed))
        .layer(guard)
        .with_state(Arc::new(Dashboard::new(app)))
}

/// The query of a page that shows a result.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultQuery {
    result: String,
}

/// The result of a flush or a deletion that this instance carried out.
async fn result(State(dashboard): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let namespace = address::namespace_of(&uri)?;
    let name = query::<ResultQuery>(&uri)?.result;
    let Some(outcome) = dashboard.results.find(&name, &namespace) else {
        // Behind a load balancer, another instance may have carried it out. The page of the namespace shows a flush
        // in the audit trail.
        return Ok(Redirect::to(&address::namespace(namespace.as_str())).into_response());
    };
    let condition = &dashboard.snapshot().await.condition;
    Ok(page::below_namespace(StatusCode::OK, &outcome.title, namespace.as_str(), condition, outcome.main))
}

/// `GET /dashboard/assets/{name}`.
async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    page::asset(&name).ok_or_else(|| Error::NoSuchRoute.into())
}

/// Wraps every page: refuses changes from other sites, and adds the security headers to each response. Event streams
/// that another site opens are refused as well, because the number of streams is limited.
async fn guard(State(app): State<SharedApp>, request: Request, next: Next) -> Response {
    let is_guarded = request.method() != Method::GET && request.method() != Method::HEAD
        || request.uri().path() == "/dashboard/events";
    let mut response = if is_guarded && !is_same_site(request.headers(), request.uri(), &app.hosts) {
        Problem::CrossSite.into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in SECURITY {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
