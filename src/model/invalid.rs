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
