//! A caller with its trace (W3C Trace Context, <https://www.w3.org/TR/trace-context/>: the header `traceparent`), and
//! an operation that was executed for it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

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

/// The trace of a request and the request's position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    /// The span that sent the request.
    pub parent_id: u64,
    pub flags: u8,
}

impl TraceContext {
    /// The flag for "the caller may have recorded its span".
    pub const SAMPLED: u8 = 1;

    /// Parses `00-<trace id>-<parent id>-<flags>` in lowercase hexadecimal digits; later versions may have more
    /// fields at the end. `None` for anything else, and for ids of only zeros.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let (head, rest) = text.split_at_checked(55)?;
        let mut fields = head.split('-');
        let (version, trace_id) = (digits(fields.next()?, 2)?, digits(fields.next()?, 32)?);
        let (parent_id, flags) = (digits(fields.next()?, 16)?, digits(fields.next()?, 2)?);
        let is_known = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let context = Self { trace_id, parent_id: parent_id as u64, flags: flags as u8 };
        (is_known && trace_id != 0 && parent_id != 0 && fields.next().is_none()).then_some(context)
    }

    pub fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

/// The trace's id, in the form that logs and collector use.
impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.trace_id)
    }
}

fn digits(text: &str, length: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_number = text.len() == length && text.bytes().all(is_digit);
    is_number.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let read = |text: String| TraceContext::parse(text.as_bytes());
        let context = read(format!("00-{IDS}-01")).unwrap();
        assert_eq!(context.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((context.parent_id, context.is_sampled()), (0xb7ad_6b71_6920_3331, true));
        assert!(!read(format!("00-{IDS}-00")).unwrap().is_sampled());
        assert!(read(format!("01-{IDS}-01-more")).is_some(), "a later version may have more");
        for wrong in [
            String::new(),
            format!("00-{IDS}-01-more"),
            format!("ff-{IDS}-01"),
            format!("00-{IDS}-1"),
            format!("00-{}-01", IDS.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)),
            format!("01-{IDS}-01more"),
            format!("00_{IDS}_01"),
            format!("+0-{IDS}-01"),
            "\u{fc}".repeat(40),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
