//! `/docs`: the API documentation, to read and try in a browser.
//!
//! Swagger UI is part of the binary, so the page loads nothing from other servers. The page is our own: it loads two
//! files of Swagger UI, and our own script and style sheet. There are no inline scripts or styles.

use std::sync::Arc;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{Html, IntoResponse as _, Response};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use super::error::Error;

const PAGE: &str = include_str!("openapi/page.html");

const SCRIPT: &[u8] = include_bytes!("openapi/page.js");

const STYLE: &[u8] = include_bytes!("openapi/page.css");

/// Allows only scripts and styles of this service, and forbids other pages to show this page in a frame. `data:` is
/// for the icons of Swagger UI.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The files of `/docs`; the first two are Swagger UI's.
pub const FILES: [&str; 4] = ["swagger-ui-bundle.js", "swagger-ui.css", "page.js", "page.css"];

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // Another release serves other files under the same names.
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// `GET /docs`.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "get_docs",
    tag = "documentation",
    summary = "The interactive documentation",
    responses((
        status = 200, description = "The page.",
        body = String, content_type = "text/html", example = "<!doctype html>",
    ))
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
    summary = "A file of the interactive documentation",
    responses((status = 200, description = "The file.", content((String = "text/css"), (String = "text/javascript"))))
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
