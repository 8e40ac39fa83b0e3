//! A name for every request: the client's own, or the instance's name and a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::http::{HeaderValue, Request};
use tower_http::request_id::{MakeRequestId, RequestId};

use crate::workers::PerWorker;

/// Numbers requests: unique within the instance, and the instance's name is unique by chance.
#[derive(Clone)]
pub struct Numbered {
    instance: Arc<str>,
    /// Each worker has numbers of its own, so that none waits for another's.
    next: Arc<PerWorker<AtomicU64>>,
}

impl Numbered {
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.into(), next: Arc::default() }
    }

    /// An id for what has none of its own.
    pub fn next(&self) -> String {
        let (number, parts) = (self.next.own().fetch_add(1, Relaxed), PerWorker::<AtomicU64>::PARTS as u64);
        format!("{}-{:x}", self.instance, number * parts + self.next.own_index() as u64)
    }
}

impl MakeRequestId for Numbered {
    fn make_request_id<B>(&mut self, _request: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.next()).ok().map(RequestId::new)
    }
}
