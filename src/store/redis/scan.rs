//! Walks over the names of all Redis keys of a shard, step by step.
//!
//! A SCAN cursor is only valid on the server that gave it, so each step is fenced. If the server or the record has
//! changed, the walk ends with an error and must start again.

use std::sync::Arc;

use fred::types::{Resp3Frame as Frame, Value};

use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts::{self, FENCE};
use super::shard::{Effect, Sender, Shard};
use crate::model::Namespace;
use crate::store::Error;

/// Redis keys that one step looks at.
const NAMES_PER_STEP: &str = "500";

/// A running walk.
pub struct Scan {
    settled: Arc<SettledRecord>,
    pattern: String,
    cursor: String,
    is_over: bool,
}

impl Scan {
    /// Begins a walk over the names that match a Redis pattern.
    ///
    /// # Errors
    /// The shard's ring record is not settled.
    pub fn new(shard: &Shard, pattern: String) -> Result<Self, Error> {
        let settled = shard.ring_state.settled().ok_or_else(|| shard.unsettled())?;
        Ok(Self { settled, pattern, cursor: "0".to_owned(), is_over: false })
    }

    /// The names of the next step, which may be none; `None` at the end. A name may occur more than once.
    ///
    /// # Errors
    /// The shard failed, or its server or record has changed.
    pub async fn next(&mut self, shard: &Shard) -> Result<Option<Vec<String>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let arguments =
            |_: &SettledRecord| [self.cursor.as_str(), &self.pattern, NAMES_PER_STEP].map(Value::from).to_vec();
        let step = shard.ask_under(&self.settled, Sender::Upkeep, &scripts::SCAN, Effect::Read, arguments, names);
        let Some((cursor, names)) = step.await? else {
            shard.ring_state.doubted.notify_one();
            return Err(shard.unsettled());
        };
        self.is_over = cursor == "0";
        self.cursor = cursor;
        Ok(Some(names))
    }
}

/// Parses a cursor and names. Names that are not UTF-8 are skipped, because they are not ours.
pub fn names(frame: Frame) -> Result<(String, Vec<String>), Unexpected> {
    let [cursor, names] = reply::tuple(frame)?;
    let names = reply::array(names)?.into_iter().filter_map(|name| reply::text(name).ok()).collect();
    Ok((reply::text(cursor)?, names))
}

impl Shard {
    /// The namespaces that have data or read counts on this shard.
    ///
    /// # Errors
    /// The shard failed.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>, Error> {
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let arguments = [FENCE, &cursor, "COUNT", "1000"];
            let (next, members) = self.read("SSCAN", arguments.map(Value::from).to_vec(), names).await?;
            let of_member = |member: &String| {
                let name = member.strip_prefix("n:").or_else(|| member.strip_prefix("r:"))?;
                Namespace::parse(name).ok()
            };
            found.extend(members.iter().filter_map(of_member));
            cursor = next;
            if cursor == "0" {
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
        }
    }
}
