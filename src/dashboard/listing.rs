//! The keys of a namespace, page by page.

use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::address::{self, with_query};
use super::fleet_snapshot::PATIENCE;
use super::problem::Problem;
use super::state::Dashboard;
use crate::cache::{Error, Listing};
use crate::http;
use crate::model::{Namespace, Selection};
use crate::number;
use crate::store::{self, Cursor, Page};

/// Keys on a page.
const LIMIT: usize = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysQuery {
    pattern: Option<String>,
    tag: Option<String>,
    cursor: Option<String>,
}

/// Which keys to list, and the position in the list.
pub struct KeySelection {
    pattern: String,
    tag: String,
    selection: Selection,
    cursor: Option<String>,
}

impl TryFrom<KeysQuery> for KeySelection {
    type Error = Problem;

    fn try_from(query: KeysQuery) -> Result<Self, Problem> {
        // An empty field of a form was not filled in, so it counts as absent.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (pattern, tag, cursor) = (given(query.pattern), given(query.tag), given(query.cursor));
        let selection = http::selection(pattern.clone(), tag.clone())?;
        Ok(Self { pattern: pattern.unwrap_or_default(), tag: tag.unwrap_or_default(), selection, cursor })
    }
}

/// The keys, or the reason why they are missing.
pub type Listed = Result<Page, String>;

/// Lists a page of keys.
///
/// # Errors
/// The request is refused, for instance because the cursor is invalid.
pub async fn list(dashboard: &Dashboard, namespace: &Namespace, asked: &KeySelection) -> Result<Listed, Problem> {
    let listing = Listing { selection: asked.selection.clone(), cursor: asked.cursor.clone(), limit: LIMIT };
    match timeout(PATIENCE, dashboard.app.cache.list(namespace, &listing)).await {
        Ok(Ok(page)) => Ok(Ok(page)),
        Ok(Err(error)) if error.is_refusal() => Err(error.into()),
        Ok(Err(Error::Store(_)) | Err(_)) | Err(_) => {
            Ok(Err("The keys cannot be listed: a shard does not answer. Load the page again later.".to_owned()))
        }
    }
}

pub fn keys(namespace: &Namespace, asked: &KeySelection, listed: &Listed) -> Markup {
    let path = address::namespace(namespace.as_str());
    html! {
        div.forms {
            form.search role="search" method="get" action={ (path) "#keys-heading" } {
                label.hidden for="keys-pattern" { "Pattern for keys" }
                input #keys-pattern type="search" name="pattern" value=(asked.pattern) placeholder="Pattern: user_*"
                    autocomplete="off" spellcheck="false";
                button type="submit" { "List" }
            }
            form.search method="get" action=(address::find(namespace.as_str())) {
                label.hidden for="open-key" { "Exact key" }
                input #open-key type="search" name="key" required placeholder="Exact key" autocomplete="off"
                    spellcheck="false";
                button type="submit" { "Open" }
            }
        }
        @match listed {
            Err(reason) => { p.notice #keys-missing { (reason) } }
            Ok(page) => {
                @if !asked.tag.is_empty() {
                    p.muted { "Keys with the tag " code { (asked.tag) } " · " a href=(path) { "all keys" } }
                }
                @if !page.failed.is_empty() { (missing(&page.failed, "their keys are missing here")) }
                ul.keys #keys data-size=(page.size) data-partial=[(!page.failed.is_empty()).then_some("")] {
                    @for key in &page.keys {
                        li data-key=(key) { a href=(address::key(namespace.as_str(), key)) { (key) } }
                    }
                }
                @if page.keys.is_empty() {
                    p.none { (nothing(asked, page)) }
                }
                (paging(&path, asked, page))
            }
        }
    }
}

/// A notice that names the shards that did not answer, and says what that means for the page.
pub fn missing(failed: &[store::Error], meaning: &str) -> Markup {
    html! {
        p.notice data-missing=(store::Error::shards_of(failed).join(" ")) {
            "Partial: these shards do not answer: " (store::Error::shards_of(failed).join(", ")) "; " (meaning) "."
        }
    }
}

fn nothing(asked: &KeySelection, page: &Page) -> &'static str {
    match (page.size, page.next.is_some()) {
        (0, false) if !page.failed.is_empty() => "The shards that answer have no keys.",
        (0, _) => "The namespace is empty.",
        // For each page a limited number of keys is examined, and a rare pattern may match none of them.
        (_, true) => "No key on this page. Go on to the next page.",
        _ if matches!(asked.selection, Selection::All) => "No more keys.",
        _ => "No key matches.",
    }
}

fn paging(path: &str, asked: &KeySelection, page: &Page) -> Markup {
    let next = page.next.as_ref().map(Cursor::encode);
    let selection = [("pattern", asked.pattern.as_str()), ("tag", asked.tag.as_str())];
    let to = |cursor: &str| {
        let [pattern, tag] = selection;
        format!("{}#keys-heading", with_query(path, &[pattern, tag, ("cursor", cursor)]))
    };
    html! {
        div.paging {
            span.muted {
                (number::of(page.keys.len() as u64, "key", "keys")) " on this page, "
                (number::count(page.size)) " in the namespace"
            }
            @if asked.cursor.is_some() { a.button href=(to("")) { "First page" } }
            @if let Some(next) = next { a.button rel="next" href=(to(&next)) { "Next page" } }
        }
    }
}
