//! A caller, and an operation that was executed for it.

use std::net::IpAddr;
use std::time::Duration;

use super::context::TraceContext;
use crate::model::{Answer, Operation};

/// The longest request id that is kept, in bytes; longer ids are cut.
pub(super) const MAX_ID_BYTES: usize = 128;

/// A request and its client. Small enough to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    id: [u8; MAX_ID_BYTES],
    id_len: u8,
    /// The address of the client, if the connection has one.
    pub client: Option<IpAddr>,
    pub trace: Option<TraceContext>,
}

impl Caller {
    /// `request_id` and `traceparent` are the values of the headers. An invalid `traceparent` is not an error: a new
    /// trace begins here (W3C Trace Context, 4.3).
    pub fn new(request_id: &[u8], traceparent: Option<&[u8]>) -> Self {
        Self::within(request_id, traceparent.and_then(TraceContext::parse))
    }

    pub fn within(request_id: &[u8], trace: Option<TraceContext>) -> Self {
        let len = request_id.len().min(MAX_ID_BYTES);
        let mut id = [0; MAX_ID_BYTES];
        id[..len].copy_from_slice(&request_id[..len]);
        Self { id, id_len: len as u8, client: None, trace }
    }

    /// The same caller with the client's address.
    pub fn at(self, client: Option<IpAddr>) -> Self {
        Self { client, ..self }
    }

    /// Any bytes except control characters; tabs are allowed.
    pub fn request_id(&self) -> &[u8] {
        &self.id[..usize::from(self.id_len)]
    }
}

/// An operation that ended.
pub struct EndedOperation<'a> {
    pub namespace: &'a str,
    pub operation: Operation,
    pub answer: Answer,
    pub latency: Duration,
}
