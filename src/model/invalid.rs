//! What can be wrong with input, whatever protocol it came by.

/// Input that is not a word of the model; the text says exactly what was wrong.
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

/// `text` in quotes, escaped and cut to a length fit for an error message.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
