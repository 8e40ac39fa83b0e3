//! The state of the service at the top of every page: one word, and warnings as sentences.

use maud::{Markup, html};

use crate::clock::unix_millis;
use crate::model::UnixMillis;
use crate::number;
use crate::store::Finding;

/// The status, as in `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Healthy,
    /// A part of the service does not work.
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
    /// The problems, as sentences for people.
    pub warnings: Vec<String>,
    pub at: UnixMillis,
}

/// The observations that a [`Condition`] is derived from.
pub struct Observations<'s> {
    /// The names of the shards that do not answer.
    pub silent: &'s [String],
    /// How many shards answer but cannot be used.
    pub refused: usize,
    /// How many shards there are.
    pub shards: usize,
    pub is_database_connected: bool,
    pub are_policies_loaded: bool,
    /// Warnings about the fleet, for instance that the instances disagree about the ring.
    pub warnings: Vec<String>,
    /// Problems found on shards.
    pub findings: &'s [Finding],
}

impl Condition {
    pub fn of(signs: Observations<'_>) -> Self {
        let Observations {
            silent,
            refused,
            shards,
            is_database_connected,
            are_policies_loaded,
            mut warnings,
            findings,
        } = signs;
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
                "Shard {name} does not answer. Requests for its keys fail, and numbers that need it are missing here."
            ));
        }
        warnings.extend(findings.iter().map(|finding| sentence(&finding.text)));
        if !are_policies_loaded {
            warnings.push(
                "The policies could not be read from the database yet. Until then, no namespaces are listed."
                    .to_owned(),
            );
        } else if !is_database_connected {
            warnings.push(
                "The database does not answer. The cache keeps working with the policies that it has read. The audit \
                 trail and the access log cannot be shown."
                    .to_owned(),
            );
        }
        Self { status, warnings, at: unix_millis() }
    }

    /// The status as one word.
    pub fn status(&self) -> Markup {
        let (word, text) = match self.status {
            Status::Healthy => ("healthy", "Healthy"),
            Status::Degraded => ("degraded", "Degraded"),
            Status::Unhealthy => ("unhealthy", "Unhealthy"),
        };
        debug_assert_eq!(word, self.status.as_str());
        html! {
            p.status #status role="status" data-status=(word) {
                // The title is not on the parent element: screen readers would use it as the name of the status,
                // although it changes all the time.
                span title={ "As of " (number::date(self.at)) " UTC" } { (text) }
            }
        }
    }

    /// The warnings as sentences.
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

/// Turns the text of a finding into a sentence, with a capital letter and a full stop.
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
        Condition::of(Observations {
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
    fn the_status_is_the_one_of_health() {
        assert_eq!(condition(&[], true, true).status, Status::Healthy);
        assert_eq!(condition(&["a"], true, true).status, Status::Degraded);
        assert_eq!(condition(&[], false, true).status, Status::Degraded);
        assert_eq!(condition(&["a", "b"], true, true).status, Status::Unhealthy);
    }

    #[test]
    fn findings_are_warnings_and_those_that_break_a_promise_degrade() {
        let found = |severity| {
            let findings = [Finding::new("x", severity, "a", "is odd: mend it")];
            Condition::of(Observations {
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
    fn the_warnings_name_what_is_missing() {
        let shown = condition(&["a"], false, true).notices().0;
        assert!(shown.contains("Shard a") && shown.contains("database"), "{shown}");
        assert!(condition(&[], false, false).notices().0.contains("policies"));
        assert!(!condition(&[], true, true).notices().0.contains("class=\"notice\""));
    }
}
