//! Commands about the connection itself: who the client is, which namespace and which protocol it wants.

use super::command::Call;
use super::decode::integer;
use super::failure::{Answer, Failure, NOT_AN_INTEGER, SYNTAX, shown};
use super::reply::Version;
use super::session::{Refused, ReplyMode};

/// The release of Redis whose commands and options this service has. Clients choose what they use by this number.
pub const REDIS_VERSION: &str = "7.4.0";

/// How many bytes of an argument an error shows.
const SHOWN_BYTES: usize = 128;

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::ChosenByAuth => Self::err("SELECT is not possible, because AUTH has chosen the namespace"),
            Refused::NoSuchNumber => Self::err("DB index is out of range"),
            Refused::InvalidName => Self("WRONGPASS invalid username-password pair or user is disabled.".into()),
        }
    }
}

pub fn hello(call: &mut Call<'_>) -> Answer {
    let mut version = call.reply.version;
    let mut at = 1;
    if call.len() > 1 {
        let number = integer(call.argument(1));
        version = match number.ok_or_else(|| Failure::err("Protocol version is not an integer or out of range"))? {
            2 => Version::Resp2,
            3 => Version::Resp3,
            _ => return Err(Failure("NOPROTO unsupported protocol version".into())),
        };
        at = 2;
    }
    let (mut user, mut name) = (None, None);
    while at < call.len() {
        let left = call.len() - at - 1;
        if call.is(at, "AUTH") && left >= 2 {
            user = Some(call.argument(at + 1));
            at += 3;
        } else if call.is(at, "SETNAME") && left >= 1 {
            name = Some(client_text("Client names", call.argument(at + 1))?);
            at += 2;
        } else {
            let option = shown(call.argument(at), SHOWN_BYTES);
            return Err(Failure::err(format!("Syntax error in HELLO option '{option}'")));
        }
    }
    if let Some(user) = user {
        call.session.authenticate(user)?;
    }
    let mut names = call.session.client.names.lock();
    if let Some(name) = name {
        names.name = name;
    }
    names.version = version;
    drop(names);
    let reply = &mut *call.reply;
    reply.version = version;
    reply.map(7);
    for (key, value) in [("server", "sidecache"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(version.number());
    reply.bulk(b"id");
    reply.count(call.session.client.id);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// `AUTH <namespace> <anything>`. A password alone, or with the user `default`, is accepted and chooses nothing.
pub fn auth(call: &mut Call<'_>) -> Answer {
    match call.len() {
        2 => {}
        3 => call.session.authenticate(call.argument(1))?,
        _ => return Err(SYNTAX),
    }
    call.reply.ok();
    Ok(())
}

pub fn select(call: &mut Call<'_>) -> Answer {
    let number = u32::try_from(call.integer(1)?).map_err(|_| Refused::NoSuchNumber)?;
    call.session.select(number, &call.door.databases)?;
    call.reply.ok();
    Ok(())
}

pub fn ping(call: &mut Call<'_>) -> Answer {
    match call.len() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.argument(1)),
        _ => return Err(Failure::err("wrong number of arguments for 'ping' command")),
    }
    Ok(())
}

pub fn echo(call: &mut Call<'_>) -> Answer {
    call.reply.bulk(call.argument(1));
    Ok(())
}

pub fn quit(call: &mut Call<'_>) -> Answer {
    call.session.is_closing = true;
    call.reply.ok();
    Ok(())
}

pub fn reset(call: &mut Call<'_>) -> Answer {
    call.session.reset(&call.door.databases);
    call.reply.version = Version::default();
    call.reply.simple("RESET");
    Ok(())
}

pub fn client(call: &mut Call<'_>) -> Answer {
    let word = call.argument(1).to_ascii_lowercase();
    match (&*word, call.len()) {
        (b"id", 2) => call.reply.count(call.session.client.id),
        (b"getname", 2) => {
            let name = call.session.client.names.lock().name.clone();
            if name.is_empty() { call.reply.null() } else { call.reply.bulk(name.as_bytes()) }
        }
        (b"setname", 3) => {
            call.session.client.names.lock().name = client_text("Client names", call.argument(2))?;
            call.reply.ok();
        }
        (b"setinfo", 4) => return set_info(call),
        (b"list", _) => {
            let list = call.door.clients.list(|number| call.commands.all()[number].name);
            call.reply.verbatim(&list);
        }
        (b"info", 2) => {
            let mut line = String::new();
            call.session.client.describe(|number| call.commands.all()[number].name, &mut line);
            line.push('\n');
            call.reply.verbatim(&line);
        }
        (b"reply", 3) => return reply_mode(call),
        (b"no-evict" | b"no-touch", 3) if call.is(2, "ON") || call.is(2, "OFF") => call.reply.ok(),
        (b"no-evict" | b"no-touch", 3) => return Err(SYNTAX),
        // There is no tracking to turn off.
        (b"tracking", 3) if call.is(2, "OFF") => call.reply.ok(),
        (b"getredir", 2) => call.reply.integer(-1),
        _ => return Err(no_subcommand("CLIENT", call.argument(1))),
    }
    Ok(())
}

fn set_info(call: &mut Call<'_>) -> Answer {
    let client = call.session.client.clone();
    if call.is(2, "lib-name") {
        client.names.lock().library = client_text("lib-name", call.argument(3))?;
    } else if call.is(2, "lib-ver") {
        client.names.lock().library_version = client_text("lib-ver", call.argument(3))?;
    } else {
        return Err(Failure::err(format!("Unrecognized option '{}'", shown(call.argument(2), SHOWN_BYTES))));
    }
    call.reply.ok();
    Ok(())
}

fn reply_mode(call: &mut Call<'_>) -> Answer {
    if call.is(2, "ON") {
        call.session.reply_mode = ReplyMode::On;
        call.reply.ok();
    } else if call.is(2, "OFF") {
        call.session.reply_mode = ReplyMode::Off;
    } else if !call.is(2, "SKIP") {
        return Err(SYNTAX);
    } else if call.session.reply_mode == ReplyMode::On {
        // This command is not answered either.
        call.session.reply_mode = ReplyMode::Skip(2);
    }
    Ok(())
}

pub fn time(call: &mut Call<'_>) -> Answer {
    let micros = crate::clock::unix_micros();
    call.reply.array(2);
    call.reply.bulk((micros / 1_000_000).to_string().as_bytes());
    call.reply.bulk((micros % 1_000_000).to_string().as_bytes());
    Ok(())
}

/// A primary without replicas.
pub fn role(call: &mut Call<'_>) -> Answer {
    call.reply.array(3);
    call.reply.bulk(b"master");
    call.reply.integer(0);
    call.reply.array(0);
    Ok(())
}

/// The error for an unknown subcommand, in the words of Redis.
pub fn no_subcommand(command: &str, subcommand: &[u8]) -> Failure {
    Failure::err(format!("unknown subcommand '{}'. Try {command} HELP.", shown(subcommand, SHOWN_BYTES)))
}

/// A name that a client gives itself.
fn client_text(what: &str, bytes: &[u8]) -> Result<String, Failure> {
    const MOST: usize = 256;
    let is_plain = bytes.len() <= MOST && bytes.iter().all(u8::is_ascii_graphic);
    let refused = || Failure::err(format!("{what} cannot contain spaces, newlines or special characters."));
    if is_plain { Ok(String::from_utf8_lossy(bytes).into_owned()) } else { Err(refused()) }
}

/// A whole number that is not negative.
pub fn unsigned(bytes: &[u8]) -> Result<u64, Failure> {
    integer(bytes).and_then(|number| number.try_into().ok()).ok_or(NOT_AN_INTEGER)
}
