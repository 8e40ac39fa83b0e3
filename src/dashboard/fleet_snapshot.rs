//! The state of the whole fleet, as the pages show it. It is gathered at most once per [`crate::fleet::FRESH`],
//! however many pages need it. The top of every page shows the condition of the service: one word, and warnings as
//! sentences.
//!
//! If the shards do not answer in time, the snapshot has no instances, and the state of the shards is unknown.

use std::time::Duration;

use maud::{Markup, html};
use tokio::time::timeout;

use crate::clock::unix_millis;
use crate::fleet::{Instance, ShardView};
use crate::http::App;
use crate::model::UnixMillis;
use crate::number;
use crate::store::Finding;

/// How long a page waits for a source. The deadline of a shard operation is usually shorter.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// The state of the fleet at one moment.
pub struct FleetSnapshot {
    pub condition: Condition,
    pub shards: Vec<Shard>,
    /// `None` if the shards did not answer in time.
    pub instances: Option<Vec<Instance>>,
    /// The setting `max_staleness_ms`: how old a shard's watermark may be. `None` if L1 is not used.
    pub max_staleness: Option<Duration>,
}

impl FleetSnapshot {
    pub async fn gather(app: &App) -> Self {
        let cluster = timeout(PATIENCE, app.fleet.cluster()).await.ok();
        let warnings = cluster.as_ref().map(|cluster| cluster.agreement.warnings()).unwrap_or_else(|| {
            let mut warnings = app.fleet.agreement().warnings();
            // One shard that hangs may have delayed the others' answers, so no shard is reported as down.
            warnings.push("Not all shards answered in time. It is not known yet which ones did not.".to_owned());
            warnings
        });
        let shards: Vec<Shard> = match &cluster {
            Some(cluster) => cluster.shards.iter().cloned().map(Shard::from).collect(),
            None => {
                let address = |name: &str| app.fleet.shard_address(name).map(str::to_owned);
                let unknown = |name: &String| Shard { name: name.clone(), address: address(name), view: None };
                app.cache.shard_names().iter().map(unknown).collect()
            }
        };
        let (is_connected, are_loaded) = (app.database.is_connected(), app.cache.are_policies_loaded());
        let condition = Condition::of(&shards, is_connected, are_loaded, warnings);
        let instances = cluster.map(|cluster| cluster.instances.clone());
        Self { condition, shards, instances, max_staleness: app.fleet.max_staleness() }
    }
}

/// A shard.
pub struct Shard {
    pub name: String,
    /// Its URL without credentials; `None` for the embedded store.
    pub address: Option<String>,
    /// `None` if the shards did not answer in time.
    pub view: Option<ShardView>,
}

impl From<ShardView> for Shard {
    fn from(view: ShardView) -> Self {
        Self { name: view.survey.health.name.clone(), address: view.address.clone(), view: Some(view) }
    }
}

impl Shard {
    /// The state in one word.
    pub fn state(&self) -> &'static str {
        match self.view.as_ref().map(|view| &view.survey.health) {
            None => "unknown",
            Some(health) if health.reachable => CONNECTED,
            // It answers, but it cannot be used.
            Some(health) if health.is_refused() => "refused",
            Some(_) => DISCONNECTED,
        }
    }
}

pub const CONNECTED: &str = "connected";
const DISCONNECTED: &str = "disconnected";

/// The condition of the service.
pub struct Condition {
    /// In one word, as in `/health`: `healthy`, `degraded` if a part does not work, and `unhealthy` if no request can
    /// be served.
    status: &'static str,
    /// The problems, as sentences for people.
    warnings: Vec<String>,
    at: UnixMillis,
}

impl Condition {
    /// `warnings` are about the fleet, for instance that the instances disagree about the ring.
    fn of(
        shards: &[Shard],
        is_database_connected: bool,
        are_policies_loaded: bool,
        mut warnings: Vec<String>,
    ) -> Self {
        let views = || shards.iter().filter_map(|shard| shard.view.as_ref());
        let findings = || views().flat_map(|view| &view.survey.health.findings);
        let is_degraded = !warnings.is_empty() || findings().any(Finding::degrades);
        let unusable = views().filter(|view| !view.survey.health.reachable).count();
        let status = if unusable == shards.len() {
            "unhealthy"
        } else if unusable > 0 || !is_database_connected || !are_policies_loaded || is_degraded {
            "degraded"
        } else {
            "healthy"
        };
        for Shard { name, .. } in shards.iter().filter(|shard| shard.state() == DISCONNECTED) {
            warnings.push(format!(
                "Shard {name} does not answer. Requests for its keys fail, and numbers that need it are missing here."
            ));
        }
        warnings.extend(findings().map(|finding| format!("{}.", capitalized(&finding.text))));
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
        html! {
            p.status #status role="status" data-status=(self.status) {
                // The title is not on the parent element: screen readers would use it as the name of the status,
                // although it changes all the time.
                span title={ "As of " (number::date(self.at)) " UTC" } { (capitalized(self.status)) }
            }
        }
    }

    /// The warnings as sentences.
    pub fn notices(&self) -> Markup {
        html! {
            div.notices #notices role="region" aria-label="Warnings" aria-live="polite" {
                @for warning in &self.warnings { p.notice { (warning) } }
            }
        }
    }
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Finding, Severity, ShardHealth, Survey};

    fn shard(name: &str, reachable: bool, findings: Vec<Finding>) -> Shard {
        let health = ShardHealth { name: name.to_owned(), reachable, used_bytes: 0, limit_bytes: 0, findings };
        let survey = Survey { health, role: None, keys: None };
        Shard::from(ShardView { survey, address: None, ring_share: 1.0, watermark_age: None })
    }

    fn condition(silent: &[&str], is_database_connected: bool, are_policies_loaded: bool) -> Condition {
        let shards = ["a", "b"].map(|name| shard(name, !silent.contains(&name), Vec::new()));
        Condition::of(&shards, is_database_connected, are_policies_loaded, Vec::new())
    }

    #[test]
    fn the_status_is_the_one_of_health() {
        assert_eq!(condition(&[], true, true).status, "healthy");
        assert_eq!(condition(&["a"], true, true).status, "degraded");
        assert_eq!(condition(&[], false, true).status, "degraded");
        assert_eq!(condition(&["a", "b"], true, true).status, "unhealthy");
    }

    #[test]
    fn findings_are_warnings_and_those_that_break_a_promise_degrade() {
        let found = |severity| {
            let finding = Finding::new("x", severity, "a", "is odd: mend it");
            Condition::of(&[shard("a", severity != Severity::Refused, vec![finding])], true, true, Vec::new())
        };
        assert_eq!(found(Severity::Warning).status, "healthy");
        assert_eq!(found(Severity::Warning).warnings, ["Shard a is odd: mend it."]);
        assert_eq!(found(Severity::Degraded).status, "degraded");
        assert_eq!(found(Severity::Refused).status, "unhealthy");
    }

    #[test]
    fn the_warnings_name_what_is_missing() {
        let shown = condition(&["a"], false, true).notices().0;
        assert!(shown.contains("Shard a") && shown.contains("database"), "{shown}");
        assert!(condition(&[], false, false).notices().0.contains("policies"));
        assert!(!condition(&[], true, true).notices().0.contains("class=\"notice\""));
    }
}
