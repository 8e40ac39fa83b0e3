//! Listing the live keys of a namespace, page by page, and counting them.

use super::flush::subject;
use super::observe::Begun;
use super::{Cache, Error};
use crate::clock::Moment;
use crate::model::{Namespace, Operation, Selection};
use crate::store::{Cursor, Page};

/// A page asked for.
#[derive(Debug)]
pub struct Listing {
    pub selection: Selection,
    /// As an earlier page gave it.
    pub cursor: Option<String>,
    pub limit: usize,
}

/// Keys of a page that is only counted.
const COUNTED_PAGE: usize = 1000;

impl Cache {
    /// One page of the keys that are selected.
    ///
    /// # Errors
    /// The cursor is none of ours, or a shard failed.
    pub async fn list(&self, namespace: &Namespace, listing: &Listing) -> Result<Page, Error> {
        let started = Moment::now();
        let result = self.page(namespace, listing).await;
        let begun = Begun { namespace: namespace.as_str(), operation: Operation::List, at: started };
        self.observe(&begun, &result, || subject(namespace, &listing.selection));
        result
    }

    /// How many live keys are selected: what a flush would delete now. Holds one page of them at a time.
    ///
    /// # Errors
    /// A shard failed.
    pub async fn count(&self, namespace: &Namespace, selection: &Selection) -> Result<u64, Error> {
        let started = Moment::now();
        let result = self.walk(namespace, selection).await;
        let begun = Begun { namespace: namespace.as_str(), operation: Operation::List, at: started };
        self.observe(&begun, &result, || subject(namespace, selection));
        result
    }

    async fn walk(&self, namespace: &Namespace, selection: &Selection) -> Result<u64, Error> {
        let (mut count, mut cursor) = (0, None);
        loop {
            let page = self.store.list(namespace, selection, cursor, COUNTED_PAGE).await?;
            count += page.keys.len() as u64;
            let Some(next) = page.next else { return Ok(count) };
            cursor = Some(next);
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
