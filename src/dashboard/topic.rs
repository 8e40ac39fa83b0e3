//! Which page an event stream belongs to, and which parts of the page it replaces.

use maud::Markup;
use serde::Deserialize;

use super::address::{OVERVIEW, with_query};
use super::problem::Problem;
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
    type Error = Problem;

    fn try_from(query: EventsQuery) -> Result<Self, Problem> {
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
            other => {
                let text = format!("`page` must be overview, namespace, job or condition, not {other:?}");
                Err(Error::InvalidQuery(text).into())
            }
        }
    }
}

impl Topic {
    /// The address of the event stream.
    pub fn path(&self) -> String {
        let path = format!("{OVERVIEW}/events");
        match self {
            Self::Overview(asked) => {
                let mut parameters = vec![("page", "overview")];
                let asked = asked.parameters();
                parameters.extend(asked.iter().map(|(name, value)| (*name, value.as_str())));
                with_query(&path, &parameters)
            }
            Self::Namespace(namespace) => with_query(&path, &[("page", "namespace"), ("ns", namespace.as_str())]),
            Self::Job(id) => with_query(&path, &[("page", "job"), ("id", id.as_str())]),
            Self::Condition => with_query(&path, &[("page", "condition")]),
        }
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
