//! What happened to a namespace: its audit trail and its access log, page by page. The only calls of
//! the cache that read a database; nothing else waits for them.

use super::{Cache, Error};
use crate::access_log;
use crate::audit;
use crate::model::{Namespace, Operation, UnixMillis};

/// Which lines of the access log are asked for.
#[derive(Debug)]
pub struct LogQuery {
    /// Nothing older.
    pub since: Option<UnixMillis>,
    pub operation: Option<Operation>,
    /// As an earlier page gave it.
    pub cursor: Option<String>,
    pub limit: usize,
}

impl Cache {
    /// Who changed what of a namespace, the newest first; also of one that is no more.
    ///
    /// # Errors
    /// The cursor is none of ours, or the database failed.
    pub async fn audit(
        &self,
        namespace: &Namespace,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<audit::Page, Error> {
        let decode = |text| audit::Cursor::decode(text).ok_or(Error::InvalidCursor);
        Ok(self.audit.page(namespace, cursor.map(decode).transpose()?, limit).await?)
    }

    /// The operations on a namespace that the access log has, the newest first.
    ///
    /// # Errors
    /// The cursor is none of ours, or the database failed.
    pub async fn logs(&self, namespace: &Namespace, query: &LogQuery) -> Result<access_log::Page, Error> {
        let decode = |text: &String| access_log::Cursor::decode(text).ok_or(Error::InvalidCursor);
        let cursor = query.cursor.as_ref().map(decode).transpose()?;
        let LogQuery { since, operation, limit, .. } = *query;
        Ok(self.access_log.page(namespace, &access_log::Query { since, operation, cursor, limit }).await?)
    }
}
