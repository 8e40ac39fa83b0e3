//! `/docs`: the interface, to be read and tried in a browser.
//!
//! Swagger UI comes with the binary, so the page asks nobody but this service. It is framed by a page and a
//! script of our own: they name two files of it, and nothing runs or is styled inline.

use std::sync::Arc;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{Html, IntoResponse as _, Response};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use super::error::Error;
use super::openapi::{answers, params};

const PAGE: &str = include_str!("openapi/page.html");

const SCRIPT: &[u8] = include_bytes!("openapi/page.js");

const STYLE: &[u8] = include_bytes!("openapi/page.css");

/// The files of the page; the first two are Swagger UI's.
pub const FILES: [&str; 4] = ["swagger-ui-bundle.js", "swagger-ui.css", "page.js", "page.css"];

/// Scripts and styles of this service alone, and nobody may show the page as a part of his own. Swagger UI has
/// its icons as `data:`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // Another release has other files under the same names.
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// `GET /docs`.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "get_docs",
    tag = "documentation",
    summary = "The interactive documentation",
    responses(answers::DocsPage)
)]
pub async fn page() -> Response {
    (HEADERS, Html(PAGE)).into_response()
}

/// `GET /docs/{file}`.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "get_docs_file",
    tag = "documentation",
    summary = "A file of that page",
    params(params::DocsFile),
    responses(answers::DocsAsset)
)]
pub async fn file(uri: Uri) -> Result<Response, Error> {
    let name = uri.path().rsplit('/').next().unwrap_or_default();
    let (bytes, is_gzipped) = match name {
        "page.js" => (Bytes::from_static(SCRIPT), false),
        "page.css" => (Bytes::from_static(STYLE), false),
        name if FILES.contains(&name) => {
            let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten();
            file.map(|file| (Bytes::from(file.bytes.into_owned()), file.gzpipped)).ok_or(Error::NoSuchRoute)?
        }
        _ => return Err(Error::NoSuchRoute),
    };
    let kind = if name.ends_with(".css") { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
    let mut response = (HEADERS, bytes).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if is_gzipped {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
