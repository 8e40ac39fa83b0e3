//! The table of namespaces on the overview: which namespaces it shows, and in which order.

use serde::Deserialize;

use super::address::{OVERVIEW, with_query};
use crate::http::Error;
use crate::namespaces::Record;
use crate::store::Totals;
use crate::trends::Summary;

/// Rows per page in the table of namespaces.
pub const ROWS: usize = 100;

/// A namespace with its recent numbers, if they are known.
pub struct NamespaceRow {
    pub record: Record,
    pub recent: Option<Summary>,
}

impl NamespaceRow {
    pub fn name(&self) -> &str {
        self.record.namespace.as_str()
    }

    /// The totals as last read. If some shards did not answer, the totals of the other shards.
    pub fn totals(&self) -> Option<Totals> {
        self.recent.as_ref().and_then(|recent| recent.totals.or(recent.partial_totals))
    }

    /// Whether the totals cover only a part of the shards.
    pub fn is_partial(&self) -> bool {
        self.recent.as_ref().is_some_and(|recent| recent.totals.is_none() && recent.partial_totals.is_some())
    }
}

/// A column of the table of namespaces. The table can be sorted by each column.
pub struct Column {
    /// Its name in an address.
    pub name: &'static str,
    pub heading: &'static str,
    /// The number in the column, if it is known.
    number: fn(&NamespaceRow) -> Option<f64>,
}

/// The index of the column with the names of the namespaces.
pub const NAME: usize = 0;

pub const COLUMNS: [Column; 7] = [
    Column { name: "name", heading: "Namespace", number: |_| None },
    Column { name: "reads", heading: "Reads", number: |row| row.recent.as_ref()?.reads_per_second },
    Column { name: "hit_rate", heading: "Hit rate", number: |row| row.recent.as_ref()?.hit_rate },
    Column { name: "keys", heading: "Keys", number: |row| Some(row.totals()?.keys as f64) },
    Column { name: "memory", heading: "Memory", number: |row| Some(row.totals()?.bytes as f64) },
    Column { name: "evictions", heading: "Evictions", number: |row| Some(row.totals()?.evictions as f64) },
    Column { name: "expirations", heading: "Expirations", number: |row| Some(row.totals()?.expirations as f64) },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    Ascending,
    Descending,
}

impl Order {
    /// The order that a user expects first: numbers start with the highest.
    fn default_of(column: usize) -> Self {
        if column == NAME { Self::Ascending } else { Self::Descending }
    }
}

/// Which namespaces to show, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableQuery {
    /// A part of the name, in lower case. The search ignores the case of letters.
    pub search: String,
    /// The index of a column in [`COLUMNS`].
    pub column: usize,
    pub order: Order,
    /// The index of the first row to show.
    pub from: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverviewQuery {
    pub q: Option<String>,
    pub sort: Option<String>,
    pub order: Option<String>,
    pub from: Option<String>,
}

/// The longest text to search for, in characters. No name is longer.
pub const MAX_SEARCHED: usize = 100;

impl TableQuery {
    /// # Errors
    /// [`Error::InvalidQuery`], which names the parameter.
    pub fn parse(query: OverviewQuery) -> Result<Self, Error> {
        let OverviewQuery { q: search, sort, order, from } = query;
        let column = match sort.as_deref() {
            None => NAME,
            Some(name) => COLUMNS.iter().position(|column| column.name == name).ok_or_else(|| {
                let names = COLUMNS.map(|column| column.name).join(", ");
                Error::InvalidQuery(format!("`sort` must be one of {names}, not {name:?}"))
            })?,
        };
        let order = match order.as_deref() {
            Some("asc") => Order::Ascending,
            Some("desc") => Order::Descending,
            None => Order::default_of(column),
            Some(other) => return Err(Error::InvalidQuery(format!("`order` must be asc or desc, not {other:?}"))),
        };
        let wrong = |text: &String| Error::InvalidQuery(format!("`from` must be the number of a row, not {text:?}"));
        let from = from.map_or(Ok(0), |text| text.parse().map_err(|_| wrong(&text)))?;
        let search = search.unwrap_or_default().trim().chars().take(MAX_SEARCHED).collect::<String>();
        Ok(Self { search: search.to_ascii_lowercase(), column, order, from })
    }

    /// The parameters of the query. Parameters with their default value are left out.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("q", self.search.clone())];
        if self.column != NAME {
            parameters.push(("sort", COLUMNS[self.column].name.to_owned()));
        }
        if self.order != Order::default_of(self.column) {
            let order = if self.order == Order::Ascending { "asc" } else { "desc" };
            parameters.push(("order", order.to_owned()));
        }
        if self.from > 0 {
            parameters.push(("from", self.from.to_string()));
        }
        parameters
    }

    pub fn path(&self) -> String {
        with_query(OVERVIEW, self.parameters())
    }

    /// This query, but sorted by `column`. If it is sorted by that column already, the order is reversed.
    pub fn sorted_by(&self, column: usize) -> Self {
        let order = match (self.column == column, self.order) {
            (true, Order::Ascending) => Order::Descending,
            (true, Order::Descending) => Order::Ascending,
            (false, _) => Order::default_of(column),
        };
        Self { column, order, from: 0, ..self.clone() }
    }

    /// The first row that is shown. If `from` is past the end, the last page is shown.
    pub fn first_of(&self, all: usize) -> usize {
        if self.from < all { self.from } else { all.saturating_sub(1) / ROWS * ROWS }
    }

    /// The matching rows of this page, sorted, and the number of matching rows on all pages.
    pub fn select<'r>(&self, rows: &'r [NamespaceRow]) -> (Vec<&'r NamespaceRow>, usize) {
        let matches = |row: &&NamespaceRow| row.name().to_ascii_lowercase().contains(&self.search);
        let mut found: Vec<&NamespaceRow> = rows.iter().filter(matches).collect();
        found.sort_by(|one, other| {
            // Unknown numbers sort below all others.
            let number = |row| (COLUMNS[self.column].number)(row).unwrap_or(-1.0);
            let ordering = match self.column {
                NAME => one.name().cmp(other.name()),
                _ => number(one).total_cmp(&number(other)),
            };
            let ordering = if self.order == Order::Descending { ordering.reverse() } else { ordering };
            ordering.then_with(|| one.name().cmp(other.name()))
        });
        let all = found.len();
        (found.into_iter().skip(self.first_of(all)).take(ROWS).collect(), all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Policy, PolicyFields, UnixMillis};

    fn row(name: &str, keys: Option<u64>) -> NamespaceRow {
        let recent = Summary {
            name: name.to_owned(),
            totals: keys.map(|keys| Totals { keys, ..Totals::default() }),
            partial_totals: None,
            reads_per_second: None,
            hit_rate: None,
            writes_per_second: 0.0,
            quota_bytes: 0,
        };
        let (created_at, updated_at) = (UnixMillis(0), UnixMillis(0));
        let (namespace, policy) = (Namespace::parse(name).unwrap(), Policy::parse(&PolicyFields::default()).unwrap());
        NamespaceRow { record: Record { namespace, policy, created_at, updated_at }, recent: Some(recent) }
    }

    fn asked(search: &str, sort: Option<&str>, order: Option<&str>) -> TableQuery {
        let text = |text: &str| Some(text.to_owned());
        let (sort, order) = (sort.and_then(text), order.and_then(text));
        TableQuery::parse(OverviewQuery { q: text(search), sort, order, from: None }).unwrap()
    }

    #[test]
    fn rows_are_found_by_a_part_of_their_name_and_sorted_by_a_column() {
        let rows = [row("beta", Some(3)), row("Alpha", None), row("gamma", Some(3)), row("delta", Some(9))];
        let names =
            |asked: &TableQuery| asked.select(&rows).0.iter().map(|row| row.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&asked("", None, None)), ["Alpha", "beta", "delta", "gamma"]);
        assert_eq!(names(&asked(" ALPH ", None, None)), ["Alpha"]);
        assert_eq!(names(&asked("ta", Some("keys"), None)), ["delta", "beta"]);
        let by_keys = names(&asked("", Some("keys"), Some("asc")));
        assert_eq!(by_keys, ["Alpha", "beta", "gamma", "delta"], "unknown numbers sort below all others");
    }

    #[test]
    fn a_page_has_a_bounded_number_of_rows() {
        let rows: Vec<NamespaceRow> = (0..250).map(|i| row(&format!("n{i:03}"), Some(i))).collect();
        let last = TableQuery { from: 200, ..asked("", None, None) };
        let (shown, all) = last.select(&rows);
        assert_eq!((shown.len(), all, shown[0].name()), (50, 250, "n200"));
        assert_eq!(asked("", None, None).select(&rows).0.len(), ROWS);
        for from in [250, usize::MAX] {
            let past = TableQuery { from, ..asked("", None, None) };
            assert_eq!(past.select(&rows).0[0].name(), "n200", "past the end, the last page is shown");
            assert_eq!(past.first_of(0), 0);
        }
    }

    #[test]
    fn a_heading_sorts_and_then_reverses_the_order() {
        let by_name = asked("x", None, None);
        let keys = COLUMNS.iter().position(|column| column.name == "keys").unwrap();
        let by_keys = by_name.sorted_by(keys);
        assert_eq!(by_keys.path(), "/dashboard?q=x&sort=keys");
        assert_eq!(by_keys.sorted_by(keys).path(), "/dashboard?q=x&sort=keys&order=asc");
        assert_eq!(by_keys.sorted_by(NAME), by_name);
        assert_eq!(by_name.sorted_by(NAME).path(), "/dashboard?q=x&order=desc");
    }
}
