//! The parts that all pages share: head, navigation bar, status, warnings, the headers of the response; and the files
//! that all pages load.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::address::{self, OVERVIEW};
use super::fleet_snapshot::Condition;
use super::topic::Topic;
use crate::model;

/// A page to be rendered.
pub struct Page<'p> {
    pub title: &'p str,
    /// What its event stream shows.
    pub topic: Topic,
    pub condition: &'p Condition,
    /// The namespace whose page is one level above this page, for the breadcrumb.
    pub namespace: Option<&'p str>,
    pub main: Markup,
}

impl Page<'_> {
    pub fn respond(self, status: StatusCode) -> Response {
        let Page { title, topic, condition, namespace, main } = self;
        let content = html! {
            @if !matches!(topic, Topic::Overview(_)) {
                nav.trail aria-label="Breadcrumb" {
                    ol {
                        li { a href=(OVERVIEW) { "Overview" } }
                        @if let Some(name) = namespace { li { a href=(address::namespace(name)) { (name) } } }
                        li { span aria-current="page" { (title) } }
                    }
                }
            }
            (condition.notices())
            (main)
        };
        respond(status, document(title, Some(&topic.path()), &condition.status(), &content))
    }
}

/// A page one level below the page of a namespace. Only its status and its warnings are updated.
pub fn below_namespace(
    status: StatusCode,
    title: &str,
    namespace: &str,
    condition: &Condition,
    main: Markup,
) -> Response {
    Page { title, topic: Topic::Condition, condition, namespace: Some(namespace), main }.respond(status)
}

/// A page without status and live updates: it needs no data besides `main`.
pub fn bare(status: StatusCode, title: &str, main: &Markup) -> Response {
    respond(status, document(title, None, &html! {}, main))
}

fn respond(status: StatusCode, page: Markup) -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, page.0).into_response()
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

/// The style sheet, the script or the icon, embedded in the binary. Its name is `<stem>-<hash>.<extension>`. The name
/// contains a hash of the content, so browsers may cache the file forever and still load the new file of a new release.
struct Asset {
    /// The part of the file name before the hash.
    stem: &'static str,
    extension: &'static str,
    content_type: &'static str,
    content: &'static str,
    path: String,
}

impl Asset {
    fn new(stem: &'static str, extension: &'static str, content_type: &'static str, content: &'static str) -> Self {
        let hash = model::hash(content.as_bytes());
        let path = format!("/dashboard/assets/{stem}-{hash:016x}.{extension}");
        Self { stem, extension, content_type, content, path }
    }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", "text/css; charset=utf-8", include_str!("assets/dashboard.css")));

static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("dashboard", "js", "text/javascript; charset=utf-8", include_str!("assets/dashboard.js"))
});

static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// The response with the file `name`; `None` if there is no such file. A page of an older release may still request a
/// file with an old hash. It gets the current file, but must not cache it.
pub fn asset(name: &str) -> Option<Response> {
    let is_named = |asset: &&Asset| {
        let rest = name.strip_prefix(asset.stem).and_then(|rest| rest.strip_suffix(asset.extension));
        rest.is_some_and(|hash| hash.starts_with('-') && hash.ends_with('.'))
    };
    let asset = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(is_named)?;
    let caching = if asset.path.ends_with(name) { "public, max-age=31536000, immutable" } else { "no-store" };
    Some(([(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, caching)], asset.content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caching(path: &str) -> Option<String> {
        let answer = asset(path.rsplit('/').next().unwrap())?;
        Some(answer.headers()[CACHE_CONTROL].to_str().unwrap().to_owned())
    }

    #[test]
    fn only_a_file_with_its_current_hash_is_cached_forever() {
        for asset in [&*STYLE, &*SCRIPT, &*ICON] {
            assert_eq!(caching(&asset.path).unwrap(), "public, max-age=31536000, immutable");
        }
        assert_eq!(caching("dashboard-0123456789abcdef.css").unwrap(), "no-store");
        for other in ["", "dashboard.css", "dashboard-1.html", "-.css"] {
            assert_eq!(caching(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for asset in [&*STYLE, &*SCRIPT, &*ICON] {
            // The XML namespace of SVG looks like a URL, but browsers do not fetch it.
            let content = asset.content.replace("http://www.w3.org/2000/svg", "");
            for elsewhere in ["//cdn", "https:", "http:", "url(//"] {
                assert!(!content.contains(elsewhere), "{elsewhere} in {}", asset.path);
            }
        }
    }
}
