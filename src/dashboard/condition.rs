//! How the service is, in one word and in sentences: at the top of every page.

use maud::{Markup, html};

use crate::clock::unix_millis;
use crate::model::UnixMillis;

use super::number;

/// As `/health` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Healthy,
    /// Part of it is down.
    Degraded,
    /// No request can be served.
    Unhealthy,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The state of everything that this instance depends on.
#[derive(Clone, Debug)]
pub struct Condition {
    pub status: Status,
    /// What is wrong, for people.
    pub warnings: Vec<String>,
    pub at: UnixMillis,
}

/// What a condition is made from.
pub struct Signs<'s> {
    /// Names of the shards that do not answer, and how many there are.
    pub silent: &'s [String],
    pub shards: usize,
    pub is_database_connected: bool,
    pub are_policies_loaded: bool,
    /// What the instances disagree about, and the like.
    pub warnings: Vec<String>,
}

impl Condition {
    pub fn of(signs: Signs<'_>) -> Self {
        let Signs { silent, shards, is_database_connected, are_policies_loaded, mut warnings } = signs;
        let status = if silent.len() == shards {
            Status::Unhealthy
        } else if !silent.is_empty() || !is_database_connected || !are_policies_loaded || !warnings.is_empty() {
            Status::Degraded
        } else {
            Status::Healthy
        };
        for name in silent {
            warnings.push(format!(
                "Shard {name} does not answer. Requests for its keys fail; numbers that need it are missing here."
            ));
        }
        if !are_policies_loaded {
            warnings.push(
                "The policies could not be read from the database yet. Namespaces are not listed until they are."
                    .to_owned(),
            );
        } else if !is_database_connected {
            warnings.push(
                "The database does not answer. The cache goes on with the policies it knows; audit trail and access \
                 log cannot be shown."
                    .to_owned(),
            );
        }
        Self { status, warnings, at: unix_millis() }
    }

    /// The word.
    pub fn status(&self) -> Markup {
        let (word, text) = match self.status {
            Status::Healthy => ("healthy", "Healthy"),
            Status::Degraded => ("degraded", "Degraded"),
            Status::Unhealthy => ("unhealthy", "Unhealthy"),
        };
        debug_assert_eq!(word, self.status.as_str());
        html! {
            p.status #status role="status" data-status=(word) {
                // Not the state's own title: that is its name for who does not see it, and would change all the time.
                span title={ "As of " (number::date(self.at)) " UTC" } { (text) }
            }
        }
    }

    /// The sentences.
    pub fn notices(&self) -> Markup {
        html! {
            div.notices #notices role="region" aria-label="Warnings" aria-live="polite" {
                @for warning in &self.warnings {
                    p.notice { (warning) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(silent: &[&str], is_database_connected: bool, are_policies_loaded: bool) -> Condition {
        let silent: Vec<_> = silent.iter().map(|name| (*name).to_owned()).collect();
        let signs =
            Signs { silent: &silent, shards: 2, is_database_connected, are_policies_loaded, warnings: Vec::new() };
        Condition::of(signs)
    }

    #[test]
    fn the_word_is_that_of_health() {
        assert_eq!(condition(&[], true, true).status, Status::Healthy);
        assert_eq!(condition(&["a"], true, true).status, Status::Degraded);
        assert_eq!(condition(&[], false, true).status, Status::Degraded);
        assert_eq!(condition(&["a", "b"], true, true).status, Status::Unhealthy);
    }

    #[test]
    fn what_is_missing_is_said() {
        let shown = condition(&["a"], false, true).notices().0;
        assert!(shown.contains("Shard a") && shown.contains("database"), "{shown}");
        assert!(condition(&[], false, false).notices().0.contains("policies"));
        assert!(!condition(&[], true, true).notices().0.contains("class=\"notice\""));
    }
}
