//! Listing the live keys of a namespace, page by page, and counting them.

use tokio::time::{Instant, timeout_at};

use super::flush::subject;
use super::observe::{Reply, StartedOperation};
use super::{Cache, Error};
use crate::clock::Moment;
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
        let started = Moment::now();
        let result = self.page(namespace, listing).await;
        let begun = StartedOperation { namespace: namespace.as_str(), operation: Operation::List, at: started };
        let subject = || subject(namespace, &listing.selection);
        match &result {
            // As with batches, one failed shard counts as a failure.
            Ok(Page { failed, .. }) if !failed.is_empty() => {
                self.observe_as(&begun, Answer::Failed, Reply::InPart(&failed[0]), subject);
            }
            _ => self.observe(&begun, &result, subject),
        }
        result
    }

    /// How many live keys are selected, that is, how many a flush would delete now. Holds one page of keys in memory
    /// at a time.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn count(&self, namespace: &Namespace, selection: &Selection) -> Result<u64, Error> {
        Ok(self.counted(namespace, selection, None).await?.count)
    }

    /// Like [`Cache::count`], but stops at `end`.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn count_until(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        end: Instant,
    ) -> Result<Counted, Error> {
        self.counted(namespace, selection, Some(end)).await
    }

    async fn counted(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        end: Option<Instant>,
    ) -> Result<Counted, Error> {
        let started = Moment::now();
        let mut counted = Counted::default();
        let walk = self.walk(namespace, selection, &mut counted);
        let result = match end {
            None => walk.await,
            Some(end) => timeout_at(end, walk).await.unwrap_or(Ok(())),
        };
        let begun = StartedOperation { namespace: namespace.as_str(), operation: Operation::List, at: started };
        self.observe(&begun, &result, || subject(namespace, selection));
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
        let cursor = match &listing.cursor {
            None => None,
            Some(text) => {
                let cursor = Cursor::decode(text).filter(|cursor| self.store.gave(cursor));
                Some(cursor.ok_or(Error::InvalidCursor)?)
            }
        };
        Ok(self.store.list(namespace, &listing.selection, cursor, listing.limit).await?)
    }
}
