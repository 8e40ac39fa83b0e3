//! The layers around every request: the request id, panic handling, the host check, the deadline, and the limits on
//! the memory for bodies and responses.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Body as _;
use metrics::Counter;
use tokio::time::{Instant, timeout_at};
use tower::ServiceBuilder;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

use super::body::{self, BodyLimit};
use super::error::{Code, Error};
use super::extract::{Peer, is_dry_run};
use super::failure_log::FailureLog;
use super::hosts::Hosts;
use super::memory::{COUNTED_FROM, ResponseMemory};
use super::request_id::X_REQUEST_ID;
use crate::config::{HttpConfig, Limits};
use crate::metrics::Metrics;
use crate::net::{Budget, RequestIds, record_panic};
use crate::trace::{self, Caller};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

const CACHE_PREFIX: &str = "/api/v1/cache/";

/// The latest moment at which a flush must be answered. A flush that has not ended by then becomes a job.
#[derive(Clone, Copy, Debug)]
pub struct JobDeadline(pub Instant);

/// The bounds of all requests, and the counters and the log of failed requests.
pub struct Bounds {
    request_timeout: Duration,
    max_body_bytes: usize,
    value_bytes: usize,
    hosts: Arc<Hosts>,
    /// The `Keep-Alive` header, which tells clients how long a connection stays open without a request. `None` if the
    /// idle timeout is less than a second.
    pub keep_alive: Option<HeaderValue>,
    /// The memory for all bodies together.
    pub bodies: Arc<Budget>,
    /// The memory for all large responses together.
    pub answers: Arc<Budget>,
    failures: FailureLog,
    /// One counter per code, in the order of [`Code::ALL`].
    errors: Vec<Counter>,
    metrics: Arc<Metrics>,
}

impl Bounds {
    pub fn new(config: &HttpConfig, limits: &Limits, hosts: Arc<Hosts>, metrics: Arc<Metrics>) -> Self {
        let idle_seconds = Some(config.idle_timeout.as_secs()).filter(|seconds| *seconds > 0);
        Self {
            request_timeout: config.request_timeout,
            max_body_bytes: config.max_body_bytes,
            value_bytes: limits.value_bytes,
            hosts,
            keep_alive: idle_seconds.map(|seconds| {
                HeaderValue::try_from(format!("timeout={seconds}"))
                    .expect("a word and a number are a valid header value")
            }),
            bodies: Arc::new(Budget::new(config.max_bodies_bytes)),
            answers: Arc::new(Budget::new(config.max_answers_bytes)),
            failures: FailureLog::default(),
            errors: error_counts(&metrics),
            metrics,
        }
    }

    /// The size limit for the body of a PUT of an entry.
    pub fn put_limit(&self) -> BodyLimit {
        BodyLimit::of_entry(self.max_body_bytes, self.value_bytes)
    }

    /// The size limit for the body of a request.
    fn body_limit(&self, method: &Method, uri: &Uri) -> BodyLimit {
        match *method {
            Method::PUT if uri.path().starts_with(CACHE_PREFIX) => self.put_limit(),
            Method::POST if uri.path().starts_with(CACHE_PREFIX) => BodyLimit::of_batch(self.max_body_bytes),
            _ => BodyLimit::of_small(self.max_body_bytes),
        }
    }

    /// How long a request may wait for something before it is answered.
    pub fn longest_wait(&self) -> Duration {
        self.request_timeout * 8 / 10
    }

    /// The deadline of a request, as a duration.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The memory of a new response, which holds nothing yet.
    pub fn room(&self) -> ResponseMemory {
        ResponseMemory::of(&self.answers, &self.metrics)
    }

    /// If the response is large, makes it hold its memory until it has been sent. Uses the [`ResponseMemory`] in the
    /// extensions of the response, if there is one.
    ///
    /// # Errors
    /// There is not enough memory left.
    fn held(&self, mut response: Response) -> Result<Response, Error> {
        let size = response.body().size_hint().exact().map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
        let room = response.extensions_mut().remove::<ResponseMemory>();
        if size < COUNTED_FROM {
            return Ok(response);
        }
        let room = room.unwrap_or_else(|| self.room());
        if room.admits_in_all(size) { Ok(response.map(|body| room.hold(body))) } else { Err(Error::TooManyAnswers) }
    }

    /// For a flush that arrives now: the latest moment to answer it, with its result or with a job. It is earlier
    /// than the deadline, because at the deadline the client gets only a timeout.
    pub fn last_moment(&self) -> Instant {
        Instant::now() + self.request_timeout * 9 / 10
    }

    /// Runs `work` for this caller. A panic is an error of this request only.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Panic`].
    pub async fn run<T>(&self, caller: Caller, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let ended = trace::scope(caller, AssertUnwindSafe(work).catch_unwind()).await;
        ended.unwrap_or_else(|panic| Err(self.panicked(&*panic)))
    }

    /// Logs and counts the panic of a request, and returns the error for its client.
    pub fn panicked(&self, panic: &(dyn Any + Send)) -> Error {
        record_panic(panic, &self.metrics);
        Error::Panic
    }

    /// The response to a request that failed. Counts and logs the error.
    pub fn failed(&self, error: Error, caller: &Caller) -> Response {
        if matches!(error, Error::TooManyBodies) {
            self.metrics.bodies_refused.increment(1);
        }
        let response = error.into_response();
        self.record(&response, caller);
        response
    }

    /// Counts the error in `response`, if there is one, and logs it if the client did not cause it.
    fn record(&self, response: &Response, caller: &Caller) {
        if let Some(code) = response.extensions().get::<Code>() {
            self.errors[*code as usize].increment(1);
        }
        self.failures.log(response, caller);
    }

    /// Adds the bounds to these routes. The request id is the outermost layer, so that every response has one, even
    /// after a panic.
    pub fn around(self: &Arc<Self>, routes: Router, ids: RequestIds) -> Router {
        routes.layer(
            ServiceBuilder::new()
                .layer(SetRequestIdLayer::x_request_id(ids))
                .layer(PropagateRequestIdLayer::x_request_id())
                .layer(from_fn_with_state(self.clone(), within))
                // `body::read` applies the limit.
                .layer(DefaultBodyLimit::disable()),
        )
    }
}

/// Answers within the deadline, whatever the handler does. The body is read here, so that the deadline covers it and
/// a refused request leaves no unread bytes on the connection.
async fn within(State(bounds): State<Arc<Bounds>>, mut request: Request, next: Next) -> Response {
    if request.method() == Method::DELETE {
        // For flushes. Computed before the body is read, so that a slow body does not extend the time.
        request.extensions_mut().insert(JobDeadline(bounds.last_moment()));
    }
    let deadline = Instant::now() + bounds.request_timeout;
    let stays = request.version() == Version::HTTP_11 && is_kept(request.headers());
    let limit = bounds.body_limit(request.method(), request.uri());
    let client = request.extensions().get::<Peer>().map(|Peer(address)| *address);
    let caller = caller(request.headers()).at(client);
    let may_write = may_write(request.method(), request.uri());
    let work = async {
        // Held until the end of the request.
        let share = bounds.bodies.share();
        let read = async {
            match bounds.hosts.check(&request) {
                Ok(()) => body::read(request, limit, &share).await,
                Err(error) => Err(body::refuse(request, error).await),
            }
        };
        let request = timeout_at(deadline, read).await.unwrap_or(Err(Error::SlowBody))?;
        let ended = timeout_at(deadline, next.run(request)).await;
        let response = ended.map_err(|_| Error::DeadlineExceeded { may_write })?;
        // The response of a write is never replaced by an error, because the write has happened. It is small.
        if may_write { Ok(response) } else { bounds.held(response) }
    };
    let mut response = match bounds.run(caller, work).await {
        Ok(response) => {
            bounds.record(&response, &caller);
            response
        }
        Err(error) => bounds.failed(error, &caller),
    };
    if let Some(hint) = bounds.keep_alive.as_ref().filter(|_| stays) {
        response.headers_mut().insert(KEEP_ALIVE, hint.clone());
    }
    response
}

/// Whether a client that speaks HTTP/1.1 wants to keep its connection.
fn is_kept(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

/// One counter per code.
fn error_counts(metrics: &Metrics) -> Vec<Counter> {
    metrics.errors(Code::ALL.iter().map(|code| (code.as_str(), code.status().as_u16())))
}

/// The caller, from the headers of a request.
fn caller(headers: &HeaderMap) -> Caller {
    let request_id = headers.get(X_REQUEST_ID).map_or(b"".as_slice(), HeaderValue::as_bytes);
    // Several `traceparent` headers are ignored: it is not clear which one is right.
    let mut traceparents = headers.get_all(TRACEPARENT).iter();
    let traceparent = traceparents.next().filter(|_| traceparents.next().is_none());
    Caller::new(request_id, traceparent.map(HeaderValue::as_bytes))
}

/// Whether a request may change something. An mget is a POST and a dry run is a DELETE, but both only read. The path
/// alone is not enough, because `mget` is also a valid key.
fn may_write(method: &Method, uri: &Uri) -> bool {
    match *method {
        Method::GET | Method::HEAD => false,
        Method::POST => !uri.path().ends_with("/mget"),
        Method::DELETE => !is_dry_run(uri.query()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::hosts::hosts_of_listener;
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::Service as _;

    #[test]
    fn regression_a_write_of_the_key_mget_may_write() {
        // A PUT of the key `mget` that exceeded its deadline was answered with `timeout`, like a read.
        let is_write = |method: Method, uri: &'static str| may_write(&method, &Uri::from_static(uri));
        let uri = "/api/v1/cache/users/mget";
        for (method, expected) in
            [(Method::PUT, true), (Method::PATCH, true), (Method::DELETE, true), (Method::POST, false)]
        {
            assert_eq!(is_write(method.clone(), uri), expected, "{method}");
        }
        assert!(is_write(Method::POST, "/api/v1/cache/users/mset"));
        assert!(!is_write(Method::GET, "/api/v1/cache/users/k"));
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let is_write = |uri: &'static str| may_write(&Method::DELETE, &Uri::from_static(uri));
        assert!(!is_write("/api/v1/cache/users?dry_run=true"));
        assert!(!is_write("/api/v1/cache/users?pattern=a*&dry_run=true"));
        assert!(is_write("/api/v1/cache/users?dry_run=false"));
        assert!(!is_write("/api/v1/cache/users?dry%5Frun=tr%75e"), "the handler reads it as a dry run");
        assert!(is_write("/api/v1/cache/users?pattern=dry_run=true"));
        assert!(is_write("/api/v1/cache/users"));
    }

    fn bounds(metrics: &Arc<Metrics>) -> Arc<Bounds> {
        Arc::new(Bounds {
            request_timeout: Duration::from_millis(200),
            max_body_bytes: 100,
            value_bytes: 100,
            hosts: Arc::new(hosts_of_listener("127.0.0.1".parse().unwrap())),
            keep_alive: None,
            bodies: Arc::new(Budget::new(50)),
            answers: Arc::new(Budget::new(40_000)),
            failures: FailureLog::default(),
            errors: error_counts(metrics),
            metrics: metrics.clone(),
        })
    }

    /// Returns the status, the request id, and the body as text.
    async fn ask(router: &mut Router, path: &str, body: Body) -> (u16, String, String) {
        let request = Request::builder().uri(path).header("host", "localhost").body(body).unwrap();
        let answer = router.call(request).await.unwrap();
        let (status, id) = (answer.status().as_u16(), answer.headers().get(X_REQUEST_ID).cloned());
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let id = id.map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
        (status, id, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn panics_at_once() -> &'static str {
        panic!("at once")
    }

    async fn panics_later() -> &'static str {
        tokio::time::sleep(Duration::from_millis(1)).await;
        panic!("later")
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_a_request_id_and_holds_no_memory() {
        let metrics = Arc::new(Metrics::default());
        let bounds = bounds(&metrics);
        let routes = Router::new().route("/once", get(panics_at_once)).route("/later", get(panics_later));
        let mut router = bounds.around(routes.route("/fine", get(async || "fine")), RequestIds::new("test"));
        for path in ["/once", "/later"] {
            let (status, id, body) = ask(&mut router, path, Body::from("12345")).await;
            assert_eq!((status, body.contains(r#""code":"internal""#)), (500, true), "{body}");
            assert!(id.starts_with("test-"), "{id:?}");
            assert_eq!(bounds.bodies.used(), 0);
        }
        // The body itself can panic while it is read.
        let body = futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Vec<u8>, std::io::Error>>> {
            panic!("in the body")
        });
        assert_eq!(ask(&mut router, "/fine", Body::from_stream(body)).await.0, 500);
        assert!(metrics.render().contains("sidecache_panics_total 3"), "{}", metrics.render());
        assert_eq!(ask(&mut router, "/fine", Body::empty()).await.2, "fine");
    }

    #[tokio::test]
    async fn bodies_beyond_the_budget_are_a_503_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let bounds = bounds(&metrics);
        let mut router = bounds.around(Router::new().route("/fine", get(async || "fine")), RequestIds::new("test"));
        assert_eq!(ask(&mut router, "/fine", Body::from("x".repeat(50))).await.0, 200);
        let (status, _, body) = ask(&mut router, "/fine", Body::from("x".repeat(51))).await;
        assert_eq!((status, body.contains(r#""code":"overloaded""#)), (503, true), "{body}");
        assert_eq!(ask(&mut router, "/fine", Body::from("x".repeat(101))).await.0, 413);
        assert!(metrics.render().contains("sidecache_http_bodies_refused_total 1"), "{}", metrics.render());
        assert_eq!(bounds.bodies.used(), 0);
    }

    #[tokio::test]
    async fn answers_beyond_the_budget_are_a_503_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let bounds = bounds(&metrics);
        let routes = Router::new()
            .route("/large", get(async || "x".repeat(30_000)))
            .route("/larger", get(async || "x".repeat(40_001)))
            .route("/small", get(async || "x".repeat(COUNTED_FROM - 1)));
        let mut router = bounds.around(routes, RequestIds::new("test"));
        assert_eq!(ask(&mut router, "/large", Body::empty()).await.2.len(), 30_000);
        assert_eq!(bounds.answers.used(), 0);
        let unread = router
            .call(Request::builder().uri("/large").header("host", "localhost").body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(bounds.answers.used(), 30_000);
        for path in ["/large", "/larger"] {
            let (status, _, body) = ask(&mut router, path, Body::empty()).await;
            assert_eq!((status, body.contains(r#""code":"overloaded""#)), (503, true), "{body}");
        }
        assert_eq!(ask(&mut router, "/small", Body::empty()).await.0, 200);
        drop(unread);
        assert_eq!((ask(&mut router, "/large", Body::empty()).await.0, bounds.answers.used()), (200, 0));
        assert!(metrics.render().contains("sidecache_http_answers_refused_total 2"), "{}", metrics.render());
    }

    #[tokio::test]
    async fn a_request_that_exceeds_its_deadline_holds_no_memory() {
        let metrics = Arc::new(Metrics::default());
        let bounds = bounds(&metrics);
        let routes = Router::new().route("/never", get(std::future::pending::<&'static str>));
        let mut router = bounds.around(routes, RequestIds::new("test"));
        let (status, _, body) = ask(&mut router, "/never", Body::from("12345")).await;
        assert_eq!((status, body.contains(r#""code":"timeout""#)), (503, true), "{body}");
        assert_eq!(bounds.bodies.used(), 0);
    }
}
