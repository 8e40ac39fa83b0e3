//! Recent results of flushes and deletions on this instance, for the pages that show them. The address of such a page
//! contains only the random name of a result. If it contained the result itself, anybody could invent a link to a
//! page that reports a deletion that never happened.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use parking_lot::Mutex;
use serde::Deserialize;

use crate::cache::Counted;
use crate::model::{EntryKey, Namespace, Selection};

/// How many of the latest results are kept.
const MOST: usize = 256;

/// The query of a page that shows a result.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultQuery {
    pub result: String,
}

/// The result of a flush.
#[derive(Clone, Debug)]
pub struct FlushResult {
    pub namespace: Namespace,
    pub selection: Selection,
    pub announced: Counted,
    pub deleted: u64,
}

/// The result of the deletion of a key.
#[derive(Clone, Debug)]
pub struct DeleteResult {
    pub key: EntryKey,
    pub was_there: bool,
}

/// Results by name, the latest last.
pub struct Results<T>(Mutex<VecDeque<(String, T)>>);

impl<T> Default for Results<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Results<T> {
    /// Keeps a result and returns its name for [`Results::find`].
    pub fn keep(&self, result: T) -> String {
        // The hasher's keys come from the system's random numbers.
        let half = || RandomState::new().hash_one(0);
        let name = format!("{:016x}{:016x}", half(), half());
        let mut kept = self.0.lock();
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back((name.clone(), result));
        name
    }

    /// The result of that name. `None` if this instance has no such result, or no longer keeps it.
    pub fn find(&self, name: &str) -> Option<T> {
        let kept = self.0.lock();
        let found = kept.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, result)| result.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_results_are_found_by_their_names() {
        let results = Results::default();
        let names: Vec<String> = (0..=MOST).map(|number| results.keep(number)).collect();
        assert_eq!(results.find(&names[MOST]).unwrap(), MOST);
        assert_eq!(results.find(&names[1]).unwrap(), 1);
        assert_eq!((results.find(&names[0]), results.find("")), (None, None));
    }
}
