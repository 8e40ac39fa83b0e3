//! The dashboard: web pages for people. The binary contains everything that they need.
//!
//! The server renders whole pages (`maud`), with charts as SVG. A small script updates regions of a page, which
//! arrive as server-sent events ([`events`]). Without the script, everything works except these updates. The data
//! comes from `cache`, `fleet` and `trends`. Each source has a deadline: if a shard is down or hangs, the page is
//! still shown, and says what is missing. Flushes and deletions must be confirmed. A change that another site sent is
//! refused (`http::is_same_site` and [`form_token`]).

mod address;
mod asset;
mod audit;
mod chart;
mod condition;
mod confirmation;
mod done;
mod entry;
mod events;
mod facts;
mod fleet;
mod flush;
mod form_token;
mod job;
mod json;
mod latency;
mod listing;
mod namespace;
mod number;
mod overview;
mod page;
mod problem;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use self::done::{DeleteResult, FlushResult, Results};
use self::events::Feeds;
use self::facts::Facts;

use self::problem::Problem;
use crate::fleet::{FRESH, Fresh};
use crate::http::{Error, SharedApp, is_same_site};
use crate::trends::Trends;

/// The state that all pages share.
pub struct Dashboard {
    app: SharedApp,
    trends: Arc<Trends>,
    /// The runtime on which feeds run.
    runtime: Handle,
    latest: Fresh<Facts>,
    feeds: Feeds,
    flushes: Results<FlushResult>,
    deletions: Results<DeleteResult>,
    /// A permit for each open event stream.
    streams: Arc<Semaphore>,
}

type Shared = Arc<Dashboard>;

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
    let dashboard = Dashboard {
        trends: app.trends.clone(),
        app,
        runtime: Handle::current(),
        latest: Fresh::new(FRESH),
        feeds: Feeds::default(),
        flushes: Results::default(),
        deletions: Results::default(),
        streams: Arc::new(Semaphore::new(events::MOST_STREAMS)),
    };
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
        .route("/dashboard/assets/{name}", get(asset::get))
        // Addresses that people type from memory.
        .route("/", get(async || Redirect::temporary(address::OVERVIEW)))
        .route("/dashboard/", get(async || Redirect::temporary(address::OVERVIEW)))
        .route("/docs/", get(async || Redirect::temporary("/docs")))
        .route("/dashboard/{*rest}", get(no_such_page))
        .method_not_allowed_fallback(async || Problem::from(Error::MethodNotAllowed))
        .layer(guard)
        .with_state(Arc::new(dashboard))
}

async fn no_such_page() -> Problem {
    Error::NoSuchRoute.into()
}

/// Wraps every page: refuses changes that another site sent, and adds the security headers to each response. Event
/// streams that another site opens are refused as well, because the number of streams is limited.
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

/// The times to send events: after each step of the trends, or when a step is late.
struct Ticks(watch::Receiver<u64>);

impl Ticks {
    async fn next(&mut self) {
        // A step waits for the shards. If they do not answer, the pages must still be updated to show that.
        let late = Trends::STEP + Trends::STEP / 4;
        if let Ok(Err(_)) = timeout(late, self.0.changed()).await {
            // The sender is gone: the process is ending.
            sleep(late).await;
        }
    }
}

impl Dashboard {
    fn ticks(&self) -> Ticks {
        Ticks(self.trends.ticks())
    }

    /// How long a page waits for its main content. It is shorter than the request timeout, so that the page can say
    /// that the shards did not answer.
    fn time_of_a_request(&self) -> Duration {
        self.app.bounds.request_timeout() * 9 / 10
    }
}
