//! The table of all commands: the only place that says which ones there are.
//!
//! Names, numbers of arguments, flags and positions of keys are those of Redis.

use super::command::Handler::{CrossProtocol, Now, NowOrWait, Transaction as Queue, Wait};
use super::command::{Command, Handler, Transaction};
use super::{connect, describe, info, keyspace, lifetime, modify, strings};

type Flags = &'static [&'static str];
type Keys = (i32, i32, i32);

const CONNECTION: &str = "connection";
const GENERIC: &str = "generic";
const SERVER: &str = "server";
const STRING: &str = "string";
const TRANSACTIONS: &str = "transactions";

const READ: Flags = &["readonly"];
const READ_FAST: Flags = &["readonly", "fast"];
const WRITE: Flags = &["write"];
const WRITE_FAST: Flags = &["write", "fast"];
const STORE: Flags = &["write", "denyoom"];
const STORE_FAST: Flags = &["write", "denyoom", "fast"];
const FAST: Flags = &["fast"];
const ALWAYS: Flags = &["loading", "stale"];
const ALWAYS_FAST: Flags = &["loading", "stale", "fast"];
const NO_SCRIPT: Flags = &["noscript", "loading", "stale"];
const NO_SCRIPT_FAST: Flags = &["noscript", "loading", "stale", "fast"];
const ADMIN: Flags = &["admin", "noscript", "loading", "stale"];

/// No argument is a key; the first one is; all are; every second one is; the second one is.
const NONE: Keys = (0, 0, 0);
const FIRST: Keys = (1, 1, 1);
const ALL: Keys = (1, -1, 1);
const EVERY_SECOND: Keys = (1, -1, 2);
const SECOND: Keys = (2, 2, 1);

/// Sorted by name.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    row("append", 3, STORE_FAST, FIRST, STRING, "2.0.0", Wait(|call| Box::pin(modify::append(call))),
        "Appends a string to the value of a key. Creates the key if it doesn't exist."),
    row("auth", -2, NO_SCRIPT_FAST, NONE, CONNECTION, "1.0.0", Now(connect::auth),
        "Chooses the namespace of the connection: AUTH <namespace> <password>."),
    row("client", -2, ADMIN, NONE, CONNECTION, "2.4.0", Now(connect::client),
        "Describes and changes the connection: ID, INFO, LIST, GETNAME, SETNAME, SETINFO, REPLY."),
    row("command", -1, ALWAYS, NONE, SERVER, "2.8.13", Now(describe::command),
        "Returns detailed information about all commands."),
    row("config", -2, ADMIN, NONE, SERVER, "2.0.0", Now(describe::config),
        "Returns the effective values of configuration parameters: GET."),
    row("dbsize", 1, READ, NONE, SERVER, "1.0.0", Wait(|call| Box::pin(keyspace::dbsize(call))),
        "Returns the number of keys in the database."),
    row("decr", 2, STORE_FAST, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(modify::decr(call))),
        "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist."),
    row("decrby", 3, STORE_FAST, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(modify::decrby(call))),
        "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist."),
    row("del", -2, WRITE, ALL, GENERIC, "1.0.0", Wait(|call| Box::pin(keyspace::del(call))),
        "Deletes one or more keys."),
    row("discard", 1, NO_SCRIPT_FAST, NONE, TRANSACTIONS, "2.0.0", Queue(Transaction::Discard),
        "Discards a transaction."),
    row("echo", 2, ALWAYS_FAST, NONE, CONNECTION, "1.0.0", Now(connect::echo),
        "Returns the given string."),
    row("exec", 1, NO_SCRIPT, NONE, TRANSACTIONS, "1.2.0", Queue(Transaction::Exec),
        "Executes all commands in a transaction."),
    row("exists", -2, READ_FAST, ALL, GENERIC, "1.0.0", Wait(|call| Box::pin(keyspace::exists(call))),
        "Determines whether one or more keys exist."),
    row("expire", -3, WRITE_FAST, FIRST, GENERIC, "1.0.0", Wait(|call| Box::pin(lifetime::expire(call))),
        "Sets the expiration time of a key in seconds."),
    row("expireat", -3, WRITE_FAST, FIRST, GENERIC, "1.2.0", Wait(|call| Box::pin(lifetime::expireat(call))),
        "Sets the expiration time of a key to a Unix timestamp."),
    row("expiretime", 2, READ_FAST, FIRST, GENERIC, "7.0.0", Wait(|call| Box::pin(lifetime::expiretime(call))),
        "Returns the expiration time of a key as a Unix timestamp."),
    row("flushall", -1, WRITE, NONE, SERVER, "1.0.0", Wait(|call| Box::pin(keyspace::flushall(call))),
        "Removes all keys from all databases."),
    row("flushdb", -1, WRITE, NONE, SERVER, "1.0.0", Wait(|call| Box::pin(keyspace::flushdb(call))),
        "Removes all keys from the current database."),
    row("function", -2, WRITE, NONE, SERVER, "7.0.0", Now(describe::function),
        "Deletes all libraries of functions, of which there are none: FLUSH."),
    row("get", 2, READ_FAST, FIRST, STRING, "1.0.0", NowOrWait(strings::get_now, |call| Box::pin(strings::get(call))),
        "Returns the string value of a key."),
    row("getdel", 2, WRITE_FAST, FIRST, STRING, "6.2.0", Wait(|call| Box::pin(strings::getdel(call))),
        "Returns the string value of a key after deleting the key."),
    row("getex", -2, WRITE_FAST, FIRST, STRING, "6.2.0", Wait(|call| Box::pin(lifetime::getex(call))),
        "Returns the string value of a key after setting its expiration time."),
    row("getrange", 4, READ, FIRST, STRING, "2.4.0", Wait(|call| Box::pin(strings::getrange(call))),
        "Returns a substring of the string stored at a key."),
    row("getset", 3, STORE_FAST, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(strings::getset(call))),
        "Returns the previous string value of a key after setting it to a new value."),
    row("hello", -1, NO_SCRIPT_FAST, NONE, CONNECTION, "6.0.0", Now(connect::hello),
        "Handshakes with the server."),
    row("host:", -1, ALWAYS, NONE, CONNECTION, "0.0.0", CrossProtocol,
        "Closes the connection."),
    row("incr", 2, STORE_FAST, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(modify::incr(call))),
        "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist."),
    row("incrby", 3, STORE_FAST, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(modify::incrby(call))),
        "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist."),
    row("info", -1, ALWAYS, NONE, SERVER, "1.0.0", Wait(|call| Box::pin(info::info(call))),
        "Returns information and statistics about the server."),
    row("keys", 2, READ, NONE, GENERIC, "1.0.0", Wait(|call| Box::pin(keyspace::keys(call))),
        "Returns all key names that match a pattern."),
    row("mget", -2, READ_FAST, ALL, STRING, "1.0.0", Wait(|call| Box::pin(strings::mget(call))),
        "Returns the string values of one or more keys."),
    row("mset", -3, STORE, EVERY_SECOND, STRING, "1.0.1", Wait(|call| Box::pin(strings::mset(call))),
        "Creates or modifies the string values of one or more keys. Atomic for each key."),
    row("multi", 1, NO_SCRIPT_FAST, NONE, TRANSACTIONS, "1.2.0", Queue(Transaction::Multi),
        "Starts a transaction."),
    row("object", -2, READ, SECOND, GENERIC, "2.2.3", Wait(|call| Box::pin(keyspace::object(call))),
        "Describes a key: ENCODING, FREQ, IDLETIME, REFCOUNT."),
    row("persist", 2, WRITE_FAST, FIRST, GENERIC, "2.2.0", Wait(|call| Box::pin(lifetime::persist(call))),
        "Removes the expiration time of a key."),
    row("pexpire", -3, WRITE_FAST, FIRST, GENERIC, "2.6.0", Wait(|call| Box::pin(lifetime::pexpire(call))),
        "Sets the expiration time of a key in milliseconds."),
    row("pexpireat", -3, WRITE_FAST, FIRST, GENERIC, "2.6.0", Wait(|call| Box::pin(lifetime::pexpireat(call))),
        "Sets the expiration time of a key to a Unix milliseconds timestamp."),
    row("pexpiretime", 2, READ_FAST, FIRST, GENERIC, "7.0.0", Wait(|call| Box::pin(lifetime::pexpiretime(call))),
        "Returns the expiration time of a key as a Unix milliseconds timestamp."),
    row("ping", -1, FAST, NONE, CONNECTION, "1.0.0", Now(connect::ping),
        "Returns the server's liveliness response."),
    row("post", -1, ALWAYS, NONE, CONNECTION, "0.0.0", CrossProtocol,
        "Closes the connection."),
    row("psetex", 4, STORE, FIRST, STRING, "2.6.0", Wait(|call| Box::pin(strings::psetex(call))),
        "Sets both string value and expiration time in milliseconds of a key."),
    row("pttl", 2, READ_FAST, FIRST, GENERIC, "2.6.0", Wait(|call| Box::pin(lifetime::pttl(call))),
        "Returns the expiration time in milliseconds of a key."),
    row("quit", -1, ALWAYS_FAST, NONE, CONNECTION, "1.0.0", Now(connect::quit),
        "Closes the connection."),
    row("reset", 1, NO_SCRIPT_FAST, NONE, CONNECTION, "6.2.0", Now(connect::reset),
        "Resets the connection."),
    row("role", 1, NO_SCRIPT_FAST, NONE, SERVER, "2.8.12", Now(connect::role),
        "Returns the replication role."),
    row("scan", -2, READ, NONE, GENERIC, "2.8.0", Wait(|call| Box::pin(keyspace::scan(call))),
        "Iterates over the key names in the database."),
    row("select", 2, ALWAYS_FAST, NONE, CONNECTION, "1.0.0", Now(connect::select),
        "Changes the selected database."),
    row("set", -3, STORE, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(strings::set(call))),
        "Sets the string value of a key. The key is created if it doesn't exist."),
    row("setex", 4, STORE, FIRST, STRING, "2.0.0", Wait(|call| Box::pin(strings::setex(call))),
        "Sets the string value and expiration time of a key. Creates the key if it doesn't exist."),
    row("setnx", 3, STORE_FAST, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(strings::setnx(call))),
        "Set the string value of a key only when the key doesn't exist."),
    row("setrange", 4, STORE, FIRST, STRING, "2.2.0", Wait(|call| Box::pin(modify::setrange(call))),
        "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist."),
    row("strlen", 2, READ_FAST, FIRST, STRING, "2.2.0", Wait(|call| Box::pin(strings::strlen(call))),
        "Returns the length of a string value."),
    row("substr", 4, READ, FIRST, STRING, "1.0.0", Wait(|call| Box::pin(strings::getrange(call))),
        "Returns a substring from a string value."),
    row("time", 1, ALWAYS_FAST, NONE, SERVER, "2.6.0", Now(connect::time),
        "Returns the server time."),
    row("touch", -2, READ_FAST, ALL, GENERIC, "3.2.1", Wait(|call| Box::pin(keyspace::exists(call))),
        "Returns the number of existing keys out of those specified after updating the time they were last accessed."),
    row("ttl", 2, READ_FAST, FIRST, GENERIC, "1.0.0", Wait(|call| Box::pin(lifetime::ttl(call))),
        "Returns the expiration time in seconds of a key."),
    row("type", 2, READ_FAST, FIRST, GENERIC, "1.0.0", Wait(|call| Box::pin(keyspace::type_of(call))),
        "Determines the type of value stored at a key."),
    row("unlink", -2, WRITE_FAST, ALL, GENERIC, "4.0.0", Wait(|call| Box::pin(keyspace::del(call))),
        "Asynchronously deletes one or more keys."),
];

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    keys: Keys,
    group: &'static str,
    since: &'static str,
    handler: Handler,
    summary: &'static str,
) -> Command {
    Command { name, arity, flags, keys, group, since, summary, handler }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::command::Commands;

    #[test]
    fn every_command_is_found_in_any_case() {
        let commands = Commands::new(COMMANDS);
        for (index, command) in COMMANDS.iter().enumerate() {
            assert_eq!(commands.find(command.name.as_bytes()), Some(index));
            assert_eq!(commands.find(command.name.to_uppercase().as_bytes()), Some(index));
        }
        assert_eq!(commands.find(b"lpush"), None);
        assert_eq!(commands.find(&[b'x'; 1000]), None);
    }

    #[test]
    fn the_table_is_sorted_and_its_rows_agree() {
        assert!(COMMANDS.is_sorted_by(|one, other| one.name < other.name));
        for command in COMMANDS {
            assert_eq!(command.name, command.name.to_lowercase());
            let is_read_or_write = command.flags.contains(&"readonly") || command.flags.contains(&"write");
            assert!(command.keys.0 == 0 || is_read_or_write, "{}", command.name);
            assert!(command.arity != 0 && !command.summary.is_empty(), "{}", command.name);
        }
    }

    #[test]
    fn the_number_of_arguments_is_checked_as_in_redis() {
        let takes = |name: &str, count| {
            let commands = Commands::new(COMMANDS);
            COMMANDS[commands.find(name.as_bytes()).unwrap()].takes(count)
        };
        assert!(takes("get", 2) && !takes("get", 1) && !takes("get", 3));
        assert!(takes("set", 3) && takes("set", 9) && !takes("set", 2));
    }
}
