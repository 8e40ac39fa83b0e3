//! The data of a job, without clock, tasks or database.

use std::fmt;

use crate::audit::{Change, Outcome, Record};
use crate::model::{Invalid, Namespace, Origin, Pattern, Selection, Tag, UnixMillis};

/// The name of a job: the name of its instance and a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    const MAX_BYTES: usize = 64;

    pub(super) fn new(instance: &str, number: u64) -> Self {
        Self(format!("{instance}-{number:06x}"))
    }

    /// The id in `text`; `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = !text.is_empty()
            && text.len() <= Self::MAX_BYTES
            && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || byte.is_ascii_lowercase());
        is_id.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deletes entries.
    Flush,
    /// Ends the freshness of entries.
    MarkStale,
    /// Deletes all entries of a namespace, and then its policy.
    DeleteNamespace,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Flush, Self::MarkStale, Self::DeleteNamespace];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::MarkStale => "mark_stale",
            Self::DeleteNamespace => "delete_namespace",
        }
    }

    /// `None` for a kind that this release does not know.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A requested flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    pub kind: Kind,
    pub namespace: Namespace,
    pub selection: Selection,
    /// Who requested it, for the audit trail.
    pub origin: Origin,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs: an error code of the API, [`Failure::SILENT`] or [`Failure::STOPPED`].
    pub code: String,
    /// For people.
    pub error: String,
}

impl Failure {
    pub const SILENT: &str = "instance_lost";
    pub const STOPPED: &str = "instance_stopped";

    pub(super) fn silent() -> Self {
        Self { code: Self::SILENT.to_owned(), error: "The instance that ran the job stopped responding".to_owned() }
    }

    pub(super) fn stopped() -> Self {
        Self { code: Self::STOPPED.to_owned(), error: "The instance that ran the job was stopped".to_owned() }
    }

    pub(super) fn panicked() -> Self {
        Self { code: "internal".to_owned(), error: "Internal error".to_owned() }
    }
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Done,
    Failed(Failure),
    Cancelled,
}

impl State {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state from its columns; `None` if this release would not have written them.
    pub(super) fn from_columns(state: &str, error: Option<String>, code: Option<String>) -> Option<Self> {
        match (state, error, code) {
            ("running", None, None) => Some(Self::Running),
            ("done", None, None) => Some(Self::Done),
            ("failed", Some(error), Some(code)) => Some(Self::Failed(Failure { code, error })),
            ("cancelled", None, None) => Some(Self::Cancelled),
            _ => None,
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    pub fn is_running(&self) -> bool {
        *self == Self::Running
    }
}

/// A job at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: Id,
    pub flush: Flush,
    pub state: State,
    /// Entries deleted so far.
    pub done: u64,
    /// The expected number of deleted entries at the end; `None` while unknown.
    pub estimate: Option<u64>,
    pub started_at: UnixMillis,
    /// `None` while it runs.
    pub ended_at: Option<UnixMillis>,
}

impl Job {
    /// The outcome of an ended job for the audit trail.
    pub(super) fn outcome(&self) -> Outcome {
        match self.state {
            State::Done => Outcome::Complete { deleted: self.done },
            State::Running | State::Failed(_) | State::Cancelled => Outcome::Partial { deleted: self.done },
        }
    }

    /// The audit record of an ended job; `None` if the record of the deleted policy already covers it.
    pub(super) fn record(&self) -> Option<Record> {
        let Flush { kind, namespace, selection, origin } = &self.flush;
        if *kind == Kind::DeleteNamespace && self.state == State::Done {
            return None;
        }
        let is_mark = *kind == Kind::MarkStale;
        let change = Change::Flush { selection: selection.clone(), is_mark, outcome: self.outcome() };
        Some(Record::new(namespace, origin, change))
    }
}

/// The selection from its columns.
pub(super) fn selection_from(pattern: Option<String>, tag: Option<String>) -> Result<Selection, Invalid> {
    Ok(match (pattern, tag) {
        (Some(pattern), _) => Selection::Matching(Pattern::parse(pattern)?),
        (None, Some(tag)) => Selection::Tagged(Tag::parse(tag)?),
        (None, None) => Selection::All,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_digits_lower_case_letters_and_dashes() {
        let id = Id::new("0f31c8f1b2a49d77", 10);
        assert_eq!(id.as_str(), "0f31c8f1b2a49d77-00000a");
        assert_eq!(Id::parse(id.as_str()), Some(id));
        for text in ["", "a b", "A", "a/b", "\0", "ü", &"a".repeat(65)] {
            assert_eq!(Id::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn states_round_trip_and_strange_columns_are_refused() {
        for state in [State::Running, State::Done, State::Cancelled, State::Failed(Failure::silent())] {
            let (error, code) = state.failure().map(|failure| (failure.error.clone(), failure.code.clone())).unzip();
            assert_eq!(State::from_columns(state.as_str(), error, code), Some(state));
        }
        assert_eq!(State::from_columns("failed", None, None), None);
        assert_eq!(State::from_columns("paused", None, None), None);
    }

    #[test]
    fn selections_round_trip() {
        let tagged = Selection::Tagged(Tag::parse("a").unwrap());
        for selection in [Selection::All, Selection::Matching(Pattern::parse("a*").unwrap()), tagged] {
            let (pattern, tag) = selection.pattern_and_tag();
            assert_eq!(selection_from(pattern.map(str::to_owned), tag.map(str::to_owned)).unwrap(), selection);
        }
    }
}
