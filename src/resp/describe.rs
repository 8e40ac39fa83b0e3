//! `COMMAND` and `CONFIG`: what there is, for clients that ask before they use it.

use super::command::{Call, Command};
use super::connect::no_subcommand;
use super::failure::{Answer, Failure, shown};
use super::reply::Reply;
use crate::model::glob;

pub fn command(call: &mut Call<'_>) -> Answer {
    if call.len() == 1 {
        let all = call.commands.all();
        call.reply.array(all.len());
        all.iter().for_each(|command| put_info(call.reply, command));
        return Ok(());
    }
    let word = call.argument(1).to_ascii_lowercase();
    match (&*word, call.len()) {
        (b"count", 2) => call.reply.count(call.commands.all().len()),
        (b"info", _) => {
            let named = named(call);
            call.reply.array(named.len());
            for command in named {
                match command {
                    Some(command) => put_info(call.reply, command),
                    None => call.reply.null_array(),
                }
            }
        }
        (b"docs", _) => {
            let named: Vec<&Command> = named(call).into_iter().flatten().collect();
            call.reply.map(named.len());
            named.into_iter().for_each(|command| put_docs(call.reply, command));
        }
        (b"list", 2) => {
            let all = call.commands.all();
            call.reply.array(all.len());
            all.iter().for_each(|command| call.reply.bulk(command.name.as_bytes()));
        }
        (b"getkeys", 3..) => return keys_of(call),
        _ => return Err(no_subcommand("COMMAND", call.argument(1))),
    }
    Ok(())
}

/// The commands that the arguments from the third on name; all commands if there are none.
fn named(call: &Call<'_>) -> Vec<Option<&'static Command>> {
    let all = call.commands.all();
    if call.len() == 2 {
        return all.iter().map(Some).collect();
    }
    call.request.from(2).map(|name| call.commands.find(name).map(|index| &all[index])).collect()
}

fn put_info(reply: &mut Reply, command: &Command) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.into());
    reply.set(command.flags.len());
    command.flags.iter().for_each(|flag| reply.simple(flag));
    let (first, last, step) = command.keys;
    [first, last, step].into_iter().for_each(|number| reply.integer(number.into()));
    reply.set(1);
    reply.simple(&format!("@{}", command.group));
    // Tips, key specifications, subcommands.
    (0..3).for_each(|_| reply.array(0));
}

fn put_docs(reply: &mut Reply, command: &Command) {
    reply.bulk(command.name.as_bytes());
    reply.map(3);
    for (key, value) in [("summary", command.summary), ("since", command.since), ("group", command.group)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

/// `COMMAND GETKEYS <command> ...`: the arguments that are keys.
fn keys_of(call: &mut Call<'_>) -> Answer {
    let invalid = || Failure::err("Invalid command specified");
    let command = &call.commands.all()[call.commands.find(call.argument(2)).ok_or_else(invalid)?];
    let count = call.len() - 2;
    if !command.takes(count) {
        return Err(Failure::err("Invalid number of arguments specified for command"));
    }
    let (first, last, step) = command.keys;
    if first == 0 {
        return Err(Failure::err("The command has no key arguments"));
    }
    let last = if last < 0 { count as i32 + last } else { last };
    let keys: Vec<&[u8]> =
        (first..=last).step_by(step.max(1) as usize).map(|at| call.argument(2 + at as usize)).collect();
    call.reply.array(keys.len());
    keys.into_iter().for_each(|key| call.reply.bulk(key));
    Ok(())
}

pub fn config(call: &mut Call<'_>) -> Answer {
    let word = call.argument(1).to_ascii_lowercase();
    match (&*word, call.len()) {
        (b"get", 3..) => {
            let shown: Vec<(&str, String)> = parameters(call)
                .into_iter()
                .filter(|(name, _)| call.request.from(2).any(|pattern| matches(pattern, name)))
                .collect();
            call.reply.map(shown.len());
            for (name, value) in shown {
                call.reply.bulk(name.as_bytes());
                call.reply.bulk(value.as_bytes());
            }
            Ok(())
        }
        (b"set", 4..) => Err(Failure::err(format!(
            "CONFIG SET '{}' is not possible: sidecache gets its settings at its start",
            shown(call.argument(2), 64)
        ))),
        _ => Err(no_subcommand("CONFIG", call.argument(1))),
    }
}

/// `FUNCTION FLUSH`, which test suites send first. There are no functions.
pub fn function(call: &mut Call<'_>) -> Answer {
    match call.argument(1).to_ascii_lowercase().as_slice() {
        b"flush" if call.len() <= 3 => call.reply.ok(),
        _ => return Err(no_subcommand("FUNCTION", call.argument(1))),
    }
    Ok(())
}

/// The settings that clients ask for, with the values of Redis that describe this service best.
fn parameters(call: &Call<'_>) -> [(&'static str, String); 12] {
    [
        ("appendonly", "no".to_owned()),
        ("databases", "16".to_owned()),
        ("lazyfree-lazy-user-flush", "no".to_owned()),
        ("maxclients", call.door.max_clients.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", call.door.max_value_bytes.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", "0".to_owned()),
    ]
}

/// Whether a name matches a pattern, in any case.
fn matches(pattern: &[u8], name: &str) -> bool {
    glob(&pattern.to_ascii_lowercase(), name.as_bytes())
}
