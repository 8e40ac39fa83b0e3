//! Listing the live keys of a namespace, page by page, and counting them.

use tokio::time::{Instant, timeout_at};

use super::flush::subject;
use super::observe::{Begun, Told};
use super::{Cache, Error};
use crate::clock::Moment;
use crate::model::{Answer, Namespace, Operation, Selection};
use crate::store::{Cursor, Page};

/// A page asked for.
#[derive(Debug)]
pub struct Listing {
    pub selection: Selection,
    /// As an earlier page gave it.
    pub cursor: Option<String>,
    pub limit: usize,
}

/// What a walk over the keys had counted when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub count: u64,
    /// Whether it came to the last key in its time; there are at least `count` otherwise.
    pub is_complete: bool,
}

/// Keys of a page that is only counted.
const COUNTED_PAGE: usize = 1000;

impl Cache {
    /// One page of the keys that are selected. Where some shards do not answer, it has what the others know, and says
    /// so.
    ///
    /// # Errors
    /// The cursor is none of ours, or no shard answers.
    pub async fn list(&self, namespace: &Namespace, listing: &Listing) -> Result<Page, Error> {
        let started = Moment::now();
        let result = self.page(namespace, listing).await;
        let begun = Begun { namespace: namespace.as_str(), operation: Operation::List, at: started };
        let subject = || subject(namespace, &listing.selection);
        match &result {
            // As with batches: one shard that failed makes it a failure.
            Ok(Page { failed, .. }) if !failed.is_empty() => {
                self.observe_as(&begun, Answer::Failed, Told::InPart(&failed[0]), subject);
            }
            _ => self.observe(&begun, &result, subject),
        }
        result
    }

    /// How many live keys are selected: what a flush would delete now. Holds one page of them at a time.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn count(&self, namespace: &Namespace, selection: &Selection) -> Result<u64, Error> {
        Ok(self.counted(namespace, selection, None).await?.count)
    }

    /// The same as far as it comes until `end`.
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
        let begun = Begun { namespace: namespace.as_str(), operation: Operation::List, at: started };
        self.observe(&begun, &result, || subject(namespace, selection));
        result.map(|()| counted)
    }

    async fn walk(&self, namespace: &Namespace, selection: &Selection, counted: &mut Counted) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let mut page = self.store.list(namespace, selection, cursor, COUNTED_PAGE).await?;
            // What a flush would delete is known only where every shard tells.
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
