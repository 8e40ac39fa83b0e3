//! The header with the request id, and how the router's layers get an id for a request without one.

use axum::http::{HeaderName, HeaderValue, Request};
use tower_http::request_id::{MakeRequestId, RequestId};

use crate::net::RequestIds;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl MakeRequestId for RequestIds {
    fn make_request_id<B>(&mut self, _request: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.next()).ok().map(RequestId::new)
    }
}
