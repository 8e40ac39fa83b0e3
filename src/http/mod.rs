//! HTTP: every route on one screen, and what stands around all of them.
//!
//! Handlers parse, ask the cache and write the answer; what a verb means is decided in `cache`.

mod answer;
mod batch;
mod body;
mod cluster;
mod entry;
mod error;
mod extract;
mod failure_log;
mod flush;
mod health;
mod history;
mod json;
mod list;
mod namespaces;
mod request_id;
mod server;
mod stats;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

use self::error::Error;
use crate::cache::Cache;
use crate::clock::Moment;
use crate::database::Database;
use crate::fleet::Fleet;
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::telemetry::DroppedLines;

/// What a client's bytes become before the cache is asked: for the fuzz targets, which have no server.
pub mod input {
    pub use super::batch::{mget_keys, mset_entries};
    pub use super::entry::set_body;
    pub use super::error::Error;
    pub use super::extract::{entry_key, selection_of};
    pub use super::json::{date_to_the_millisecond, parse_date};
}

pub use failure_log::FailureLog;
pub use server::{Server, bind};

/// What the handlers share.
pub struct App {
    pub cache: Arc<Cache>,
    pub fleet: Arc<Fleet>,
    pub l1: Arc<L1>,
    pub database: Arc<Database>,
    pub metrics: Arc<Metrics>,
    pub failures: FailureLog,
    pub dropped_log_lines: DroppedLines,
    pub started: Moment,
    /// Set when the process is asked to stop: no new work is wanted.
    pub draining: CancellationToken,
    pub request_timeout: Duration,
    pub max_body_bytes: usize,
}

/// Shared by all requests; cloned per request, so one pointer.
pub type SharedApp = Arc<App>;

/// Every route there is.
pub fn router(app: SharedApp, instance: &str) -> Router {
    let entry = || get(entry::get).put(entry::put).delete(entry::delete);
    let metrics = app.metrics.clone();
    Router::new()
        .route("/api/v1/cache/{ns}", get(list::list).delete(flush::flush))
        .route("/api/v1/cache/{ns}/stats", get(stats::stats).put(entry::put).delete(entry::delete))
        .route("/api/v1/cache/{ns}/mget", entry().post(batch::mget))
        .route("/api/v1/cache/{ns}/mset", entry().post(batch::mset))
        .route("/api/v1/cache/{ns}/{key}", entry())
        .route("/api/v1/namespaces", get(namespaces::list))
        .route("/api/v1/namespaces/{ns}", get(namespaces::get).put(namespaces::put).delete(namespaces::delete))
        .route("/api/v1/namespaces/{ns}/audit", get(history::audit))
        .route("/api/v1/namespaces/{ns}/logs", get(history::logs))
        .route("/api/v1/cluster", get(cluster::cluster))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(app.clone())
        .layer(
            ServiceBuilder::new()
                .layer(SetRequestIdLayer::x_request_id(request_id::Numbered::new(instance)))
                .layer(PropagateRequestIdLayer::x_request_id())
                .layer(CatchPanicLayer::custom(move |panic: Box<dyn Any + Send>| error::panicked(&*panic, &metrics)))
                .layer(from_fn_with_state(app, within_deadline))
                // The limit is that of `body::read`.
                .layer(DefaultBodyLimit::disable()),
        )
}

/// Answers within the deadline, whatever happens below; the body is read here, so that its time
/// counts and an early refusal leaves nothing unread on the connection.
async fn within_deadline(State(app): State<SharedApp>, request: Request, next: Next) -> Response {
    let deadline = Instant::now() + app.request_timeout;
    let request_id = request.headers().get(X_REQUEST_ID).cloned();
    let may_write = may_write(request.method(), request.uri().path());
    let read = timeout_at(deadline, body::read(request, app.max_body_bytes));
    let response = match read.await.unwrap_or(Err(Error::SlowBody)) {
        Err(error) => error.into_response(),
        Ok(request) => timeout_at(deadline, next.run(request))
            .await
            .unwrap_or_else(|_| Error::DeadlineExceeded { may_write }.into_response()),
    };
    app.failures.note(&response, request_id.as_ref());
    response
}

/// Whether a request may change something: all but reads, of which mget is a POST. A key may be
/// named `mget` as well, so the path alone does not tell.
fn may_write(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => false,
        Method::POST => !path.ends_with("/mget"),
        _ => true,
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_write_of_the_key_mget_may_write() {
        // A PUT of the key `mget` that met the deadline was answered with `timeout`, as a read.
        let path = "/api/v1/cache/users/mget";
        for (method, expected) in [(Method::PUT, true), (Method::DELETE, true), (Method::POST, false)] {
            assert_eq!(may_write(&method, path), expected, "{method}");
        }
        assert!(may_write(&Method::POST, "/api/v1/cache/users/mset"));
        assert!(!may_write(&Method::GET, "/api/v1/cache/users/k"));
    }
}
