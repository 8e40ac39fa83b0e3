//! Finds commands that took Redis too long.
//!
//! SLOWLOG measures wall-clock time, which includes the time during which another process has the CPU. The kernel
//! counts how long the thread that executes the commands waited for a CPU. This waiting time is allowed for, so that
//! a busy machine does not fail the tests.

use std::time::Duration;

use super::redis::{OBSERVER, Redis, Reply, Turns};

/// The longest time that one command may take.
pub const MOST: Duration = Duration::from_millis(5);

/// The most CPU time that a script may take on average, including all other work of the server.
const MEAN: Duration = Duration::from_millis(3);

/// A slow command that did not come from the tests' own connections.
#[derive(Debug)]
struct Slow {
    took: Duration,
    #[expect(dead_code, reason = "shown when a test fails")]
    words: String,
}

/// Servers and their CPU times when the watch began.
pub struct Watch<'s> {
    servers: &'s [Redis],
    before: Vec<Turns>,
}

impl<'s> Watch<'s> {
    pub fn begin(servers: &'s [Redis]) -> Watch<'s> {
        for server in servers {
            let mut connection = server.connect();
            connection.configure("slowlog-log-slower-than", &MOST.as_micros().to_string());
            connection.configure("slowlog-max-len", "100000");
            connection.command(&["SLOWLOG", "RESET"]);
            connection.command(&["CONFIG", "RESETSTAT"]);
        }
        Watch { servers, before: servers.iter().map(Redis::turns).collect() }
    }

    /// Fails if commands took more than [`MOST`], beyond the time that the server waited for a CPU.
    #[track_caller]
    pub fn expect_nothing_slow(&self, during: &str) {
        for (server, before) in self.servers.iter().zip(&self.before) {
            let turns = server.turns();
            let (ran, waited) = (turns.ran - before.ran, turns.waited - before.waited);
            let (slow, scripts) = (slow(server), scripts(server));
            let over: Duration = slow.iter().map(|slow| slow.took - MOST).sum();
            let mean = ran / scripts;
            eprintln!(
                "{during}: {} of our commands over {MOST:?}, by {over:?} together, with {waited:?} without a CPU; \
                 {scripts} scripts took {mean:?} of a CPU on average",
                slow.len(),
            );
            let slowest = &slow[..slow.len().min(5)];
            assert!(
                over <= waited,
                "{during}: {over:?} too long, but only {waited:?} waiting for a CPU: {slowest:#?}"
            );
            assert!(mean <= MEAN, "{during}: a script takes {mean:?} on average");
        }
    }
}

/// The slow commands of one server, the slowest first.
fn slow(server: &Redis) -> Vec<Slow> {
    let entries = server.connect().command(&["SLOWLOG", "GET", "-1"]);
    let mut slow: Vec<Slow> = entries.items().iter().filter_map(entry).collect();
    slow.sort_by_key(|slow| std::cmp::Reverse(slow.took));
    slow
}

/// Parses an entry of SLOWLOG: id, time, microseconds, words, and the address and name of the client.
fn entry(entry: &Reply) -> Option<Slow> {
    let [_, _, micros, words, _, name] = entry.items() else { panic!("{entry:?} is not an entry of SLOWLOG") };
    if *name == Reply::Bulk(Some(OBSERVER.into())) {
        return None;
    }
    let took = Duration::from_micros(micros.integer().unsigned_abs());
    let words: String = format!("{words:?}").chars().take(300).collect();
    Some(Slow { took, words })
}

/// The number of scripts run, from lines such as `cmdstat_evalsha:calls=10,usec=123,usec_per_call=12.30,...`.
fn scripts(server: &Redis) -> u32 {
    let text = server.connect().command(&["INFO", "commandstats"]).text();
    let calls = |line: &str| -> Option<u32> {
        let (name, fields) = line.split_once(":calls=")?;
        let is_script = ["cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall"].contains(&name);
        fields.split(',').next()?.parse().ok().filter(|_| is_script)
    };
    let calls = text.lines().filter_map(calls).sum();
    assert!(calls > 0, "the server ran no scripts: {text}");
    calls
}
