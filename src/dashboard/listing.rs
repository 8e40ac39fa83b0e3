//! The keys of a namespace, page by page.

use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::address::{self, with_query};
use super::fleet_snapshot::PATIENCE;
use super::form;
use super::problem::Problem;
use super::state::Dashboard;
use crate::cache::Listing;
use crate::http::Error;
use crate::model::Namespace;
use crate::number;
use crate::store::{self, Cursor, Page};

/// Keys on a page.
const LIMIT: usize = 60;

/// Which keys to list, and the position in the list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysQuery {
    pattern: String,
    tag: String,
    cursor: String,
}

/// The keys, or the reason why they are missing.
pub type Listed = Result<Page, String>;

/// Lists a page of keys.
///
/// # Errors
/// The request is refused, for instance because the cursor is invalid.
pub async fn list(dashboard: &Dashboard, namespace: &Namespace, query: &KeysQuery) -> Result<Listed, Problem> {
    let cursor = Some(&query.cursor).filter(|cursor| !cursor.is_empty()).cloned();
    let listing = Listing { selection: form::selection(&query.pattern, &query.tag)?, cursor, limit: LIMIT };
    let error = match timeout(PATIENCE, dashboard.app.cache.list(namespace, &listing)).await {
        Ok(Ok(page)) => return Ok(Ok(page)),
        Ok(Err(error)) if error.is_refusal() => return Err(error.into()),
        Ok(Err(error)) => Error::from(error),
        Err(_) => Error::DeadlineExceeded { may_write: false },
    };
    let (_, code, text) = error.known();
    Ok(Err(format!("The keys cannot be listed: {text} ({code}). Load the page again later.")))
}

pub fn keys(namespace: &Namespace, query: &KeysQuery, listed: &Listed) -> Markup {
    let path = address::namespace(namespace.as_str());
    html! {
        div.forms {
            form.search role="search" method="get" action={ (path) "#keys-heading" } {
                label.hidden for="keys-pattern" { "Pattern for keys" }
                input #keys-pattern type="search" name="pattern" value=(query.pattern) placeholder="Pattern: user_*"
                    autocomplete="off" spellcheck="false";
                button type="submit" { "List" }
            }
            form.search method="get" action={ (path) "/key" } {
                label.hidden for="open-key" { "Exact key" }
                input #open-key type="search" name="key" required placeholder="Exact key" autocomplete="off"
                    spellcheck="false";
                button type="submit" { "Open" }
            }
        }
        @match listed {
            Err(reason) => { p.notice #keys-missing { (reason) } }
            Ok(page) => {
                @let missing = store::Error::shards_of(&page.failed);
                @if !query.tag.is_empty() {
                    p.muted { "Keys with the tag " code { (query.tag) } " · " a href=(path) { "all keys" } }
                }
                @if !page.failed.is_empty() {
                    p.notice data-missing=(missing.join(" ")) {
                        "Partial: these shards do not answer: " (missing.join(", ")) "; their keys are missing here."
                    }
                }
                ul.keys #keys data-size=(page.size) data-partial=[(!page.failed.is_empty()).then_some("")] {
                    @for key in &page.keys {
                        li data-key=(key) { a href=(address::entry(namespace.as_str(), key)) { (key) } }
                    }
                }
                @if page.keys.is_empty() { p.none { (nothing(query, page)) } }
                (paging(&path, query, page))
            }
        }
    }
}

fn nothing(query: &KeysQuery, page: &Page) -> &'static str {
    match (page.size, page.next.is_some()) {
        (0, false) if !page.failed.is_empty() => "The shards that answer have no keys.",
        (0, _) => "The namespace is empty.",
        // For each page a limited number of keys is examined, and a rare pattern may match none of them.
        (_, true) => "No key on this page. Go on to the next page.",
        _ if query.pattern.is_empty() && query.tag.is_empty() => "No more keys.",
        _ => "No key matches.",
    }
}

fn paging(path: &str, query: &KeysQuery, page: &Page) -> Markup {
    let next = page.next.as_ref().map(Cursor::encode);
    let to = |cursor: &str| {
        let parameters = [("pattern", query.pattern.as_str()), ("tag", &query.tag), ("cursor", cursor)];
        format!("{}#keys-heading", with_query(path, parameters))
    };
    html! {
        div.paging {
            span.muted {
                (number::of(page.keys.len() as u64, "key", "keys")) " on this page, "
                (number::count(page.size)) " in the namespace"
            }
            @if !query.cursor.is_empty() { a.button href=(to("")) { "First page" } }
            @if let Some(next) = next { a.button rel="next" href=(to(&next)) { "Next page" } }
        }
    }
}
