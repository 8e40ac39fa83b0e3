//! Leases: of all programs that miss a key, one gets a lease, loads the value from its source and stores it.
//!
//! Every change of the key ends its lease, so a value that was loaded before a change is not stored after it.

use std::time::Duration;

use super::entry::Version;
use super::key::EntryKey;
use super::part::Part;

/// The right to store the value of one key. Cannot be guessed: 128 random bits, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseToken(String);

impl LeaseToken {
    /// The length of the text.
    pub const LEN: usize = 32;

    pub fn from_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// Parses a token as a client sends it, with or without quotes. `None` if no service can have issued it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let is_token = text.len() == Self::LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_token.then(|| Self(text.to_owned()))
    }

    /// A token that stands for text that no service can have issued.
    pub fn never_given() -> Self {
        Self::from_bits(0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key, and the lease that a read asks for on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedLease {
    pub key: EntryKey,
    pub token: LeaseToken,
    /// An entry of this version counts as missing: the reader knows it, and it does not meet the reader's terms.
    pub beyond: Option<Version>,
    /// The part of its TTL after which an entry should be refreshed, so that the lease is given although it is there;
    /// `None`: never.
    pub refresh_after: Option<Part>,
}

/// What a read that asks for a lease wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// How long the lease lasts.
    pub lease: Duration,
    /// How long to wait for the value if another caller has the lease.
    pub wait: Duration,
}

impl LeaseRequest {
    /// The shortest and the longest lease.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    pub const LONGEST: Duration = Duration::from_secs(60);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_32_hexadecimal_digits() {
        let token = LeaseToken::from_bits(0x2a);
        assert_eq!(token.as_str(), "0000000000000000000000000000002a");
        assert_eq!(LeaseToken::parse(token.as_str()), Some(token.clone()));
        assert_eq!(LeaseToken::parse(&format!(" \"{}\" ", token.as_str())), Some(token));
        for text in ["", "2a", "\"2a\"", "0000000000000000000000000000002A", "0000000000000000000000000000002 "] {
            assert_eq!(LeaseToken::parse(text), None, "{text}");
        }
    }
}
