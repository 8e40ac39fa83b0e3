//! A namespace: an isolated key space with its own policy.

use std::fmt;
use std::sync::Arc;

use super::invalid::{Invalid, quoted};

/// The name of a namespace: `[A-Za-z0-9_.-]{1,100}`, but neither `.` nor `..`, which clients and proxies resolve as
/// path segments. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// The bytes that are allowed in a name. A table, because every request checks its namespace.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0u8;
    loop {
        allowed[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if byte == u8::MAX {
            break allowed;
        }
        byte += 1;
    }
};

impl Namespace {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 100;

    /// # Errors
    /// [`Invalid::Namespace`] if the name is empty, too long, `.` or `..`, or contains another character.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// The check of [`Namespace::parse`], for callers that store the name elsewhere.
    pub(super) fn check(name: &str) -> Result<(), Invalid> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(Invalid::Namespace(format!(
                "a namespace must have 1 to {} characters, this one has {}",
                Self::MAX_LEN,
                name.chars().count()
            )));
        }
        if !name.bytes().all(|byte| ALLOWED[usize::from(byte)]) {
            return Err(Invalid::Namespace(format!(
                "a namespace may only contain A-Z, a-z, 0-9, `_`, `.` and `-`, not {}",
                quoted(name)
            )));
        }
        if matches!(name, "." | "..") {
            return Err(Invalid::Namespace(format!("a namespace cannot be called {}", quoted(name))));
        }
        Ok(())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_allowed_characters_and_length_parse() {
        for name in ["a", "users", "A.b_c-9", "...", "a..b", ".a", &"x".repeat(100)] {
            assert!(Namespace::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        for name in ["", &"x".repeat(101), "a:b", "a b", "ä", "a/b", "*", ".", ".."] {
            assert!(matches!(Namespace::parse(name), Err(Invalid::Namespace(_))), "{name}");
        }
    }
}
