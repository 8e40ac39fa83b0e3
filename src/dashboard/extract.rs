//! Extractors: the parts of a request that pages use, parsed.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::address::{entry_of, job_of, namespace_of};
use super::problem::Problem;
use crate::http::Error;
use crate::jobs::{self, Id};
use crate::model::{EntryKey, Namespace};

/// The namespace in the path.
pub struct NamespacePath(pub Namespace);

/// The namespace and the key in the path.
pub struct EntryPath(pub EntryKey);

/// The id of the job in the path.
pub struct JobPath(pub Id);

/// The parsed query.
pub struct Parameters<Q>(pub Q);

impl<S: Send + Sync> FromRequestParts<S> for NamespacePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(namespace_of(parts.uri.path())?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(job_of(parts.uri.path()).ok_or(Error::Job(jobs::Error::NotFound))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EntryPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(entry_of(parts.uri.path())?))
    }
}

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for Parameters<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<Q>::try_from_uri(&parts.uri);
        let query = query.map_err(|rejection| Error::InvalidQuery(rejection.body_text()))?;
        Ok(Self(query.0))
    }
}
