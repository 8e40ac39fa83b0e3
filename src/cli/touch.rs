//! The command `touch`: changes when an entry expires, or its tags, without its value.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ureq::http::Method;

use super::entry::absent;
use super::failure::Failure;
use super::screen::Screen;
use super::service::{Service, entry_path};
use crate::number;

/// Change when an entry expires, or its tags, but not its value; exit code 1 if it does not exist
#[derive(Args)]
#[command(alias = "patch")]
#[command(after_help = "\
Examples:
  sidecache touch sessions s_1 --ttl 30m
  sidecache touch users user_1 --persist
  sidecache touch users user_1 --tag staff --tag vip")]
pub struct Touch {
    /// Namespace
    #[arg(value_name = "NS", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Key: any text; / and % need no escaping
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// The entry expires after this time: 90 (seconds), 5m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse_ttl, conflicts_with = "persist")]
    ttl: Option<u64>,
    /// The entry never expires
    #[arg(long)]
    persist: bool,
    /// A tag; replaces all tags of the entry; can be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Remove all tags
    #[arg(long, conflicts_with = "tags")]
    no_tags: bool,
}

#[derive(Deserialize)]
struct Changed {
    ttl: Option<u64>,
}

#[derive(Serialize)]
struct ChangedDocument<'a> {
    success: bool,
    namespace: &'a str,
    key: &'a str,
    ttl: Option<u64>,
}

/// Parses a TTL: whole seconds, at least one.
fn parse_ttl(text: &str) -> Result<u64, String> {
    match number::parse_seconds(text)? {
        0 => Err("a TTL is at least one second; --persist makes an entry that never expires".to_owned()),
        seconds => Ok(seconds),
    }
}

impl Touch {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let body = self.body();
        if body.is_empty() {
            return Err(Failure::usage("what should change? give --ttl, --persist, --tag or --no-tags"));
        }
        let Self { namespace, key, .. } = &self;
        let body = Value::Object(body).to_string().into_bytes();
        let answer = match service.send(&Method::PATCH, &entry_path(namespace, key), &[], body) {
            Err(failure) if failure.is("key_not_found") => return Err(absent(namespace, key)),
            answer => answer?,
        };
        let Changed { ttl } = answer.parse(service)?;
        let line = match ttl {
            Some(ttl) => format!("expires in {}", number::seconds(ttl)),
            None => "never expires".to_owned(),
        };
        screen.result(&ChangedDocument { success: true, namespace, key, ttl }, &line)
    }

    /// The body of the request; empty if nothing changes.
    fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        if self.persist || self.ttl.is_some() {
            body.insert("ttl".to_owned(), self.ttl.into());
        }
        if self.no_tags || !self.tags.is_empty() {
            body.insert("tags".to_owned(), self.tags.clone().into());
        }
        body
    }
}
