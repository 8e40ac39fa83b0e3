//! `POST /dashboard/namespaces/{ns}/flush`: the first request is a dry run that counts the entries. The page that it
//! gets has a form that sends the second request, which deletes the entries. The response to the second request
//! redirects to a page that only shows the result, so reloading that page deletes nothing.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::Instant;

use super::address::{self, namespace_of, with_query};
use super::form::{self, Outcome, PostedForm};
use super::page::below_namespace;
use super::problem::Problem;
use super::state::Shared;
use crate::cache::{Counted, Flushed};
use crate::http::{self, Error, RequestOrigin};
use crate::jobs::{Flush, Kind, Patience};
use crate::model::{Namespace, Selection};
use crate::number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushForm {
    token: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    tag: String,
    /// The count that the dry run announced; absent in the first request.
    announced: Option<String>,
    /// `yes` if the dry run could not count all entries.
    at_least: Option<String>,
    /// The time of the dry run, see [`form::check_age`].
    issued: Option<String>,
    /// `yes` for the whole namespace. Without this field, a form that lost its pattern or tag would delete
    /// everything.
    all: Option<String>,
}

impl FlushForm {
    /// Checks that the form fits the selection and is not too old. Returns the count that the dry run announced.
    fn announced(&self, announced: &str, selection: &Selection) -> Result<Counted, Problem> {
        let wrong = || Error::InvalidBody(format!("`announced` must be a number, not {announced:?}"));
        let count = announced.parse().map_err(|_| wrong())?;
        if matches!(selection, Selection::All) != (self.all.as_deref() == Some("yes")) {
            let text = "`all` must be `yes` for the whole namespace, and absent with `pattern` or `tag`";
            return Err(Error::InvalidBody(text.to_owned()).into());
        }
        form::check_age(self.issued.as_deref())?;
        Ok(Counted { count, is_complete: self.at_least.is_none() })
    }
}

/// The form that begins a flush.
pub fn form(namespace: &Namespace, token: &str) -> Markup {
    html! {
        form.fields #flush method="post" action={ (address::namespace(namespace.as_str())) "/flush" } {
            input type="hidden" name="token" value=(token);
            div.field {
                label for="flush-pattern" { "Keys that match" }
                input #flush-pattern name="pattern" placeholder="user_*" autocomplete="off" spellcheck="false"
                    aria-describedby="flush-help";
            }
            div.field {
                label for="flush-tag" { "or with the tag" }
                input #flush-tag name="tag" placeholder="session" autocomplete="off" spellcheck="false";
            }
            button type="submit" { "Count the entries" }
            p.muted #flush-help {
                code { "*" } " is any text, " code { "?" } " one character, " code { "[abc]" } " one of these, "
                code { "\\" } " escapes the next. If both fields are empty, the whole namespace is selected."
            }
        }
    }
}

/// `POST /dashboard/namespaces/{ns}/flush`.
pub async fn post(
    State(dashboard): State<Shared>,
    uri: Uri,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    form: PostedForm<FlushForm>,
) -> Result<Response, Problem> {
    let namespace = namespace_of(&uri)?;
    let form = form::accept(form, &headers, |form| &form.token)?;
    let selection = form::selection(&form.pattern, &form.tag)?;
    if let Some(announced) = &form.announced {
        let announced = form.announced(announced, &selection)?;
        let patience = Patience::Until(dashboard.app.bounds.last_moment());
        let flush = Flush { kind: Kind::Flush, namespace: namespace.clone(), selection: selection.clone(), origin };
        let deleted = match dashboard.app.cache.flush(flush, patience, http::failure).await? {
            Flushed::Done { deleted, .. } => deleted,
            // The flush continues as a job. The page of the job shows its progress.
            Flushed::Job(job) => return Ok(Redirect::to(&address::job(&job.id)).into_response()),
        };
        let main = flushed(&namespace, &selection, announced, deleted);
        let page = format!("{}/flushed", address::namespace(namespace.as_str()));
        let result = dashboard.results.keep(Outcome { namespace, title: "Flushed".to_owned(), main });
        return Ok(Redirect::to(&with_query(&page, [("result", result)])).into_response());
    }
    let end = Instant::now() + dashboard.time_of_a_request();
    // Both wait at the same time: one after the other could take longer than the request timeout.
    let (counted, snapshot) =
        tokio::join!(dashboard.app.cache.count(&namespace, &selection, Some(end)), dashboard.snapshot());
    let main = dry_run(&namespace, &selection, &form, counted?);
    Ok(below_namespace(StatusCode::OK, "Flush: dry run", namespace.as_str(), &snapshot.condition, main))
}

/// The selection in words.
pub fn selected(selection: &Selection) -> Markup {
    match selection {
        Selection::All => html! { strong { "all keys" } },
        Selection::Matching(pattern) => html! { "keys that match " code { (pattern.as_str()) } },
        Selection::Tagged(tag) => html! { "keys with the tag " code { (tag.as_str()) } },
    }
}

fn dry_run(namespace: &Namespace, selection: &Selection, form: &FlushForm, counted: Counted) -> Markup {
    let page = address::namespace(namespace.as_str());
    let Counted { count, is_complete } = counted;
    let announced = count.to_string();
    let mut fields = vec![("pattern", form.pattern.as_str()), ("tag", &form.tag), ("announced", &announced)];
    fields.extend((!is_complete).then_some(("at_least", "yes")));
    fields.extend(matches!(selection, Selection::All).then_some(("all", "yes")));
    let button = format!("Delete {}", in_words(counted));
    html! {
        section.card.narrow #dry-run data-count=(count) data-at-least=[(!is_complete).then_some("")] {
            h1 { "Nothing has been deleted yet" }
            p.figure { (in_words(counted)) }
            p { "would be deleted from " strong { (namespace.as_str()) } ": " (selected(selection)) "." }
            @if count == 0 && is_complete {
                p.muted { "There is nothing to delete." }
                p { a.button href=(page) { "Back to the namespace" } }
            } @else {
                p.muted {
                    "Entries that are written to these keys before you confirm are deleted as well. Entries that are "
                    "written later are kept. This cannot be undone."
                }
                @if !is_complete {
                    p.notice {
                        "There was not enough time to count all of them. The flush will take longer than a request. A "
                        "page will show its progress."
                    }
                }
                (form::confirmation(&form.token, &format!("{page}/flush"), &fields, &button, &page))
            }
        }
    }
}

fn in_words(Counted { count, is_complete }: Counted) -> String {
    let entries = number::of(count, "entry", "entries");
    if is_complete { entries } else { format!("at least {entries}") }
}

/// The page after a flush.
fn flushed(namespace: &Namespace, selection: &Selection, announced: Counted, deleted: u64) -> Markup {
    html! {
        section.card.narrow #flushed data-count=(deleted) data-announced=(announced.count) {
            h1 { "Flushed" }
            p.figure { (number::of(deleted, "entry", "entries")) }
            p { "deleted from " strong { (namespace.as_str()) } ": " (selected(selection)) "." }
            @if let Some(difference) = difference(announced, deleted) { p.notice { (difference) } }
            p { a.button href=(address::namespace(namespace.as_str())) { "Back to the namespace" } }
        }
    }
}

/// A note for the user if the flush deleted more or fewer entries than announced.
fn difference(announced: Counted, deleted: u64) -> Option<String> {
    let more = deleted.saturating_sub(announced.count);
    let fewer = announced.count.saturating_sub(deleted);
    let difference = match (more, fewer) {
        (0, 0) => return None,
        (0, _) => {
            format!("{} of them no longer existed or no longer matched when the flush ran", number::count(fewer))
        }
        _ if !announced.is_complete => return None,
        _ => format!("{} more matched by the time of the flush", number::count(more)),
    };
    Some(format!("The dry run had announced {}: {difference}.", in_words(announced)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_notes_a_difference_from_the_announced_count() {
        let [all, part] = [true, false].map(|is_complete| Counted { count: 3, is_complete });
        assert_eq!(difference(all, 3), None);
        assert!(difference(all, 5).unwrap().contains("announced 3 entries: 2 more"));
        assert!(difference(all, 1).unwrap().contains("announced 3 entries: 2 of them"));
        assert_eq!(difference(part, 5), None);
        assert!(difference(part, 1).unwrap().contains("announced at least 3 entries: 2 of them"));
    }

    fn form(pattern: &str, all: Option<&str>, issued: Option<String>) -> FlushForm {
        let [token, tag] = ["t", ""].map(str::to_owned);
        let (pattern, all) = (pattern.to_owned(), all.map(str::to_owned));
        FlushForm { token, pattern, tag, announced: None, at_least: None, issued, all }
    }

    #[test]
    fn the_confirmation_carries_the_announced_count_and_escapes_all_text() {
        let namespace = Namespace::parse("users").unwrap();
        let form = form("\"><script>*", None, None);
        let shown = |is_complete| {
            dry_run(
                &namespace,
                &form::selection(&form.pattern, &form.tag).unwrap(),
                &form,
                Counted { count: 7, is_complete },
            )
            .0
        };
        let whole = shown(true);
        assert!(whole.contains(r#"id="dry-run" data-count="7""#), "{whole}");
        assert!(whole.contains(r#"name="announced" value="7""#), "{whole}");
        assert!(whole.contains("&quot;&gt;&lt;script&gt;*") && !whole.contains("<script"), "{whole}");
        assert!(!whole.contains("at least"), "{whole}");
        let part = shown(false);
        assert!(part.contains("Delete at least 7 entries") && part.contains(r#"name="at_least""#), "{part}");
    }

    #[test]
    fn the_whole_namespace_is_flushed_only_if_a_recent_form_says_so() {
        let accepts = |pattern: &str, all: Option<&str>, issued: Option<u64>| {
            let form = form(pattern, all, issued.map(|issued| issued.to_string()));
            form.announced("7", &form::selection(&form.pattern, &form.tag).unwrap()).is_ok()
        };
        let now = Some(crate::clock::unix_millis().0);
        assert!(accepts("", Some("yes"), now) && accepts("a*", None, now));
        assert!(!accepts("", None, now) && !accepts("", Some("no"), now) && !accepts("a*", Some("yes"), now));
        assert!(!accepts("a*", None, None) && !accepts("a*", None, now.map(|now| now - 3_600_000)));
    }
}
