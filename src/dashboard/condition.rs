//! How the service is, in one word and in sentences: at the top of every page.

use maud::{Markup, html};

use crate::clock::unix_millis;
use crate::model::UnixMillis;
use crate::store::Finding;

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
    /// Names of the shards that do not answer, how many are refused, and how many there are.
    pub silent: &'s [String],
    pub refused: usize,
    pub shards: usize,
    pub is_database_connected: bool,
    pub are_policies_loaded: bool,
    /// What the instances disagree about, and the like.
    pub warnings: Vec<String>,
    /// What is wrong with shards.
    pub findings: &'s [Finding],
}

impl Condition {
    pub fn of(signs: Signs<'_>) -> Self {
        let Signs { silent, refused, shards, is_database_connected, are_policies_loaded, mut warnings, findings } =
            signs;
        let is_degraded = !warnings.is_empty() || findings.iter().any(Finding::degrades);
        let status = if silent.len() + refused == shards {
            Status::Unhealthy
        } else if silent.len() + refused > 0 || !is_database_connected || !are_policies_loaded || is_degraded {
            Status::Degraded
        } else {
            Status::Healthy
        };
        for name in silent {
            warnings.push(format!(
                "Shard {name} does not answer. Requests for its keys fail; numbers that need it are missing here."
            ));
        }
        warnings.extend(findings.iter().map(|finding| sentence(&finding.text)));
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

/// A finding as a sentence by itself.
fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}.", first.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Severity;

    fn condition(silent: &[&str], is_database_connected: bool, are_policies_loaded: bool) -> Condition {
        let silent: Vec<_> = silent.iter().map(|name| (*name).to_owned()).collect();
        let (warnings, findings) = (Vec::new(), &[]);
        Condition::of(Signs {
            silent: &silent,
            refused: 0,
            shards: 2,
            is_database_connected,
            are_policies_loaded,
            warnings,
            findings,
        })
    }

    #[test]
    fn the_word_is_that_of_health() {
        assert_eq!(condition(&[], true, true).status, Status::Healthy);
        assert_eq!(condition(&["a"], true, true).status, Status::Degraded);
        assert_eq!(condition(&[], false, true).status, Status::Degraded);
        assert_eq!(condition(&["a", "b"], true, true).status, Status::Unhealthy);
    }

    #[test]
    fn findings_are_said_and_those_that_break_a_promise_degrade() {
        let found = |severity| {
            let findings = [Finding::new("x", severity, "a", "is odd: mend it")];
            Condition::of(Signs {
                silent: &[],
                refused: usize::from(severity == Severity::Refused),
                shards: 1,
                is_database_connected: true,
                are_policies_loaded: true,
                warnings: Vec::new(),
                findings: &findings,
            })
        };
        assert_eq!(found(Severity::Warning).status, Status::Healthy);
        assert_eq!(found(Severity::Warning).warnings, ["Shard a is odd: mend it."]);
        assert_eq!(found(Severity::Degraded).status, Status::Degraded);
        assert_eq!(found(Severity::Refused).status, Status::Unhealthy);
    }

    #[test]
    fn what_is_missing_is_said() {
        let shown = condition(&["a"], false, true).notices().0;
        assert!(shown.contains("Shard a") && shown.contains("database"), "{shown}");
        assert!(condition(&[], false, false).notices().0.contains("policies"));
        assert!(!condition(&[], true, true).notices().0.contains("class=\"notice\""));
    }
}
