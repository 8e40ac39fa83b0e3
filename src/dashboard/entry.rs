//! `GET /dashboard/namespaces/{ns}/keys/{key}`: the page of an entry, and its deletion.
//!
//! To show the page, the entry is read. This counts as a read in the statistics.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::address::{self, entry_of, namespace_of, with_query};
use super::entry_ttl;
use super::fleet_snapshot::Condition;
use super::form::{self, Outcome, PostedForm};
use super::json;
use super::page::below_namespace;
use super::problem::Problem;
use super::state::Shared;
use crate::cache::AnsweredBy;
use crate::clock::unix_millis;
use crate::http::Error;
use crate::model::{Details, Entry, EntryKey, Kind, Operation, ReadTerms, SourceVersion, UnixMillis};
use crate::number;

/// How many bytes of a value a page shows at most.
const SHOWN_BYTES: usize = 64 * 1024;

pub async fn get(State(dashboard): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let key = entry_of(&uri)?;
    // Both wait at the same time: one after the other could take longer than the request timeout.
    let terms = ReadTerms::default();
    let late = Error::DeadlineExceeded { may_write: false };
    let described = dashboard.in_time(dashboard.app.cache.describe(&key, &terms, Operation::Get), late);
    let (described, snapshot) = tokio::join!(described, dashboard.snapshot());
    let (lookup, details) = described?;
    let token = form::token(&headers);
    let (status, main) = match (&lookup.entry, &details) {
        (Some(entry), Some(details)) => {
            let shard = match lookup.trail {
                AnsweredBy::Shard { shard, .. } | AnsweredBy::Stale { shard, .. } => {
                    dashboard.app.cache.shard_name(shard)
                }
                AnsweredBy::L1 { .. } | AnsweredBy::Embedded => "embedded, in this process",
            };
            (StatusCode::OK, shown(&key, entry, details, shard, &token))
        }
        _ => (StatusCode::NOT_FOUND, not_found(&key)),
    };
    Ok(form::with_cookie(page(status, &key, &snapshot.condition, main), &token))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteForm {
    token: String,
    confirmed: Option<String>,
    /// When the page asked for confirmation, see [`form::check_age`].
    issued: Option<String>,
}

/// `POST .../delete`: the first request gets a page that asks for confirmation, and the second request deletes the key.
pub async fn delete(
    State(dashboard): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    form: PostedForm<DeleteForm>,
) -> Result<Response, Problem> {
    let (namespace, key) = (namespace_of(&uri)?, entry_of(&uri)?);
    let form = form::accept(form, &headers, |form| &form.token)?;
    if form.confirmed.is_none() {
        let main = ask(&key, &form.token);
        return Ok(page(StatusCode::OK, &key, &dashboard.snapshot().await.condition, main));
    }
    form::check_age(form.issued.as_deref())?;
    let late = Error::DeadlineExceeded { may_write: true };
    let was_there = dashboard.in_time(dashboard.app.cache.delete(&key, None), late).await?.existed;
    let (title, main) = (key.key().to_owned(), deleted(&key, was_there));
    let result = dashboard.results.keep(Outcome { namespace, title, main });
    let page = format!("{}/deleted", address::namespace(key.namespace()));
    Ok(Redirect::to(&with_query(&page, [("result", result)])).into_response())
}

/// A page about a key.
fn page(status: StatusCode, key: &EntryKey, condition: &Condition, main: Markup) -> Response {
    below_namespace(status, key.key(), key.namespace(), condition, main)
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

fn shown(key: &EntryKey, entry: &Entry, details: &Details, shard: &str, token: &str) -> Markup {
    let now = unix_millis();
    let left = entry.expires_in.map(number::span);
    let expires_at = entry.expires_at(now);
    let date = |at: UnixMillis| html! { time datetime=(at.to_rfc3339()) { (number::date(at)) " UTC" } };
    html! {
        div.title {
            h1.key { (key.key()) }
            form #delete method="post" action=(address::delete_entry(key.namespace(), key.key())) {
                input type="hidden" name="token" value=(token);
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
                    @if let Some(version) = details.source_version.map(SourceVersion::number) {
                        div { dt { "Source version" } dd data-field="source_version" data-value=(version) { (version) } }
                    }
                    div { dt { "Shard" } dd data-field="shard" { (shard) } }
                    div { dt { "Written" } dd data-field="created_at" { (date(entry.created_at)) } }
                    div { dt { "Last read" } dd data-field="last_accessed" { (date(details.last_accessed)) } }
                    div { dt { "Reads" } dd data-field="access_count" data-value=(details.access_count) { (number::count(details.access_count)) } }
                    div {
                        dt { "Tags" }
                        dd data-field="tags" {
                            @for tag in details.tags.iter() {
                                a.tag href=(with_query(&address::namespace(key.namespace()), [("tag", tag.as_str())])) { (tag.as_str()) } " "
                            }
                            @if details.tags.iter().next().is_none() { span.muted { "none" } }
                        }
                    }
                }
                (entry_ttl::form(key, token))
            }
            @if entry.is_known_absent() { (known_absent()) } @else { (value(entry)) }
        }
    }
}

/// Shown in place of a value.
fn known_absent() -> Markup {
    html! {
        section.card #known-absent {
            div.head { h2 { "Known absent" } }
            p { "The source has no such thing. Reads of this key are answered with 404 " code { "known_absent" } ", and count as hits." }
        }
    }
}

/// The value as it was written, and formatted for reading.
fn value(entry: &Entry) -> Markup {
    let (text, is_whole) = beginning(&entry.value, SHOWN_BYTES);
    let is_json = entry.extra.kind != Kind::Bytes;
    let pretty = (is_whole && is_json).then(|| json::pretty(&text)).filter(|pretty| *pretty != text);
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
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    if !is_whole {
        // The last character may be incomplete.
        text.pop();
    }
    (text, is_whole)
}

/// Asks the user to confirm the deletion.
fn ask(key: &EntryKey, token: &str) -> Markup {
    let (ns, name) = (key.namespace(), key.key());
    let (action, cancel) = (address::delete_entry(ns, name), address::entry(ns, name));
    html! {
        section.card.narrow #delete-confirm {
            h1 { "Delete this entry?" }
            p { code.key { (name) } " in " strong { (ns) } }
            (form::confirmation(token, &action, &[("confirmed", "yes")], "Delete it", &cancel))
        }
    }
}

/// The page after the deletion.
fn deleted(key: &EntryKey, was_there: bool) -> Markup {
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
    use crate::model::{Extra, Tags, Version};
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
        let (version, created_at, extra) = (Version(7), UnixMillis(0), Extra::default());
        let entry = Entry { value, version, created_at, expires_in: None, overdue: None, extra };
        let tags = Tags::parse(vec!["<i>".to_owned()]).unwrap();
        let details = Details { last_accessed: UnixMillis(0), access_count: 1, tags, source_version: None };
        let page = shown(&key, &entry, &details, "a", "token").0;
        for markup in ["<script", "<b>", "<i>"] {
            assert!(!page.contains(markup), "{markup} in {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(!page.contains("data-field=\"pretty\""), "one line needs no formatting: {page}");
    }
}
