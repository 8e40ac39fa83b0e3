//! The parts that all pages share: head, navigation bar, status, warnings, and the headers of the response.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::address::OVERVIEW;
use super::asset::{ICON, SCRIPT, STYLE};
use super::condition::Condition;
use super::form_token::Token;

/// A page to be rendered.
pub struct Page<'p> {
    pub title: &'p str,
    /// The address of its event stream.
    pub events: String,
    pub condition: &'p Condition,
    /// The breadcrumb after the overview: names and paths of pages. The last one is the page itself.
    pub trail: &'p [(&'p str, String)],
    pub main: Markup,
}

impl Page<'_> {
    pub fn respond(self, status: StatusCode) -> Response {
        let Page { title, events, condition, trail, main } = self;
        let content = html! {
            @if !trail.is_empty() {
                nav.trail aria-label="Breadcrumb" {
                    ol {
                        li { a href=(OVERVIEW) { "Overview" } }
                        @for (i, (name, path)) in trail.iter().enumerate() {
                            li {
                                @if i + 1 == trail.len() { span aria-current="page" { (name) } }
                                @else { a href=(path) { (name) } }
                            }
                        }
                    }
                }
            }
            (condition.notices())
            (main)
        };
        answer(status, &document(title, Some(&events), &condition.status(), &content))
    }

    /// Like [`Page::respond`], with the cookie that forms need.
    pub fn respond_with_forms(self, status: StatusCode, token: &Token) -> Response {
        let mut response = self.respond(status);
        let cookie = HeaderValue::try_from(token.set_cookie()).expect("a token is hexadecimal");
        response.headers_mut().insert(SET_COOKIE, cookie);
        response
    }
}

/// A page without status and live updates: it needs no data besides `main`.
pub fn bare(status: StatusCode, title: &str, main: &Markup) -> Response {
    answer(status, &document(title, None, &html! {}, main))
}

fn answer(status: StatusCode, page: &Markup) -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, page.0.clone()).into_response()
}

fn document(title: &str, events: Option<&str>, status: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) " – sidecache" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" type="image/svg+xml" href=(ICON.path);
                link rel="stylesheet" href=(STYLE.path);
                script defer src=(SCRIPT.path) {}
            }
            body data-events=[events] {
                a.skip href="#main" { "Skip to the content" }
                header.bar {
                    a.brand href=(OVERVIEW) {
                        img src=(ICON.path) alt="" width="24" height="24";
                        span { "sidecache" }
                    }
                    nav aria-label="Service" {
                        a href=(OVERVIEW) { "Overview" }
                        a href="/docs" { "API" }
                    }
                    (status)
                }
                main #main tabindex="-1" { (content) }
                footer.foot {
                    span { "sidecache " (env!("CARGO_PKG_VERSION")) }
                    noscript { span { "Without JavaScript, the numbers are not updated. Reload the page to see current ones." } }
                }
            }
        }
    }
}

/// A part of the page with a heading.
pub fn section(id: &str, heading: &str, note: &str, content: &Markup) -> Markup {
    html! {
        section.card aria-labelledby={ (id) "-heading" } {
            div.head {
                h2 id={ (id) "-heading" } { (heading) }
                @if !note.is_empty() { p.muted { (note) } }
            }
            (content)
        }
    }
}

/// A large number with its name and a note.
pub struct Tile<'t> {
    /// The value of the attribute `data-stat`, for tests and scripts.
    pub stat: &'t str,
    pub name: &'t str,
    /// The exact number; `None` if it is unknown.
    pub raw: Option<String>,
    pub shown: String,
    pub note: Markup,
}

pub fn tiles(id: &str, tiles: &[Tile<'_>]) -> Markup {
    html! {
        dl.tiles id=(id) {
            @for Tile { stat, name, raw, shown, note } in tiles {
                div.tile data-stat=(stat) data-value=[raw.as_deref()] {
                    dt { (name) }
                    dd title=[raw.as_deref()] { (shown) }
                    dd.note { (note) }
                }
            }
        }
    }
}

/// A bar that shows how full something is. It has a warning colour from 80 % on.
pub fn bar(used: u64, limit: u64) -> Markup {
    let share = share(used, limit);
    let level = if share >= 0.95 {
        "full"
    } else if share >= 0.8 {
        "high"
    } else {
        "fine"
    };
    filled(share, level)
}

/// A bar that shows a share of a whole. It never has a warning colour.
pub fn part(number: u64, of: u64) -> Markup {
    filled(share(number, of), "fine")
}

fn share(number: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { (number as f64 / of as f64).min(1.0) }
}

/// Draws a bar. It is hidden from screen readers, because the numbers next to it say the same.
fn filled(share: f64, level: &str) -> Markup {
    let width = format!("{:.1}", share * 100.0);
    html! {
        svg.fill data-level=(level) viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
            rect.whole width="100" height="4" {}
            rect.part width=(width) height="4" {}
        }
    }
}
