//! A name for every request: the client's own, or the instance's name and a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::http::{HeaderValue, Request};
use tower_http::request_id::{MakeRequestId, RequestId};

/// Numbers requests: unique within the instance, and the instance's name is unique by chance.
#[derive(Clone)]
pub struct Numbered {
    instance: Arc<str>,
    next: Arc<AtomicU64>,
}

impl Numbered {
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.into(), next: Arc::default() }
    }

    /// An id for what has none of its own.
    pub fn next(&self) -> String {
        format!("{}-{:x}", self.instance, self.next.fetch_add(1, Relaxed))
    }
}

impl MakeRequestId for Numbered {
    fn make_request_id<B>(&mut self, _request: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.next()).ok().map(RequestId::new)
    }
}
