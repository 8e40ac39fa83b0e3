//! Errors as Redis clients see them: the only place where an error of the cache becomes an error reply.
//!
//! Clients decide by the first word. `OOM` has the words of Redis. `TRYAGAIN` means that nothing was done, so the
//! client may send the command again; several clients do that by themselves. All other errors are `ERR`.

use std::borrow::Cow;

use crate::cache;
use crate::model::Invalid;
use crate::store;

pub const SYNTAX: Failure = Failure(Cow::Borrowed("ERR syntax error"));
pub const NOT_AN_INTEGER: Failure = Failure(Cow::Borrowed("ERR value is not an integer or out of range"));
pub const NO_SUCH_KEY: Failure = Failure(Cow::Borrowed("ERR no such key"));
pub const TOO_LONG: Failure = Failure(Cow::Borrowed("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
pub const NO_MEMORY_FOR_REPLY: Failure =
    Failure(Cow::Borrowed("TRYAGAIN other answers use all the memory for answers"));

const OUT_OF_MEMORY: Failure = Failure(Cow::Borrowed("OOM command not allowed when used memory > 'maxmemory'."));

/// Why a command failed: the text of the error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub Cow<'static, str>);

/// The result of a command whose reply is already written.
pub type Answer = Result<(), Failure>;

impl Failure {
    /// An error of the kind `ERR`.
    pub fn err(text: impl AsRef<str>) -> Self {
        Self(format!("ERR {}", text.as_ref()).into())
    }
}

/// Bytes of a request for an error text: cut, and without what would break the line.
pub fn shown(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Self {
        Self::err(error.to_string())
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full { .. } | store::Error::QuotaUsedUp => OUT_OF_MEMORY,
            store::Error::Unavailable { .. }
            | store::Error::Overloaded { .. }
            | store::Error::MakingRoom { .. }
            | store::Error::RingMismatch => Self(format!("TRYAGAIN {error}").into()),
            error => Self::err(error.to_string()),
        }
    }
}

impl From<cache::Error> for Failure {
    fn from(error: cache::Error) -> Self {
        match error {
            cache::Error::Store(error) => error.into(),
            cache::Error::ValueTooLarge { .. } => TOO_LONG,
            cache::Error::NoRoom => NO_MEMORY_FOR_REPLY,
            cache::Error::Entry { error, .. } => (*error).into(),
            error @ (cache::Error::PoliciesUnknown | cache::Error::TooManyFlushes) => {
                Self(format!("TRYAGAIN {error}").into())
            }
            error => Self::err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_done_may_be_tried_again() {
        let (shard, reason) = ("a".to_owned(), "closed".to_owned());
        let text = |error: store::Error| Failure::from(cache::Error::from(error)).0.into_owned();
        assert!(text(store::Error::Overloaded { shard: shard.clone() }).starts_with("TRYAGAIN "));
        assert!(text(store::Error::Timeout { shard: shard.clone() }).starts_with("ERR "));
        assert!(text(store::Error::OutcomeUnknown { shard: shard.clone(), reason }).starts_with("ERR "));
        assert!(text(store::Error::Full { shard }).starts_with("OOM command not allowed"));
    }

    #[test]
    fn bytes_of_a_request_are_cut_and_stay_on_one_line() {
        assert_eq!(shown(b"a\r\nb\xffcd", 5), "a  b\u{fffd}");
    }
}
