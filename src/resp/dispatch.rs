//! Finds the command of a request, runs it, and writes its reply.

use std::borrow::Cow;
use std::ops::Range;

use tokio::time::timeout;

use super::command::{Call, Command, Commands, Handler, Transaction};
use super::decode::Request;
use super::door::Door;
use super::failure::{Answer, Failure, NO_MEMORY_FOR_REPLY, shown};
use super::reply::Reply;
use super::session::{Queue, ReplyMode, Session};
use crate::clock::Moment;
use crate::trace;

/// How many bytes of the name and of the arguments an error shows, as in Redis.
const SHOWN_BYTES: usize = 128;

const TIMEOUT: Failure = Failure(Cow::Borrowed("ERR the command was not answered in time"));
const TIMEOUT_OF_WRITE: Failure =
    Failure(Cow::Borrowed("ERR the command was not answered in time, and it may still be executed"));

/// A command that has to wait. Its arguments are still in the request.
pub struct Waiting {
    command: usize,
    /// Where its reply begins.
    begun: usize,
}

/// The parts of a connection that a command changes.
pub struct Parts<'a> {
    pub door: &'a Door,
    pub commands: &'a Commands,
    pub session: &'a mut Session,
    pub reply: &'a mut Reply,
}

impl Parts<'_> {
    fn call<'c>(&'c mut self, request: Request<'c>, now: Moment) -> Call<'c> {
        let Self { door, commands, session, reply } = self;
        Call { door, commands, session, reply, request, now }
    }

    /// Runs a command if it need not wait. Otherwise nothing has happened, and [`Parts::wait`] runs it.
    pub fn begin(&mut self, request: Request<'_>, now: Moment) -> Option<Waiting> {
        let begun = self.reply.bytes.len();
        self.door.metrics.resp_commands.increment(1);
        let command = match self.find(request) {
            Ok(command) => command,
            Err(failure) => {
                if let Some(queue) = &mut self.session.queue {
                    queue.is_broken = true;
                }
                self.end(begun, Err(failure));
                return None;
            }
        };
        self.session.client.active(now, command);
        let answer = match self.commands.all()[command].handler {
            Handler::CrossProtocol => {
                tracing::warn!(client = %self.session.client.address, "a client speaks HTTP to the port for Redis clients: closing its connection");
                self.session.is_closing = true;
                return None;
            }
            Handler::Transaction(_) => return Some(Waiting { command, begun }),
            _ if self.session.queue.is_some() && !is_never_queued(self.commands.all()[command].name) => {
                self.enqueue(request)
            }
            Handler::Now(run) => run(&mut self.call(request, now)),
            Handler::NowOrWait(run, _) => match run(&mut self.call(request, now)) {
                Some(answer) => answer,
                None => return Some(Waiting { command, begun }),
            },
            Handler::Wait(_) => return Some(Waiting { command, begun }),
        };
        self.end(begun, answer);
        None
    }

    /// Runs a command that has to wait.
    pub async fn wait(&mut self, waiting: Waiting, request: Request<'_>, now: Moment) {
        let Waiting { command, begun } = waiting;
        let command = &self.commands.all()[command];
        let answer = match command.handler {
            Handler::Transaction(Transaction::Multi) => self.multi(),
            Handler::Transaction(Transaction::Discard) => self.discard(),
            Handler::Transaction(Transaction::Exec) => self.exec(now).await,
            _ => self.run(command, request, now).await,
        };
        self.end(begun, answer);
    }

    /// Runs one command within the deadline of a request.
    async fn run(&mut self, command: &'static Command, request: Request<'_>, now: Moment) -> Answer {
        let caller = self.door.caller(self.session.client.address.ip());
        let (deadline, begun) = (self.door.request_timeout, self.reply.bytes.len());
        let mut call = self.call(request, now);
        let work = match command.handler {
            Handler::Wait(wait) => wait(&mut call),
            Handler::NowOrWait(now, wait) => match now(&mut call) {
                Some(answer) => return answer,
                None => wait(&mut call),
            },
            Handler::Now(run) => return run(&mut call),
            Handler::Transaction(_) | Handler::CrossProtocol => return Err(Failure::err("not in a transaction")),
        };
        let ended = trace::scope(caller, timeout(deadline, work)).await;
        ended.unwrap_or_else(|_| {
            self.reply.bytes.truncate(begun);
            Err(if command.flags.contains(&"write") { TIMEOUT_OF_WRITE } else { TIMEOUT })
        })
    }

    /// Finds the command and checks the number of its arguments.
    fn find(&self, request: Request<'_>) -> Result<usize, Failure> {
        let name = request.at(0);
        let index = self.commands.find(name).ok_or_else(|| unknown(request))?;
        let command = &self.commands.all()[index];
        if command.takes(request.len()) { Ok(index) } else { Err(wrong_arity(command.name)) }
    }

    /// Completes the reply that begins at `begun`.
    fn end(&mut self, begun: usize, answer: Answer) {
        if let Err(Failure(text)) = answer {
            self.reply.bytes.truncate(begun);
            self.reply.error(&text);
            self.door.metrics.resp_errors.increment(1);
        }
        match self.session.reply_mode {
            ReplyMode::On => return,
            ReplyMode::Off => {}
            ReplyMode::Skip(1) => self.session.reply_mode = ReplyMode::On,
            ReplyMode::Skip(left) => self.session.reply_mode = ReplyMode::Skip(left - 1),
        }
        self.reply.bytes.truncate(begun);
    }

    fn enqueue(&mut self, request: Request<'_>) -> Answer {
        let queue = self.session.queue.get_or_insert_default();
        if !queue.add(request.from(0).map(<[u8]>::to_vec).collect()) {
            return Err(Failure::err("the commands after MULTI are too large"));
        }
        self.reply.simple("QUEUED");
        Ok(())
    }

    fn multi(&mut self) -> Answer {
        if self.session.queue.is_some() {
            return Err(Failure::err("MULTI calls can not be nested"));
        }
        self.session.queue = Some(Queue::default());
        self.reply.ok();
        Ok(())
    }

    fn discard(&mut self) -> Answer {
        self.session.queue.take().ok_or_else(|| Failure::err("DISCARD without MULTI"))?;
        self.reply.ok();
        Ok(())
    }

    /// Runs the queued commands one after another. Each is atomic; all together are not, because their keys may be on
    /// different shards.
    async fn exec(&mut self, now: Moment) -> Answer {
        let queue = self.session.queue.take().ok_or_else(|| Failure::err("EXEC without MULTI"))?;
        if queue.is_broken {
            return Err(Failure("EXECABORT Transaction discarded because of previous errors.".into()));
        }
        self.reply.array(queue.commands.len());
        let mut has_memory = true;
        for arguments in queue.commands {
            let bytes = arguments.concat();
            let ranges = ranges(&arguments);
            let request = Request::of(&bytes, &ranges);
            let (begun, held) = (self.reply.bytes.len(), self.session.memory.held());
            let answer = match self.find(request) {
                _ if !has_memory => Err(NO_MEMORY_FOR_REPLY),
                Ok(command) => self.run(&self.commands.all()[command], request, now).await,
                Err(failure) => Err(failure),
            };
            if let Err(Failure(text)) = answer {
                self.reply.bytes.truncate(begun);
                self.reply.error(&text);
            }
            // All replies are kept until the last command is done. Many small ones take memory, too.
            let counted = self.session.memory.held().saturating_sub(held);
            let more = (self.reply.bytes.len() - begun).saturating_sub(counted);
            has_memory = has_memory && self.session.memory.take(more).is_ok();
        }
        Ok(())
    }
}

/// The ranges of the arguments in their concatenation.
fn ranges(arguments: &[Vec<u8>]) -> Vec<Range<usize>> {
    let mut start = 0;
    let range = |argument: &Vec<u8>| {
        let begun = start;
        start += argument.len();
        begun..start
    };
    arguments.iter().map(range).collect()
}

/// Whether a command runs at once even after MULTI.
fn is_never_queued(name: &str) -> bool {
    matches!(name, "quit" | "reset")
}

/// The error for an unknown command, with the beginning of its arguments, in the words of Redis.
fn unknown(request: Request<'_>) -> Failure {
    let mut arguments = String::new();
    for argument in request.from(1) {
        let left = SHOWN_BYTES.saturating_sub(arguments.len());
        if left == 0 {
            break;
        }
        arguments.push_str(&format!("'{}' ", shown(argument, left)));
    }
    let name = shown(request.at(0), SHOWN_BYTES);
    Failure::err(format!("unknown command '{name}', with args beginning with: {arguments}"))
}

fn wrong_arity(name: &str) -> Failure {
    Failure::err(format!("wrong number of arguments for '{name}' command"))
}
