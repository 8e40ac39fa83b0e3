//! The dashboard: web pages for people. The binary contains everything that they need.
//!
//! The server renders whole pages (`maud`), with charts as SVG. A small script updates regions of a page, which
//! arrive as server-sent events ([`events`]). Without the script, everything works except these updates. The data
//! comes from `cache`, `fleet` and `trends`. Each source has a deadline: if a shard is down or hangs, the page is
//! still shown, and says what is missing. Flushes and deletions must be confirmed. Changes that another site makes
//! the browser send are refused (`http::is_same_site` and [`form_token`]).

mod address;
mod asset;
mod audit;
mod chart;
mod condition;
mod confirmation;
mod entry;
mod events;
mod extract;
mod feeds;
mod fleet;
mod fleet_snapshot;
mod flush;
mod form_token;
mod job;
mod json;
mod latency;
mod listing;
mod namespace;
mod overview;
mod page;
mod problem;
mod results;
mod state;
mod table_query;
mod topic;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};

use self::problem::Problem;
use self::state::Dashboard;
use crate::http::{Error, SharedApp, is_same_site};

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

/// The routes of all pages. Call this on the runtime for background work, because the feeds run on it.
pub fn router(app: SharedApp) -> Router {
    let guard = from_fn_with_state(app.clone(), guard);
    let dashboard = Dashboard::new(app);
    let of_namespace = "/dashboard/namespaces/{ns}";
    Router::new()
        .route(of_namespace, get(namespace::get))
        .route(&format!("{of_namespace}/flush"), post(flush::post))
        .route(&format!("{of_namespace}/flushed"), get(flush::flushed))
        .route(&format!("{of_namespace}/deleted"), get(entry::deleted))
        .route(&format!("{of_namespace}/key"), get(entry::find))
        .route(&format!("{of_namespace}/key/delete"), post(entry::find_and_delete))
        .route("/dashboard", get(overview::get))
        .route("/dashboard/namespaces/{ns}/keys/{key}", get(entry::get))
        .route("/dashboard/namespaces/{ns}/keys/{key}/delete", post(entry::delete))
        .route("/dashboard/jobs/{id}", get(job::get))
        .route("/dashboard/jobs/{id}/cancel", post(job::cancel))
        .route("/dashboard/events", get(events::events))
        .route("/dashboard/assets/{name}", get(asset))
        // Addresses that people type from memory.
        .route("/", get(async || Redirect::temporary(address::OVERVIEW)))
        .route("/dashboard/", get(async || Redirect::temporary(address::OVERVIEW)))
        .route("/docs/", get(async || Redirect::temporary("/docs")))
        .route("/dashboard/{*rest}", get(no_such_page))
        .method_not_allowed_fallback(async || Problem::from(Error::MethodNotAllowed))
        .layer(guard)
        .with_state(Arc::new(dashboard))
}

/// `GET /dashboard/assets/{name}`.
async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    asset::response(&name).ok_or_else(|| Error::NoSuchRoute.into())
}

async fn no_such_page() -> Problem {
    Error::NoSuchRoute.into()
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
