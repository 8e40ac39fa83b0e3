//! Which page an event stream belongs to, and which parts of the page it replaces.

use maud::Markup;
use serde::Deserialize;

use super::address::{OVERVIEW, with_query};
use super::table_query::{OverviewQuery, TableQuery};
use crate::http::Error;
use crate::jobs::Id;
use crate::model::Namespace;

/// The page that a stream belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Overview(TableQuery),
    Namespace(Namespace),
    Job(Id),
    /// Any other page: only the status and the warnings are updated.
    Condition,
}

/// A part of a page that is replaced as a whole: the `id` of its element, and the element.
pub type Region = (&'static str, Markup);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    pub page: String,
    pub ns: Option<String>,
    pub id: Option<String>,
    pub q: Option<String>,
    pub sort: Option<String>,
    pub order: Option<String>,
    pub from: Option<String>,
}

impl TryFrom<EventsQuery> for Topic {
    type Error = Error;

    fn try_from(query: EventsQuery) -> Result<Self, Error> {
        let EventsQuery { page, ns, id, q, sort, order, from } = query;
        match page.as_str() {
            "overview" => Ok(Self::Overview(TableQuery::parse(OverviewQuery { q, sort, order, from })?)),
            "namespace" => {
                let missing = || Error::InvalidQuery("`ns` must be the namespace of the page".to_owned());
                Ok(Self::Namespace(Namespace::parse(&ns.ok_or_else(missing)?)?))
            }
            "job" => {
                let wrong = || Error::InvalidQuery("`id` must be the id of a job".to_owned());
                Ok(Self::Job(id.as_deref().and_then(Id::parse).ok_or_else(wrong)?))
            }
            "condition" => Ok(Self::Condition),
            other => Err(Error::InvalidQuery(format!(
                "`page` must be overview, namespace, job or condition, not {other:?}"
            ))),
        }
    }
}

impl Topic {
    /// The address of the event stream.
    pub fn path(&self) -> String {
        let (page, parameters) = match self {
            Self::Overview(query) => ("overview", query.parameters()),
            Self::Namespace(namespace) => ("namespace", vec![("ns", namespace.to_string())]),
            Self::Job(id) => ("job", vec![("id", id.to_string())]),
            Self::Condition => ("condition", Vec::new()),
        };
        let page = [("page", page.to_owned())];
        with_query(&format!("{OVERVIEW}/events"), page.into_iter().chain(parameters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(page: &str, ns: Option<&str>) -> EventsQuery {
        let ns = ns.map(str::to_owned);
        EventsQuery { page: page.to_owned(), ns, id: None, q: None, sort: None, order: None, from: None }
    }

    #[test]
    fn the_query_of_a_page_gives_its_topic() {
        let topic = Topic::try_from(query("namespace", Some("users"))).unwrap();
        assert_eq!(topic.path(), "/dashboard/events?page=namespace&ns=users");
        assert_eq!(Topic::try_from(query("overview", None)).unwrap().path(), "/dashboard/events?page=overview");
        for wrong in [query("namespace", None), query("namespace", Some("a b")), query("other", None)] {
            assert!(Topic::try_from(wrong).is_err());
        }
    }
}
