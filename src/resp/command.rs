//! A command: how it is described, what runs it, and what it gets.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use super::decode::{Request, integer};
use super::door::Door;
use super::failure::{Answer, Failure, NOT_AN_INTEGER};
use super::reply::Reply;
use super::session::Session;
use crate::clock::Moment;
use crate::model::{EntryKey, KeyRef};

/// One row of the table of commands.
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// The number of arguments, the name included; negative: at least so many.
    pub arity: i32,
    /// The flags that `COMMAND` shows.
    pub flags: &'static [&'static str],
    /// The first and the last argument that is a key, and the distance of two keys; a negative last counts from the
    /// end.
    pub keys: (i32, i32, i32),
    pub group: &'static str,
    /// The release of Redis in which the command first appeared.
    pub since: &'static str,
    pub summary: &'static str,
    pub handler: Handler,
}

/// The running work of a command.
pub type Work<'c> = Pin<Box<dyn Future<Output = Answer> + Send + 'c>>;

/// What runs a command.
pub enum Handler {
    /// Never waits.
    Now(fn(&mut Call<'_>) -> Answer),
    Wait(for<'c> fn(&'c mut Call<'_>) -> Work<'c>),
    /// The first function tries without waiting; if it returns `None`, nothing has happened, so call the second.
    NowOrWait(fn(&mut Call<'_>) -> Option<Answer>, for<'c> fn(&'c mut Call<'_>) -> Work<'c>),
    /// Begins, ends or runs a queue of commands.
    Transaction(Transaction),
    /// A line of HTTP: a web page made a browser send it to this port. The connection is closed.
    CrossProtocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    Multi,
    Exec,
    Discard,
}

/// One call of a command.
pub struct Call<'a> {
    pub door: &'a Door,
    pub commands: &'a Commands,
    pub session: &'a mut Session,
    pub reply: &'a mut Reply,
    pub request: Request<'a>,
    /// When the request had arrived.
    pub now: Moment,
}

impl<'a> Call<'a> {
    pub fn argument(&self, index: usize) -> &'a [u8] {
        self.request.at(index)
    }

    /// The number of arguments, the command's name included.
    pub fn len(&self) -> usize {
        self.request.len()
    }

    /// The key with these bytes in the selected namespace.
    pub fn key_of(&self, bytes: &[u8]) -> Result<EntryKey, Failure> {
        let mut text = String::with_capacity(self.session.namespace().as_str().len() + 1 + bytes.len());
        Ok(KeyRef::of_bytes(self.session.namespace(), bytes, &mut text)?.to_key())
    }

    /// The key in the argument at `index`.
    pub fn key(&self, index: usize) -> Result<EntryKey, Failure> {
        self.key_of(self.argument(index))
    }

    /// The number in the argument at `index`.
    pub fn integer(&self, index: usize) -> Result<i64, Failure> {
        integer(self.argument(index)).ok_or(NOT_AN_INTEGER)
    }

    /// Whether the argument at `index` is this word, in any case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.argument(index).eq_ignore_ascii_case(word.as_bytes())
    }
}

/// All commands, by name.
pub struct Commands {
    all: &'static [Command],
    by_name: HashMap<&'static [u8], usize>,
}

impl Commands {
    pub fn new(all: &'static [Command]) -> Self {
        Self { all, by_name: all.iter().enumerate().map(|(i, command)| (command.name.as_bytes(), i)).collect() }
    }

    pub fn all(&self) -> &'static [Command] {
        self.all
    }

    /// The number of the command with this name, in any case.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        const LONGEST: usize = 16;
        let mut lower = [0; LONGEST];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_name.get(&*lower).copied()
    }
}

impl Command {
    /// Whether it may be called with this many arguments, its name included.
    pub fn takes(&self, count: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= least } else { count == least }
    }
}
