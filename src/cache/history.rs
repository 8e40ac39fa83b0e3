//! The history of a namespace, page by page: its audit trail and its access log. These are the only cache calls that
//! read the database; nothing else waits for them.

use super::{Cache, Error};
use crate::access_log;
use crate::audit;
use crate::model::{Namespace, Operation, UnixMillis};

/// Selects rows of the access log.
#[derive(Debug)]
pub struct LogQuery {
    /// Only rows from this time on.
    pub since: Option<UnixMillis>,
    pub operation: Option<Operation>,
    /// The `cursor` of the previous page.
    pub cursor: Option<String>,
    pub limit: usize,
}

impl Cache {
    /// The audit trail of a namespace, newest first. Also works for deleted namespaces.
    ///
    /// # Errors
    /// The cursor is invalid, or the database failed.
    pub async fn audit(
        &self,
        namespace: &Namespace,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<audit::Page, Error> {
        let decode = |text| audit::Cursor::decode(text).ok_or(Error::InvalidCursor);
        Ok(self.audit.page(namespace, cursor.map(decode).transpose()?, limit).await?)
    }

    /// The rows of the access log of a namespace, newest first.
    ///
    /// # Errors
    /// The cursor is invalid, or the database failed.
    pub async fn logs(&self, namespace: &Namespace, query: &LogQuery) -> Result<access_log::Page, Error> {
        let decode = |text: &String| access_log::Cursor::decode(text).ok_or(Error::InvalidCursor);
        let cursor = query.cursor.as_ref().map(decode).transpose()?;
        let LogQuery { since, operation, limit, .. } = *query;
        Ok(self.access_log.page(namespace, &access_log::Query { since, operation, cursor, limit }).await?)
    }
}
