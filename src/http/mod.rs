//! HTTP: every route on one screen, and the layers around all routes.
//!
//! A handler parses the request, calls the cache and writes the response. What a verb means is decided in `cache`.

mod accept;
mod answer;
mod batch;
mod body;
mod bounds;
mod cache_control;
mod change_guard;
mod cluster;
mod conditions;
mod connection;
mod delivery;
mod docs;
mod entry;
mod error;
mod extract;
mod failure_log;
mod fast_path;
mod flush;
mod health;
mod history;
mod hosts;
mod jobs;
mod json;
mod lease;
mod list;
mod memory;
mod namespaces;
mod openapi;
mod page_limit;
mod patch;
mod positions;
mod prefer;
mod read_answer;
mod reader;
mod request_id;
mod router_stream;
mod state;
mod stats;

use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get};

use crate::net::RequestIds;

/// The parsers of client input, for the fuzz targets, which run without a server.
pub mod input {
    pub use super::batch::{mget_keys, mset_entries};
    pub use super::entry::set_body;
    pub use super::error::Error;
    pub use super::extract::{entry_key, selection_of};
    pub use super::patch::patch_body;
}

/// How an entry is written into a response, for the micro-benchmarks.
pub mod output {
    pub use super::read_answer::{body as entry, ttl_remaining};
}

pub use axum::Router;
pub use bounds::Bounds;
pub use change_guard::is_same_site;
pub use connection::Connections;
pub use error::{Code, Error, status_of};
pub use extract::{RequestOrigin, job_in, key_in, namespace_in, query, selection};
pub use failure_log::Failure;
pub use fast_path::FastPath;
pub use hosts::Hosts;
pub use jobs::failure;
pub use state::{App, SharedApp};

/// All routes. `more` are the routes of other modules, such as the dashboard; the same bounds apply to them.
pub fn router(app: SharedApp, ids: RequestIds, more: Router) -> Router {
    let entry = || get(entry::get).put(entry::put).patch(patch::patch).delete(entry::delete);
    let entry_named_stats = || get(stats::stats).put(entry::put).patch(patch::patch).delete(entry::delete);
    let policy = || get(namespaces::get).put(namespaces::put).patch(namespaces::patch).delete(namespaces::delete);
    let (bounds, change_guard) = (app.bounds.clone(), from_fn_with_state(app.clone(), change_guard::refuse));
    let routes = Router::new()
        .route("/api/v1/cache/{ns}", get(list::list).delete(flush::flush))
        .route("/api/v1/cache/{ns}/stats", entry_named_stats())
        .route("/api/v1/cache/{ns}/mget", entry().post(batch::mget))
        .route("/api/v1/cache/{ns}/mset", entry().post(batch::mset))
        .route("/api/v1/cache/{ns}/mdelete", entry().post(batch::mdelete))
        .route("/api/v1/cache/{ns}/{key}", entry())
        .route("/api/v1/cache/{ns}/{key}/lease", delete(lease::release))
        .route("/api/v1/namespaces", get(namespaces::list))
        .route("/api/v1/namespaces/{ns}", policy())
        .route("/api/v1/namespaces/{ns}/audit", get(history::audit))
        .route("/api/v1/namespaces/{ns}/logs", get(history::logs))
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/api/v1/cluster", get(cluster::cluster))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(docs::page))
        .route("/docs/{file}", get(docs::file))
        .route_layer(change_guard)
        .with_state(app)
        .merge(more)
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::method_not_allowed);
    bounds.around(routes, ids)
}
