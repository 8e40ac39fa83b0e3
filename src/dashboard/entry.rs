//! `GET /dashboard/namespaces/{ns}/keys/{key}`: the page of an entry, and its deletion.
//!
//! To show the page, the entry is read. This counts as a read in the statistics.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::address::{self, with_query};
use super::condition::Condition;
use super::confirmation;
use super::extract::{EntryPath, NamespacePath, Parameters};
use super::form_token::{Token, is_own_form};
use super::json;
use super::page::Page;
use super::problem::Problem;
use super::results::{DeleteResult, ResultQuery};
use super::state::Shared;
use super::topic::Topic;
use crate::cache::AnsweredBy;
use crate::clock::unix_millis;
use crate::http::Error;
use crate::model::{Details, Entry, EntryKey, Key, Operation, UnixMillis};
use crate::number;

/// How many bytes of a value a page shows at most.
const SHOWN_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyQuery {
    key: String,
}

/// `GET /dashboard/namespaces/{ns}/key?key=`: the page of an entry, for a key that a user typed.
pub async fn find(
    state: State<Shared>,
    NamespacePath(namespace): NamespacePath,
    Parameters(query): Parameters<KeyQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = EntryKey::new(&namespace, &Key::parse(query.key)?);
    get(state, EntryPath(key), headers).await
}

/// `POST /dashboard/namespaces/{ns}/key/delete?key=`: deletes a key that cannot be part of a path.
pub async fn find_and_delete(
    state: State<Shared>,
    NamespacePath(namespace): NamespacePath,
    Parameters(query): Parameters<KeyQuery>,
    headers: HeaderMap,
    form: Result<Form<DeleteForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let key = EntryKey::new(&namespace, &Key::parse(query.key)?);
    delete(state, EntryPath(key), headers, form).await
}

pub async fn get(
    State(dashboard): State<Shared>,
    EntryPath(key): EntryPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Both wait at the same time: one after the other could take longer than the request timeout.
    let described = timeout(dashboard.time_of_a_request(), dashboard.app.cache.describe(&key, Operation::Get));
    let (described, snapshot) = tokio::join!(described, dashboard.snapshot());
    let (lookup, details) = described.map_err(|_| Problem::TookTooLong { may_write: false })??;
    let token = Token::of(&headers);
    let (status, main) = match (&lookup.entry, &details) {
        (Some(entry), Some(details)) => {
            let shard = match lookup.trail {
                AnsweredBy::Shard { shard, .. } | AnsweredBy::Stale { shard, .. } => {
                    dashboard.app.cache.shard_name(shard)
                }
                AnsweredBy::L1 | AnsweredBy::Embedded => "embedded, in this process",
            };
            (StatusCode::OK, shown(&key, entry, details, shard, &token))
        }
        _ => (StatusCode::NOT_FOUND, not_found(&key)),
    };
    Ok(page(&key, &snapshot.condition, main).respond_with_forms(status, &token))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteForm {
    token: String,
    confirmed: Option<String>,
    /// When the page asked for confirmation, see [`confirmation`].
    issued: Option<String>,
}

/// The first request gets a page that asks for confirmation, and the second request deletes the key. The response to
/// the second request redirects to a page that only shows the result, so reloading that page deletes nothing.
pub async fn delete(
    State(dashboard): State<Shared>,
    EntryPath(key): EntryPath,
    headers: HeaderMap,
    form: Result<Form<DeleteForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|rejection| Error::InvalidBody(rejection.body_text()))?;
    if !is_own_form(&headers, &form.token) {
        return Err(Problem::StrangeForm);
    }
    if form.confirmed.is_none() {
        let snapshot = dashboard.snapshot().await;
        return Ok(page(&key, &snapshot.condition, ask(&key, &form.token)).respond(StatusCode::OK));
    }
    confirmation::check(form.issued.as_deref())?;
    let deleted = timeout(dashboard.time_of_a_request(), dashboard.app.cache.delete(&key)).await;
    let was_there = deleted.map_err(|_| Problem::TookTooLong { may_write: true })??;
    let result = dashboard.deletions.keep(DeleteResult { key: key.clone(), was_there });
    Ok(Redirect::to(&address::deleted(key.namespace(), &result)).into_response())
}

/// `GET /dashboard/namespaces/{ns}/deleted`: the result of a deletion that this instance carried out.
pub async fn deleted(
    State(dashboard): State<Shared>,
    NamespacePath(namespace): NamespacePath,
    Parameters(query): Parameters<ResultQuery>,
) -> Result<Response, Problem> {
    let done = dashboard.deletions.find(&query.result).filter(|done| done.key.namespace() == namespace.as_str());
    let Some(DeleteResult { key, was_there }) = done else {
        // Behind a load balancer, another instance may have carried out the deletion.
        return Ok(Redirect::to(&address::namespace(namespace.as_str())).into_response());
    };
    let snapshot = dashboard.snapshot().await;
    Ok(page(&key, &snapshot.condition, deleted_page(&key, was_there)).respond(StatusCode::OK))
}

fn page<'p>(key: &'p EntryKey, condition: &'p Condition, main: Markup) -> EntryPage<'p> {
    EntryPage { key, condition, main }
}

/// The parts in which pages about a key differ.
struct EntryPage<'p> {
    key: &'p EntryKey,
    condition: &'p Condition,
    main: Markup,
}

impl EntryPage<'_> {
    fn respond(self, status: StatusCode) -> Response {
        self.with(|page| page.respond(status))
    }

    fn respond_with_forms(self, status: StatusCode, token: &Token) -> Response {
        self.with(|page| page.respond_with_forms(status, token))
    }

    fn with(self, respond: impl FnOnce(Page<'_>) -> Response) -> Response {
        let Self { key, condition, main } = self;
        let (ns, name) = (key.namespace(), key.key());
        let trail = [(ns, address::namespace(ns)), (name, address::key(ns, name))];
        respond(Page { title: name, events: Topic::Condition.path(), condition, trail: &trail, main })
    }
}

fn not_found(key: &EntryKey) -> Markup {
    html! {
        section.card.narrow #problem data-code="key_not_found" {
            h1 { "Key not found" }
            p { code.key { (key.key()) } " is not in " strong { (key.namespace()) } ". It was never written, or it expired, was evicted or was deleted." }
            p { a.button href=(address::namespace(key.namespace())) { "Back to the namespace" } }
        }
    }
}

fn shown(key: &EntryKey, entry: &Entry, details: &Details, shard: &str, token: &Token) -> Markup {
    let now = unix_millis();
    let left = entry.expires_in.map(number::span);
    let expires_at = entry.expires_in.map(|left| UnixMillis(now.0.saturating_add(left.as_millis() as u64)));
    let date = |at: UnixMillis| html! { time datetime=(number::rfc3339(at)) { (number::date(at)) " UTC" } };
    html! {
        div.title {
            h1.key { (key.key()) }
            form #delete method="post" action=(address::delete(key.namespace(), key.key())) {
                input type="hidden" name="token" value=(token.as_str());
                button.danger type="submit" { "Delete…" }
            }
        }
        div #entry {
            section.card aria-labelledby="about-heading" {
                div.head { h2 #about-heading { "Entry" } }
                dl.fields {
                    div { dt { "Namespace" } dd data-field="namespace" { a href=(address::namespace(key.namespace())) { (key.namespace()) } } }
                    div {
                        dt { "Time to live" }
                        dd data-field="ttl" data-value=[entry.expires_in.map(|left| left.as_secs_f64().ceil())] {
                            (left.unwrap_or_else(|| "never expires".to_owned()))
                        }
                    }
                    @if let Some(at) = expires_at { div { dt { "Expires" } dd data-field="expires_at" { (date(at)) } } }
                    div { dt { "Size" } dd data-field="size" data-value=(entry.value.len()) { (number::bytes(entry.value.len() as u64)) } }
                    div { dt { "Version" } dd data-field="version" data-value=(entry.version.0) { (entry.version.0) } }
                    div { dt { "Shard" } dd data-field="shard" { (shard) } }
                    div { dt { "Written" } dd data-field="created_at" { (date(entry.created_at)) } }
                    div { dt { "Last read" } dd data-field="last_accessed" { (date(details.last_accessed)) } }
                    div { dt { "Reads" } dd data-field="access_count" data-value=(details.access_count) { (number::count(details.access_count)) } }
                    div {
                        dt { "Tags" }
                        dd data-field="tags" {
                            @for tag in details.tags.iter() {
                                a.tag href=(with_query(&address::namespace(key.namespace()), &[("tag", tag.as_str())])) { (tag.as_str()) } " "
                            }
                            @if details.tags.iter().next().is_none() { span.muted { "none" } }
                        }
                    }
                }
            }
            (value(entry))
        }
    }
}

/// The value as it was written, and formatted for reading.
fn value(entry: &Entry) -> Markup {
    let (text, is_whole) = beginning(&entry.value, SHOWN_BYTES);
    let pretty = is_whole.then(|| json::pretty(&text)).filter(|pretty| *pretty != text);
    html! {
        section.card aria-labelledby="value-heading" {
            div.head {
                h2 #value-heading { "Value" }
                @if !is_whole {
                    p.notice #value-cut {
                        "The first " (number::bytes(SHOWN_BYTES as u64)) " of " (number::bytes(entry.value.len() as u64)) "."
                    }
                }
            }
            @if let Some(pretty) = &pretty {
                h3 #pretty-heading { "Formatted" }
                pre.value tabindex="0" aria-labelledby="pretty-heading" data-field="pretty" { (pretty) }
                h3 #raw-heading { "As it was written" }
            }
            pre.value tabindex="0" aria-labelledby=(if pretty.is_some() { "raw-heading" } else { "value-heading" })
                data-field="value" { (text) }
        }
    }
}

/// The first `most` bytes of a text, or fewer in order not to cut a character, and whether that is the whole text.
fn beginning(bytes: &[u8], most: usize) -> (String, bool) {
    let is_whole = bytes.len() <= most;
    let mut cut = &bytes[..bytes.len().min(most)];
    if !is_whole {
        // The last character may be incomplete: drop it.
        while let Some((last, rest)) = cut.split_last() {
            let is_start = last & 0b1100_0000 != 0b1000_0000;
            cut = rest;
            if is_start {
                break;
            }
        }
    }
    (String::from_utf8_lossy(cut).into_owned(), is_whole)
}

fn ask(key: &EntryKey, token: &str) -> Markup {
    let (ns, name) = (key.namespace(), key.key());
    html! {
        section.card.narrow #delete-confirm {
            h1 { "Delete this entry?" }
            p { code.key { (name) } " in " strong { (ns) } }
            form.actions #confirm method="post" action=(address::delete(ns, name)) {
                input type="hidden" name="token" value=(token);
                input type="hidden" name="confirmed" value="yes";
                input type="hidden" name="issued" value=(confirmation::now());
                button.danger type="submit" { "Delete it" }
                a.button href=(address::key(ns, name)) { "Cancel" }
            }
        }
    }
}

fn deleted_page(key: &EntryKey, was_there: bool) -> Markup {
    html! {
        section.card.narrow #deleted data-deleted=(was_there) {
            h1 { @if was_there { "Deleted" } @else { "The entry was already gone" } }
            p { code.key { (key.key()) } " in " strong { (key.namespace()) } }
            p { a.button href=(address::namespace(key.namespace())) { "Back to the namespace" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tags, Version};
    use bytes::Bytes;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(beginning(b"abc", 3), ("abc".to_owned(), true));
        assert_eq!(beginning("aäöü".as_bytes(), 4), ("aä".to_owned(), false));
        assert_eq!(beginning(b"abcdef", 4).0.len(), 3);
    }

    #[test]
    fn all_text_of_an_entry_is_escaped() {
        let key = EntryKey::parse("n", "<b>\"'&").unwrap();
        let value = Bytes::from_static(br#""<script>alert(1)</script>""#);
        let entry = Entry { value, version: Version(7), created_at: UnixMillis(0), expires_in: None };
        let tags = Tags::parse(vec!["<i>".to_owned()]).unwrap();
        let details = Details { last_accessed: UnixMillis(0), access_count: 1, tags };
        let token = Token::of(&HeaderMap::new());
        let page = shown(&key, &entry, &details, "a", &token).0;
        for markup in ["<script", "<b>", "<i>"] {
            assert!(!page.contains(markup), "{markup} in {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(!page.contains("data-field=\"pretty\""), "one line needs no formatting: {page}");
    }
}
