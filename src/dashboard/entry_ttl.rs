//! The form on the page of an entry that changes its TTL. It destroys nothing, so it asks for no confirmation.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::address::{self, entry_of};
use super::form::{self, PostedForm};
use super::problem::Problem;
use super::state::Shared;
use crate::http::Error;
use crate::model::{EntryKey, Invalid, Patch, Ttl, TtlChange};
use crate::number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtlForm {
    token: String,
    #[serde(default)]
    ttl: String,
    /// Present if the user chose the button for it.
    never: Option<String>,
}

impl TtlForm {
    /// # Errors
    /// The TTL is no time, or out of range.
    fn change(&self) -> Result<TtlChange, Error> {
        if self.never.is_some() {
            return Ok(TtlChange::Never);
        }
        let seconds = number::parse_seconds(&self.ttl).map_err(Invalid::Ttl)?;
        Ok(TtlChange::To(Ttl::from_seconds(seconds)?))
    }
}

pub fn form(key: &EntryKey, token: &str) -> Markup {
    html! {
        form.fields #ttl-form method="post" action=(address::entry_ttl(key.namespace(), key.key())) {
            input type="hidden" name="token" value=(token);
            div.field {
                label for="new-ttl" { "New time to live" }
                input #new-ttl name="ttl" placeholder="1h 30m" autocomplete="off" spellcheck="false";
            }
            button type="submit" { "Change" }
            button type="submit" name="never" value="yes" { "Never expires" }
        }
    }
}

/// `POST .../ttl`. The answer redirects to the page of the entry, which shows the result.
pub async fn post(
    State(dashboard): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    form: PostedForm<TtlForm>,
) -> Result<Response, Problem> {
    let key = entry_of(&uri)?;
    let form = form::accept(form, &headers, |form| &form.token)?;
    let patch = Patch { ttl: form.change()?, ..Patch::default() };
    let late = Error::DeadlineExceeded { may_write: true };
    // If the entry is gone, its page says so.
    dashboard.in_time(dashboard.app.cache.patch(&key, &patch), late).await?;
    Ok(Redirect::to(&address::entry(key.namespace(), key.key())).into_response())
}
