//! The state of one connection: what the client chose, without I/O.

use std::sync::Arc;

use super::client::Client;
use super::reply::Version;
use crate::config::Databases;
use crate::model::Namespace;
use crate::net::{Budget, Share};

/// The user name that clients send when they have only a password. It chooses no namespace.
const DEFAULT_USER: &str = "default";

/// The commands after MULTI may have this many bytes together.
pub const MAX_QUEUED_BYTES: usize = 4 << 20;

/// Which replies a client gets, see `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// This many commands are not answered.
    Skip(u8),
}

/// How the namespace was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// By its number.
    Number(u32),
    /// By AUTH; SELECT is an error then.
    Auth,
}

/// Why a namespace cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// AUTH has chosen one.
    ChosenByAuth,
    NoSuchNumber,
    InvalidName,
}

/// The state of one connection.
pub struct Session {
    pub client: Arc<Client>,
    namespace: Namespace,
    choice: Choice,
    pub reply_mode: ReplyMode,
    /// The memory of large replies that are not sent yet.
    pub memory: Share<Arc<Budget>>,
    /// The commands since MULTI.
    pub queue: Option<Queue>,
    /// The client asked to be disconnected, or must be.
    pub is_closing: bool,
}

/// The commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Queue {
    pub commands: Vec<Vec<Vec<u8>>>,
    bytes: usize,
    /// A command was refused, so EXEC refuses all.
    pub is_broken: bool,
}

impl Session {
    pub fn new(client: Arc<Client>, databases: &Databases, answers: Arc<Budget>) -> Self {
        let namespace = databases.namespace(0).expect("0 always has a namespace");
        let choice = Choice::Number(0);
        let (reply_mode, memory) = (ReplyMode::On, Share::of(answers));
        let session = Self { client, namespace, choice, reply_mode, memory, queue: None, is_closing: false };
        session.show();
        session
    }

    /// Everything as on a new connection (RESET).
    pub fn reset(&mut self, databases: &Databases) {
        {
            let mut names = self.client.names.lock();
            names.name.clear();
            names.version = Version::default();
        }
        self.namespace = databases.namespace(0).expect("0 always has a namespace");
        self.choice = Choice::Number(0);
        (self.reply_mode, self.queue) = (ReplyMode::On, None);
        self.show();
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether the namespace was chosen by AUTH, so that the client has no numbers.
    pub fn is_named(&self) -> bool {
        self.choice == Choice::Auth
    }

    /// Chooses a namespace by its number.
    ///
    /// # Errors
    /// There is no such number, or AUTH has chosen a namespace.
    pub fn select(&mut self, number: u32, databases: &Databases) -> Result<(), Refused> {
        if self.is_named() {
            return Err(Refused::ChosenByAuth);
        }
        self.namespace = databases.namespace(number).ok_or(Refused::NoSuchNumber)?;
        self.choice = Choice::Number(number);
        self.show();
        Ok(())
    }

    /// Chooses the namespace that is called like the user.
    ///
    /// # Errors
    /// The name is not the name of a namespace.
    pub fn authenticate(&mut self, user: &[u8]) -> Result<(), Refused> {
        let user = std::str::from_utf8(user).map_err(|_| Refused::InvalidName)?;
        if user != DEFAULT_USER {
            self.namespace = Namespace::parse(user).map_err(|_| Refused::InvalidName)?;
            self.choice = Choice::Auth;
            self.show();
        }
        Ok(())
    }

    /// Shows the choice to `CLIENT LIST`.
    fn show(&self) {
        self.client.names.lock().database = match self.choice {
            Choice::Number(number) => number.to_string(),
            Choice::Auth => self.namespace.to_string(),
        };
    }
}

impl Queue {
    /// Adds a command; false if there is no room.
    pub fn add(&mut self, arguments: Vec<Vec<u8>>) -> bool {
        const OVERHEAD: usize = size_of::<Vec<u8>>();
        self.bytes += arguments.iter().map(|argument| argument.len() + OVERHEAD).sum::<usize>();
        if self.bytes > MAX_QUEUED_BYTES {
            self.is_broken = true;
            self.commands.clear();
            return false;
        }
        self.commands.push(arguments);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RespConfig, Settings};
    use crate::resp::client::Clients;

    fn session() -> (Session, Databases) {
        let given = [("SIDECACHE_RESP_DATABASES".to_owned(), "1=sessions".to_owned())];
        let databases = RespConfig::parse(&Settings::gather(None, given, []).unwrap()).unwrap().databases;
        let client = Clients::default().add("127.0.0.1:1".parse().unwrap());
        (Session::new(client, &databases, Arc::new(Budget::new(1000))), databases)
    }

    #[test]
    fn a_number_or_a_user_chooses_the_namespace() {
        let (mut session, databases) = session();
        let name = |session: &Session| session.namespace().to_string();
        assert_eq!(name(&session), "default");
        session.select(1, &databases).unwrap();
        assert_eq!((name(&session), &*session.client.names.lock().database), ("sessions".to_owned(), "1"));
        session.authenticate(b"default").unwrap();
        assert_eq!(name(&session), "sessions", "a password alone chooses nothing");
        assert_eq!(session.authenticate(b"a b"), Err(Refused::InvalidName));
        assert_eq!(session.select(1 << 20, &databases), Err(Refused::NoSuchNumber));
        session.authenticate(b"shop").unwrap();
        assert_eq!(name(&session), "shop");
        assert_eq!(session.select(0, &databases), Err(Refused::ChosenByAuth));
        session.reset(&databases);
        assert_eq!((name(&session), session.select(1, &databases)), ("default".to_owned(), Ok(())));
    }

    #[test]
    fn queued_commands_are_bounded() {
        let mut queue = Queue::default();
        let mut added = 0;
        while queue.add(vec![vec![0; 1000]]) {
            added += 1;
        }
        assert!(added > 4000 && queue.is_broken && queue.commands.is_empty(), "{added}");
    }
}
