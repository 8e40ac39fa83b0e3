//! `PATCH /api/v1/cache/{ns}/{key}`: changes the TTL or the tags of an entry, without its value.

use axum::extract::State;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Error, key_not_found};
use super::extract::{EntryPath, NoParameters, StrictQuery};
use super::openapi::schema;
use super::reader::Reader;
use super::state::SharedApp;
use super::{answer, conditions, json, positions, reader};
use crate::model::{Patch, Tag, Tags, Ttl, TtlChange};

/// The body of a `PATCH` of an entry: at least one field.
// Only for the OpenAPI document: `patch_body` parses the body.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
#[expect(dead_code, reason = "documents the fields; the parser reads them one by one")]
pub struct PatchBody {
    #[schema(schema_with = schema::new_ttl)]
    ttl: Option<u64>,
    #[schema(schema_with = schema::new_tags)]
    tags: Option<Vec<String>>,
}

/// Parses the body of a `PATCH`. An absent field changes nothing. A TTL of null takes it away; to take tags away, the body
/// has an empty list.
///
/// # Errors
/// [`Error::InvalidBody`], also if the body has no field; or the TTL or a tag is invalid.
pub fn patch_body(body: &[u8]) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    reader::object(body, &["ttl", "tags"], |index, reader| {
        match index {
            0 => {
                patch.ttl = match reader.optional()? {
                    Some(ttl) => TtlChange::To(Ttl::parse_json(ttl.get())?),
                    None => TtlChange::Never,
                }
            }
            _ => patch.tags = Some(Tags::of(tags(reader)?)),
        }
        Ok(())
    })?;
    if patch.ttl == TtlChange::Keep && patch.tags.is_none() {
        return Err(Error::InvalidBody("the body changes nothing: it needs `ttl`, `tags` or both".to_owned()));
    }
    Ok(patch)
}

/// # Errors
/// [`Error::InvalidBody`], also for null: it could mean no change as well as no tags. Or a tag is invalid.
fn tags(reader: &mut Reader<'_>) -> Result<Vec<Tag>, Error> {
    if reader.null() {
        return Err(Error::InvalidBody("`tags` must be a list; an empty one takes all tags away".to_owned()));
    }
    json::tag_list(reader)
}

#[derive(Serialize, ToSchema)]
pub struct PatchAnswer {
    success: bool,
    /// The TTL in seconds after the change, rounded up; null: the entry never expires.
    #[schema(required)]
    ttl: Option<u64>,
}

/// `PATCH`.
#[utoipa::path(
    patch,
    path = "/api/v1/cache/{ns}/{key}",
    operation_id = "patch_entry",
    tag = "entries",
    summary = "Change the TTL or the tags of the entry",
    description = "The value and the `ETag` stay. Fields that are absent do not change.",
    request_body(content = PatchBody, examples(
        ("a new TTL" = (value = json!({"ttl": 600}))),
        ("never expires" = (value = json!({"ttl": null}))),
        ("other tags" = (value = json!({"tags": ["vip", "staff"]}))),
    )),
    responses((status = 200, description = "The entry is changed.", body = PatchAnswer))
)]
pub async fn patch(
    State(app): State<SharedApp>,
    EntryPath(key): EntryPath,
    _: StrictQuery<NoParameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    let patch = Patch { preconditions: conditions::of(&headers)?, ..patch_body(&body)? };
    let Some(patched) = app.cache.patch(&key, &patch).await? else { return Ok(key_not_found()) };
    let ttl = patched.expires_in.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0));
    let mut response = answer::json(StatusCode::OK, &PatchAnswer { success: true, ttl });
    response.headers_mut().insert(ETAG, answer::etag(patched.version));
    positions::put_one(&mut response, app.cache.shard_of(&key), patched.position);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Invalid;

    fn parsed(body: &str) -> Result<(TtlChange, Option<String>), Error> {
        patch_body(body.as_bytes()).map(|patch| (patch.ttl, patch.tags.map(|tags| tags.joined())))
    }

    #[test]
    fn absent_fields_change_nothing_and_a_ttl_of_null_takes_it_away() {
        let to = |seconds| TtlChange::To(Ttl::from_seconds(seconds).unwrap());
        for (body, ttl, tags) in [
            (r#"{"ttl": 600}"#, to(600), None),
            (r#"{"ttl": null}"#, TtlChange::Never, None),
            (r#"{"tags": ["b", "a", "b"]}"#, TtlChange::Keep, Some("a\nb")),
            (r#"{"tags": []}"#, TtlChange::Keep, Some("")),
            (r#"{"tags": [], "ttl": 1}"#, to(1), Some("")),
        ] {
            assert_eq!(parsed(body).unwrap(), (ttl, tags.map(str::to_owned)), "{body}");
        }
    }

    #[test]
    fn a_body_that_changes_nothing_or_has_other_fields_is_refused() {
        let detail = |body: &str| match parsed(body) {
            Err(Error::InvalidBody(text)) => text,
            other => panic!("{body}: {other:?}"),
        };
        assert!(detail("{}").contains("`ttl`, `tags` or both"));
        for body in [r#"{"tags": null}"#, r#"{"tags": null, "ttl": 1}"#] {
            assert!(detail(body).contains("`tags`"), "{body}");
        }
        assert!(detail(r#"{"value": 1, "ttl": 1}"#).contains("unknown field `value`"));
        for body in ["", "[]", r#"{"ttl": 1, "ttl": 2}"#, r#"{"tags": "a"}"#, r#"{"tags": [1]}"#] {
            detail(body);
        }
        for ttl in ["0", "-1", "1.5", "\"60\"", "3153600001"] {
            let refused = parsed(&format!("{{\"ttl\": {ttl}}}"));
            let is_ttl = matches!(refused, Err(Error::Cache(crate::cache::Error::Invalid(Invalid::Ttl(_)))));
            assert!(is_ttl, "{ttl}: {refused:?}");
        }
    }
}
