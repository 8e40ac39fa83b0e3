//! An HTTP client for the service: one request at a time, each with a request id and timeouts.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, Transport};

use super::failure::{Exit, Failure};
use super::tls;

/// Characters that are not percent-encoded in a path or a query. The dot is encoded, because the key `..` would mean
/// the parent folder.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// The largest response body that is read.
const MAX_BYTES: u64 = 1 << 30;

/// A service to call. A call fails if there is no response, or not a successful one.
pub struct Service {
    agent: Agent,
    /// The URL without a slash at its end.
    base: String,
    timeout: Duration,
    connected: Connected,
    /// The headers `traceparent` and `tracestate`, if the caller's environment has them.
    trace: Vec<(&'static str, String)>,
}

/// A successful response.
pub struct Answer {
    pub body: Vec<u8>,
    pub request_id: String,
    /// Whether the value is a stale copy, served because the entry's shard does not answer.
    pub is_stale: bool,
    /// Whether the work goes on as a job after the response (202).
    pub is_accepted: bool,
    /// The header `Cache-Lease`.
    pub lease: Option<String>,
    etag: Option<String>,
}

/// Whether the current request has a connection, including the TLS handshake. Without a connection, the request was
/// certainly not sent.
#[derive(Clone, Debug, Default)]
struct Connected(Arc<AtomicBool>);

impl<In: Transport> Connector<In> for Connected {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<In>, ureq::Error> {
        self.0.store(chained.is_some(), Relaxed);
        Ok(chained)
    }
}

/// The body of an error response. A server that is not sidecache may send none of these fields.
#[derive(Default, Deserialize)]
struct Problem {
    error: Option<String>,
    code: Option<String>,
    detail: Option<String>,
    deleted_count: Option<u64>,
    marked_count: Option<u64>,
}

impl Service {
    /// `origin` is the option or the variable that the URL comes from.
    ///
    /// # Errors
    /// The URL is invalid, or the trusted certificates cannot be read.
    pub fn new(url: &str, origin: &str, timeout: Duration) -> Result<Self, Failure> {
        let base = parse_url(url, origin)?;
        // Read the certificates only for https: this takes longer than most requests.
        let tls = if base.starts_with("https:") { tls::config()? } else { TlsConfig::default() };
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .no_delay(true)
            // Each request opens a connection: the server may be closing an idle one at the same moment.
            .max_idle_connections(0)
            .user_agent(concat!("sidecache/", env!("CARGO_PKG_VERSION")))
            // A timeout for each step: the step that failed decides whether a change may have happened.
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_send_request(Some(timeout))
            .timeout_send_body(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout))
            .build();
        let connected = Connected::default();
        let connector = DefaultConnector::new().chain(connected.clone());
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Self { agent, base, timeout, connected, trace: trace() })
    }

    /// The URL with user and password masked.
    pub fn url(&self) -> String {
        masked(&self.base)
    }

    /// Sends a GET.
    pub fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(&Method::GET, path, &[], Vec::new())
    }

    /// Sends a GET and parses the response.
    pub fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.get(path)?.parse(self)
    }

    /// Sends a request.
    pub fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let request_id = request_id();
        let may_change = may_change(method, path);
        self.connected.0.store(false, Relaxed);
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header("x-request-id", &request_id);
        for (name, value) in &self.trace {
            request = request.header(*name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match *method {
            Method::GET | Method::DELETE => {
                request.body(()).map_err(ureq::Error::from).and_then(|r| self.agent.run(r))
            }
            _ => request
                .header("content-type", "application/json")
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
        };
        let received = sent.and_then(|mut response| {
            let body = response.body_mut().with_config().limit(MAX_BYTES).read_to_vec()?;
            Ok((response, body))
        });
        let header = |response: &Response<_>, name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        match received {
            Ok((response, body)) if response.status().is_success() => {
                let (etag, lease) = (header(&response, "etag"), header(&response, "cache-lease"));
                // Warning 111, "Revalidation Failed": the server could not check its copy (RFC 7234, 5.5.2).
                let is_stale =
                    response.headers().get_all("warning").iter().any(|one| one.as_bytes().starts_with(b"111 "));
                let is_accepted = response.status() == StatusCode::ACCEPTED;
                Ok(Answer { body, request_id, is_stale, is_accepted, lease, etag })
            }
            Ok((response, body)) => {
                let failure = self.refused(response.status(), &body, may_change, &request_id);
                Err(failure.with_lease(header(&response, "cache-lease")))
            }
            Err(error) => Err(self.broken(&error, may_change, &request_id)),
        }
    }

    /// The failure for an error response.
    fn refused(&self, status: StatusCode, body: &[u8], may_change: bool, request_id: &str) -> Failure {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let Some(code) = problem.code else { return self.foreign(status, may_change).with_request(request_id) };
        let exit = match (&*code, status.as_u16()) {
            ("outcome_unknown", _) => Exit::Unknown,
            ("key_not_found" | "known_absent" | "not_in_memory" | "namespace_not_found" | "job_not_found", _) => {
                Exit::NotFound
            }
            (_, 400..500) => Exit::Refused,
            _ => Exit::Failed,
        };
        let mut text = problem.error.unwrap_or_else(|| status.to_string());
        if let Some(detail) = problem.detail.filter(|detail| *detail != text) {
            text = format!("{text}: {detail}");
        }
        if let Some(deleted) = problem.deleted_count {
            text = format!("{text}; entries deleted before the error: {deleted}");
        }
        if let Some(marked) = problem.marked_count {
            text = format!("{text}; entries marked as stale before the error: {marked}");
        }
        let without_path = self.without_path();
        let advice = match &*code {
            "shard_unavailable" => "`sidecache cluster` shows which shard does not answer",
            "overloaded" | "timeout" | "request_timeout" => "try again in a second",
            "outcome_unknown" => "check the current state before you repeat the command",
            "newer_version_exists" => "nothing was changed; load the present state from the source",
            "storage_full" => "`sidecache namespaces` shows quotas and the memory in use",
            "database_unavailable" => {
                "entries can be read and written without the database; see the service's /health"
            }
            "policies_unknown" => {
                "the instance has not been able to read the database since it started; see its /health"
            }
            "no_such_route" if without_path.is_some() => without_path.as_deref().unwrap_or_default(),
            "no_such_route" => "the service may be older than this program",
            _ => "",
        };
        if !advice.is_empty() {
            text = format!("{text}; {advice}");
        }
        Failure::new(exit, text).with_code(code).with_request(request_id)
    }

    /// The failure for an error response without a code, which is not from sidecache. Either a proxy sent it, perhaps
    /// after it had passed the request on, or the server is not a sidecache.
    fn foreign(&self, status: StatusCode, may_change: bool) -> Failure {
        let url = self.url();
        let (exit, advice) = match status.as_u16() {
            500.. if may_change => (
                Exit::Unknown,
                ": a proxy may have passed the change on; check the current state before you repeat the command",
            ),
            500.. => (Exit::Failed, "; is it a proxy that cannot reach the service?"),
            404 | ..400 => {
                let advice =
                    self.without_path().unwrap_or_else(|| "give the URL of the service with --url".to_owned());
                let text = format!("the server at {url} is not a sidecache: it answered {status}; {advice}");
                return Failure::new(Exit::Unreachable, text);
            }
            _ => (Exit::Refused, "; is there a proxy in between?"),
        };
        Failure::new(exit, format!("{url} answered {status} without an error code of sidecache{advice}"))
    }

    /// Advice for a URL with a path. Such a URL is right only if a proxy serves sidecache at that path.
    fn without_path(&self) -> Option<String> {
        let url = self.url();
        let (scheme, rest) = url.split_once("://")?;
        let (address, _) = rest.split_once('/')?;
        Some(format!("--url takes an address without a path; did you mean {scheme}://{address}?"))
    }

    /// The failure for a request without a complete response.
    fn broken(&self, error: &ureq::Error, may_change: bool, request_id: &str) -> Failure {
        let reason = match error {
            ureq::Error::Io(error) => reason(error),
            ureq::Error::Timeout(_) => format!("no answer within {}", humantime::format_duration(self.timeout)),
            ureq::Error::HostNotFound => "no such host".to_owned(),
            other => other.to_string(),
        };
        let url = self.url();
        if self.connected.0.load(Relaxed) {
            let (exit, advice) = match may_change {
                true => (
                    Exit::Unknown,
                    "the change may have happened: check the current state before you repeat the command",
                ),
                false => (Exit::Unreachable, "try again, or allow more time with --timeout"),
            };
            return Failure::new(exit, format!("{url} did not answer: {reason}; {advice}")).with_request(request_id);
        }
        let is_handshake = matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData);
        let text = match is_handshake {
            // rustls reports with this text that the server sent something other than TLS.
            _ if reason.contains("InvalidContentType") => {
                let plain = url.replacen("https://", "http://", 1);
                format!("the server does not speak TLS; did you mean {plain}?")
            }
            true => format!(
                "{reason}; an https service needs a certificate for this name, from a CA that this system trusts or \
                 that is in SSL_CERT_FILE"
            ),
            false => format!(
                "{reason}; is the service running? start it with `sidecache serve`, or give another URL with --url"
            ),
        };
        Failure::new(Exit::Unreachable, format!("cannot reach {url}: {text}"))
    }
}

impl Answer {
    /// Parses the body as JSON.
    ///
    /// # Errors
    /// The body is not what a sidecache sends.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self, service: &Service) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let text = format!("{} did not answer as a sidecache does ({error}); is --url right?", service.url());
            Failure::new(Exit::Unreachable, text).with_request(&self.request_id)
        })
    }

    /// The version of the entry, if the response has an `ETag`.
    pub fn version(&self) -> Option<u64> {
        self.etag.as_deref()?.trim_matches('"').parse().ok()
    }
}

/// Whether a request may change something. The path alone is not enough, because a key or a namespace may be named
/// `mget`.
fn may_change(method: &Method, path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match *method {
        Method::GET | Method::HEAD => false,
        Method::POST => !path.ends_with("/mget"),
        // A `&` inside a parameter's value is percent-encoded.
        Method::DELETE => !query.split('&').any(|parameter| parameter == "dry_run=true"),
        _ => true,
    }
}

/// Percent-encodes a part of a path or a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The path of an entry.
pub fn entry_path(namespace: &str, key: &str) -> String {
    format!("{}/{}", cache_path(namespace), encoded(key))
}

/// The path of a namespace's entries.
pub fn cache_path(namespace: &str) -> String {
    format!("/api/v1/cache/{}", encoded(namespace))
}

/// The path of a namespace's policy.
pub fn policy_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{}", encoded(namespace))
}

/// `path` with these query parameters.
pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn parse_url(url: &str, origin: &str) -> Result<String, Failure> {
    let base = url.trim().trim_end_matches('/');
    let Some((scheme, rest)) = base.split_once("://") else {
        let shown = masked(base);
        return Err(Failure::usage(format!(
            "{origin}: expected http://<host>:<port>, not {shown:?}; did you mean http://{shown}?"
        )));
    };
    let parsed = base.parse::<ureq::http::Uri>();
    let is_plain =
        !rest.contains(['?', '#']) && parsed.is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if !matches!(scheme, "http" | "https") || !is_plain {
        return Err(Failure::usage(format!("{origin}: expected http://<host>:<port> or https://<host>:<port>")));
    }
    Ok(base.to_owned())
}

/// The URL with `***` in place of user and password.
fn masked(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        (_, None) => url.to_owned(),
    }
}

/// The reason for an I/O error. The most common reasons are shown without the system's error number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => "the connection broke".to_owned(),
        _ => error.to_string(),
    }
}

/// A unique id for a request, made of the process id, the time and a counter.
fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("cli-{:x}-{started:x}-{}", process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Trace headers from the caller's environment variables `TRACEPARENT` and `TRACESTATE`
/// (<https://www.w3.org/TR/trace-context/>).
fn trace() -> Vec<(&'static str, String)> {
    let variable = |name: &str| {
        let value = std::env::var(name).ok()?.trim().to_owned();
        (!value.is_empty() && value.len() <= 512 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
            .then_some(value)
    };
    let Some(parent) = variable("TRACEPARENT") else { return Vec::new() };
    let state = variable("TRACESTATE").map(|state| ("tracestate", state));
    [("traceparent", parent)].into_iter().chain(state).collect()
}
