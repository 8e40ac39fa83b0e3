//! Reading rows back, page by page.

use crate::database::{Database, Error, Transaction, signed};
use crate::journal;
use crate::model::{Namespace, Operation, UnixMillis};

/// Scans the newest `$5` rows of a namespace, from `$2` on and after the cursor (`$3`, `$4`). Returns those of the
/// operation `$6`, and also the last scanned row, which tells where the scan ended. The innermost query walks the
/// index (namespace, timestamp) backwards and stops at its limit.
const PAGE: &str = "SELECT id, {millis timestamp}, operation, key_pattern, hit, latency_ms, request_id, trace_id, \
     place, outcome, status, error_code, tier, client, instance FROM \
     (SELECT *, row_number() OVER (ORDER BY timestamp DESC, id DESC) AS place FROM \
     (SELECT * FROM cache_access_logs \
     WHERE namespace = $1 AND timestamp >= {date $2} AND timestamp <= {date $3} \
     AND (timestamp < {date $3} OR id < $4) ORDER BY timestamp DESC, id DESC LIMIT $5) AS scanned) AS numbered \
     WHERE CAST($6 AS text) IS NULL OR operation = $6 OR place = $5 ORDER BY place LIMIT $7";

/// The maximum number of rows to scan for one page when only some operations are wanted. The page ends there, however
/// few rows it has, so that no page takes long.
const MAX_SCANNED: i64 = 20_000;

/// Selects rows.
#[derive(Debug)]
pub struct Query {
    /// Only rows from this time on.
    pub since: Option<UnixMillis>,
    pub operation: Option<Operation>,
    pub cursor: Option<Cursor>,
    pub limit: usize,
}

/// The position of a listing: time and id of the last row seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    timestamp_ms: i64,
    id: i64,
}

/// One page of rows, newest first.
#[derive(Debug)]
pub struct Page {
    pub lines: Vec<Line>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<Cursor>,
}

/// One operation, as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub at: UnixMillis,
    pub operation: String,
    pub key_pattern: String,
    pub hit: Option<bool>,
    pub latency_ms: f64,
    /// `None` in rows of an earlier release.
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    pub ending: LoggedEnding,
}

/// How an operation ended, as it was logged; all `None` in rows of an earlier release.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoggedEnding {
    pub outcome: Option<String>,
    pub status: Option<i32>,
    pub error_code: Option<String>,
    pub tier: Option<String>,
    pub client: Option<String>,
    pub instance: Option<String>,
}

impl Cursor {
    /// Distinguishes this format from later ones.
    const FORM: &str = "log1";
    /// Before the newest row.
    const START: Self = Self { timestamp_ms: UnixMillis::LATEST_DATE.0 as i64, id: i64::MAX };

    pub fn encode(self) -> String {
        journal::encode(Self::FORM, &[self.timestamp_ms, self.id])
    }

    /// The cursor in `text`; `None` if it is invalid.
    pub fn decode(text: &str) -> Option<Self> {
        let [timestamp_ms, id] = journal::decode(Self::FORM, text)?;
        (timestamp_ms <= Self::START.timestamp_ms).then_some(Self { timestamp_ms, id })
    }
}

/// A row as both databases return it: id, time (Unix ms), operation, pattern, hit, latency, request id, trace id,
/// position among the scanned rows (from 1), and the fields of [`LoggedEnding`].
type PageRow = (
    i64,
    i64,
    String,
    String,
    Option<bool>,
    f64,
    Option<String>,
    Option<String>,
    i64,
    Option<String>,
    Option<i32>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// The rows of `namespace` that `query` selects.
pub(super) async fn read(database: &Database, namespace: &Namespace, query: &Query) -> Result<Page, Error> {
    let since = query.since.map_or(0, |since| signed(since.0)).min(Cursor::START.timestamp_ms);
    let before = query.cursor.unwrap_or(Cursor::START);
    let select = async |transaction: &mut Transaction| {
        // A generic plan for any limit may sort the whole table.
        let select = transaction.query(PAGE).planned_for_each_call().bind(namespace.as_str()).bind(since);
        let select = select.bind(before.timestamp_ms).bind(before.id).bind(query.scan_limit());
        select.bind(query.operation.map(Operation::as_str)).bind(query.row_limit()).fetch_all().await
    };
    Ok(query.page(database.transaction(select).await?))
}

impl Query {
    /// One more row than the page size, to know whether there are more rows.
    fn row_limit(&self) -> i64 {
        self.limit as i64 + 1
    }

    /// How many rows to scan at most.
    fn scan_limit(&self) -> i64 {
        if self.operation.is_some() { MAX_SCANNED } else { self.row_limit() }
    }

    /// Builds the page from the rows that were found.
    fn page(&self, found: Vec<PageRow>) -> Page {
        let scanned = self.scan_limit();
        let mut page = Page { lines: Vec::new(), next: None };
        let mut last = None;
        for found in found {
            let (id, timestamp_ms, operation, key_pattern, hit, latency_ms, request_id, trace_id, place, ..) = found;
            let (.., outcome, status, error_code, tier, client, instance) = found;
            let here = Cursor { timestamp_ms, id };
            let is_wanted = self.operation.is_none_or(|wanted| wanted.as_str() == operation);
            if is_wanted && page.lines.len() == self.limit {
                page.next = last;
                return page;
            }
            if is_wanted {
                let at = UnixMillis(u64::try_from(timestamp_ms).unwrap_or(0));
                let ending = LoggedEnding { outcome, status, error_code, tier, client, instance };
                page.lines.push(Line { at, operation, key_pattern, hit, latency_ms, request_id, trace_id, ending });
            }
            last = Some(here);
            if place == scanned {
                // The scan ended here, and there may be more rows.
                page.next = last;
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(operation: Option<Operation>, limit: usize) -> Query {
        Query { since: None, operation, cursor: None, limit }
    }

    fn found(id: i64, operation: &str, place: i64) -> PageRow {
        let (operation, pattern) = (operation.to_owned(), "*".to_owned());
        (id, 1000 + id, operation, pattern, None, 0.1, None, None, place, None, None, None, None, None, None)
    }

    fn at(id: i64) -> Option<Cursor> {
        Some(Cursor { timestamp_ms: 1000 + id, id })
    }

    #[test]
    fn a_page_ends_where_it_is_full_or_the_look_ended() {
        let all = query(None, 2);
        let rows = |ids: &[i64]| (1..).zip(ids).map(|(place, id)| found(*id, "get", place)).collect::<Vec<_>>();
        assert_eq!(all.page(rows(&[9, 8])).next, None);
        let page = all.page(rows(&[9, 8, 7]));
        assert_eq!((page.lines.len(), page.next), (2, at(8)));

        let some = query(Some(Operation::Flush), 2);
        let page = some.page(vec![found(9, "flush", 4), found(3, "get", MAX_SCANNED)]);
        assert_eq!((page.lines.len(), page.next), (1, at(3)), "few were found, and there may be more");
        let page = some.page(vec![found(9, "flush", 4), found(3, "flush", MAX_SCANNED)]);
        assert_eq!((page.lines.len(), page.next), (2, at(3)));
        let page = some.page(vec![found(9, "flush", 4), found(3, "flush", 5), found(2, "get", MAX_SCANNED)]);
        assert_eq!((page.lines.len(), page.next), (2, at(2)));
        assert_eq!(some.page(vec![found(9, "flush", 4)]).next, None);
    }

    #[test]
    fn cursors_of_no_date_are_refused() {
        assert_eq!(Cursor::decode(&Cursor::START.encode()), Some(Cursor::START));
        assert_eq!(Cursor::decode(&Cursor { timestamp_ms: i64::MAX, id: 1 }.encode()), None);
    }
}
