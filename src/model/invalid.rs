//! Errors in input, independent of the protocol.

/// Invalid input. The text says exactly what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("{0}")]
    Namespace(String),
    #[error("{0}")]
    Key(String),
    #[error("{0}")]
    Ttl(String),
    #[error("{0}")]
    Tag(String),
    #[error("{0}")]
    Pattern(String),
    #[error("{0}")]
    Policy(String),
    #[error("{0}")]
    Precondition(String),
    #[error("{0}")]
    Position(String),
}

/// Checks a `noun` of clients' text: 1 to `max_len` bytes without control characters. Returns what is wrong.
#[inline]
pub(super) fn check(noun: &str, text: &str, max_len: usize) -> Result<(), String> {
    let len = text.len();
    if len == 0 || len > max_len {
        return Err(format!("a {noun} must have 1 to {max_len} bytes, this one has {len}"));
    }
    // Nearly all keys are printable ASCII. One fast pass over the bytes checks that.
    let is_plain = text.bytes().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~'));
    if !is_plain && text.chars().any(char::is_control) {
        return Err(format!("a {noun} must not contain control characters: {}", quoted(text)));
    }
    Ok(())
}

/// `text` for an error message: in quotes, escaped, and cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
