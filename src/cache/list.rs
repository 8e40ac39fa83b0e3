//! Listing the live keys of a namespace, page by page.

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
