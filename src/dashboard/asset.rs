//! The style sheet, the script and the icon, which are embedded in the binary. Their names contain a hash of their
//! content, so browsers may cache them forever and still load the new files of a new release.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use crate::model;

/// An embedded file. Its name is `<stem>-<hash>.<extension>`.
pub struct Asset {
    /// The part of the file name before the hash.
    stem: &'static str,
    extension: &'static str,
    content_type: &'static str,
    content: &'static str,
    pub path: String,
}

impl Asset {
    fn new(stem: &'static str, extension: &'static str, content_type: &'static str, content: &'static str) -> Self {
        let hash = model::hash(content.as_bytes());
        let path = format!("/dashboard/assets/{stem}-{hash:016x}.{extension}");
        Self { stem, extension, content_type, content, path }
    }
}

pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", "text/css; charset=utf-8", include_str!("assets/dashboard.css")));

pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("dashboard", "js", "text/javascript; charset=utf-8", include_str!("assets/dashboard.js"))
});

pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// The response with the file `name`; `None` if there is no such file. A page of an older release may still request a
/// file with an old hash. It gets the current file, but must not cache it.
pub fn response(name: &str) -> Option<Response> {
    let all = [&*STYLE, &*SCRIPT, &*ICON];
    let is_asked = |asset: &&Asset| {
        let rest = name.strip_prefix(asset.stem).and_then(|rest| rest.strip_suffix(asset.extension));
        rest.is_some_and(|hash| hash.starts_with('-') && hash.ends_with('.'))
    };
    let asset = all.into_iter().find(is_asked)?;
    let caching = if asset.path.ends_with(name) { "public, max-age=31536000, immutable" } else { "no-store" };
    Some(([(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, caching)], asset.content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caching(path: &str) -> Option<String> {
        let answer = response(path.rsplit('/').next().unwrap())?;
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
