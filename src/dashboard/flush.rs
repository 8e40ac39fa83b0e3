//! `POST /dashboard/namespaces/{ns}/flush`: first a dry run that counts, then, with its form, the flush.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::address::{self, NamespacePath};
use super::cross_site::{Token, is_own_form};
use super::events::Topic;
use super::page::Page;
use super::problem::Problem;
use super::{Shared, number};
use crate::http::{self, Error, RequestOrigin};
use crate::model::{Namespace, Selection};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushForm {
    token: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    tag: String,
    /// What the dry run announced; absent in the first form.
    announced: Option<String>,
}

impl FlushForm {
    fn selection(&self) -> Result<Selection, Error> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        http::selection(given(&self.pattern), given(&self.tag))
    }
}

pub fn form(namespace: &Namespace, token: &Token) -> Markup {
    html! {
        form.fields #flush method="post" action=(address::flush(namespace.as_str())) {
            input type="hidden" name="token" value=(token.as_str());
            div.field {
                label for="flush-pattern" { "Keys that match" }
                input #flush-pattern name="pattern" placeholder="user_*" autocomplete="off" spellcheck="false"
                    aria-describedby="flush-help";
            }
            div.field {
                label for="flush-tag" { "or with the tag" }
                input #flush-tag name="tag" placeholder="session" autocomplete="off" spellcheck="false";
            }
            button type="submit" { "Count what would go" }
            p.muted #flush-help {
                code { "*" } " any text, " code { "?" } " one character, " code { "[abc]" } " one of them, "
                code { "\\" } " escapes. Both empty: the whole namespace."
            }
        }
    }
}

pub async fn post(
    State(dashboard): State<Shared>,
    NamespacePath(namespace): NamespacePath,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    form: Result<Form<FlushForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|rejection| Error::InvalidBody(rejection.body_text()))?;
    if !is_own_form(&headers, &form.token) {
        return Err(Problem::StrangeForm);
    }
    let selection = form.selection()?;
    let name = namespace.as_str();
    let (title, main) = match &form.announced {
        None => {
            let counted = timeout(dashboard.time_of_a_request(), dashboard.app.cache.count(&namespace, &selection));
            let count = counted.await.map_err(|_| Problem::TookTooLong { may_write: false })??;
            ("Flush: dry run", dry_run(&namespace, &selection, &form, count))
        }
        Some(announced) => {
            let wrong = || Error::InvalidBody(format!("`announced` is a number, not {announced:?}"));
            let announced: u64 = announced.parse().map_err(|_| wrong())?;
            let flush = dashboard.app.cache.flush(&namespace, &selection, &origin);
            let flushed = timeout(dashboard.time_of_a_request(), flush).await;
            let deleted = flushed.map_err(|_| Problem::TookTooLong { may_write: true })??;
            ("Flushed", result(&namespace, &selection, announced, deleted))
        }
    };
    let facts = dashboard.facts().await;
    let trail = [(name, address::namespace(name)), (title, String::new())];
    let events = Topic::Condition.path();
    Ok(Page { title, events, condition: &facts.condition, trail: &trail, main }.respond(StatusCode::OK))
}

/// The selection in words.
fn selected(selection: &Selection) -> Markup {
    match selection {
        Selection::All => html! { strong { "all keys" } },
        Selection::Matching(pattern) => html! { "keys that match " code { (pattern.as_str()) } },
        Selection::Tagged(tag) => html! { "keys with the tag " code { (tag.as_str()) } },
    }
}

fn dry_run(namespace: &Namespace, selection: &Selection, form: &FlushForm, count: u64) -> Markup {
    let name = namespace.as_str();
    html! {
        section.card.narrow #dry-run data-count=(count) {
            h1 { "Nothing is deleted yet" }
            p.figure { (number::of(count, "entry", "entries")) }
            p { "in " strong { (name) } " would go: " (selected(selection)) "." }
            @if count == 0 {
                p.muted { "There is nothing to delete." }
                p { a.button href=(address::namespace(name)) { "Back to the namespace" } }
            } @else {
                p.muted {
                    "What is written to these keys before you confirm goes as well, what is written after it stays. "
                    "There is no way back."
                }
                form.actions #confirm method="post" action=(address::flush(name)) {
                    input type="hidden" name="token" value=(form.token);
                    input type="hidden" name="pattern" value=(form.pattern);
                    input type="hidden" name="tag" value=(form.tag);
                    input type="hidden" name="announced" value=(count);
                    button.danger type="submit" { "Delete " (number::of(count, "entry", "entries")) }
                    a.button href=(address::namespace(name)) { "Cancel" }
                }
            }
        }
    }
}

fn result(namespace: &Namespace, selection: &Selection, announced: u64, deleted: u64) -> Markup {
    html! {
        section.card.narrow #flushed data-count=(deleted) data-announced=(announced) {
            h1 { "Flushed" }
            p.figure { (number::of(deleted, "entry", "entries")) }
            p { "deleted from " strong { (namespace.as_str()) } ": " (selected(selection)) "." }
            @if let Some(difference) = difference(announced, deleted) { p.notice { (difference) } }
            p { a.button href=(address::namespace(namespace.as_str())) { "Back to the namespace" } }
        }
    }
}

/// What to say where more or less went than was announced.
fn difference(announced: u64, deleted: u64) -> Option<String> {
    let told = |number| number::of(number, "entry", "entries");
    match deleted.cmp(&announced) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(format!(
            "The dry run had announced {}: {} more came to match in between.",
            told(announced),
            number::count(deleted - announced)
        )),
        std::cmp::Ordering::Less => Some(format!(
            "The dry run had announced {}: {} of them were gone or changed in between.",
            told(announced),
            number::count(announced - deleted)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_says_where_it_is_not_what_was_announced() {
        assert_eq!(difference(3, 3), None);
        assert!(difference(3, 5).unwrap().contains("announced 3 entries: 2 more"));
        assert!(difference(3, 1).unwrap().contains("announced 3 entries: 2 of them"));
    }

    #[test]
    fn the_confirmation_carries_what_was_announced_and_nothing_is_taken_for_markup() {
        let (namespace, token) = (Namespace::parse("users").unwrap(), "t".to_owned());
        let pattern = "\"><script>*".to_owned();
        let form = FlushForm { token, pattern, tag: String::new(), announced: None };
        let shown = dry_run(&namespace, &form.selection().unwrap(), &form, 7).0;
        assert!(shown.contains(r#"id="dry-run" data-count="7""#), "{shown}");
        assert!(shown.contains(r#"name="announced" value="7""#), "{shown}");
        assert!(shown.contains("&quot;&gt;&lt;script&gt;*") && !shown.contains("<script"), "{shown}");
    }
}
