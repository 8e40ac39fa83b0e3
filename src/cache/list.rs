//! Listing the live keys of a namespace, page by page, and counting them.

use tokio::time::{Instant, timeout_at};

use super::flush::subject;
use super::observe::{Reply, StartedOperation};
use super::{Cache, Error};
use crate::model::{Answer, Namespace, Operation, Selection};
use crate::store::{Cursor, Page};

/// A request for one page.
#[derive(Debug)]
pub struct Listing {
    pub selection: Selection,
    /// The `cursor` of the previous page.
    pub cursor: Option<String>,
    pub limit: usize,
}

/// The result of counting keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub count: u64,
    /// Whether all keys were counted in time; if not, there are at least `count`.
    pub is_complete: bool,
}

/// Keys on a page that is only counted.
const COUNTED_PAGE: usize = 1000;

impl Cache {
    /// One page of the selected keys. If some shards do not answer, the page has the keys of the others and lists the
    /// failures.
    ///
    /// # Errors
    /// The cursor is invalid, or no shard answers.
    pub async fn list(&self, namespace: &Namespace, listing: &Listing) -> Result<Page, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::List);
        let result = self.page(namespace, listing).await;
        let subject = || subject(namespace, &listing.selection);
        match &result {
            // As with batches, one failed shard counts as a failure.
            Ok(Page { failed, .. }) if !failed.is_empty() => {
                self.observe_as(&begun, Answer::Failed, Reply::InPart(&failed[0]), subject);
            }
            _ => self.observe(&begun, result.as_ref().map(|_| Reply::Done), subject),
        }
        result
    }

    /// How many live keys are selected, that is, how many a flush would delete now. Holds one page of keys in memory
    /// at a time. Stops at `end`, if there is one.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn count(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        end: Option<Instant>,
    ) -> Result<Counted, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::List);
        let mut counted = Counted::default();
        let walk = self.walk(namespace, selection, &mut counted);
        let result = match end {
            None => walk.await,
            Some(end) => timeout_at(end, walk).await.unwrap_or(Ok(())),
        };
        self.observe(&begun, result.as_ref().map(|()| Reply::Done), || subject(namespace, selection));
        result.map(|()| counted)
    }

    async fn walk(&self, namespace: &Namespace, selection: &Selection, counted: &mut Counted) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let mut page = self.store.list(namespace, selection, cursor, COUNTED_PAGE).await?;
            // The count is only meaningful if every shard answers.
            if let Some(error) = page.failed.pop() {
                return Err(error.into());
            }
            counted.count += page.keys.len() as u64;
            counted.is_complete = page.next.is_none();
            if counted.is_complete {
                return Ok(());
            }
            cursor = page.next;
        }
    }

    async fn page(&self, namespace: &Namespace, listing: &Listing) -> Result<Page, Error> {
        let decode = |text: &String| {
            let cursor = Cursor::decode(text).filter(|cursor| self.store.may_have_issued(cursor));
            cursor.ok_or(Error::InvalidCursor)
        };
        let cursor = listing.cursor.as_ref().map(decode).transpose()?;
        Ok(self.store.list(namespace, &listing.selection, cursor, listing.limit).await?)
    }
}
