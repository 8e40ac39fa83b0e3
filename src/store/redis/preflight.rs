//! Examines a server over a separate connection: can sidecache run on it with the rights of its user, and if not,
//! what must be changed?
//!
//! `INFO` shows version, role and settings. A script tries every command and every key prefix that sidecache uses
//! (`lua/preflight.lua`), and a SUBSCRIBE tries the channels. **Other clients do not notice this:** the keys have
//! names that no entry can have, and nothing is published on the invalidation channel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface as _};
use fred::types::{ClusterHash, CustomCommand, Resp3Frame as Frame, Value};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::client::{EVENTS, connect_for_now, words};
use super::conditions::Kind;
use super::reply;
use super::scripts::INVALIDATION_CHANNEL;
use super::server_info::ServerInfo;
use crate::config::{RedisConfig, ShardConfig};
use crate::store::{Finding, Severity};

const SCRIPT: &str = include_str!("lua/preflight.lua");

/// A channel without subscribers, with the prefix of the instances' private channels.
const PRIVATE_CHANNEL: &str = "sidecache:watermark:preflight";

/// A script hash that no server knows.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// How long to wait for the answer to a SUBSCRIBE.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of an examination.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    pub server: ServerInfo,
    /// Whether `INFO` was answered.
    pub has_info: bool,
    /// Whether writes were tried, and everything that they need worked.
    pub takes_writes: bool,
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Why the server must not be used; `None` if it may be used.
    pub fn refusal(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.severity == Severity::Refused)
    }
}

/// Examines all shards at the same time; each must answer within `patience`. The error texts contain no passwords.
pub async fn probe(config: &RedisConfig, patience: Duration) -> Vec<(String, Result<Examination, String>)> {
    let answers =
        config.shards.iter().map(|shard| async move { (shard.name.clone(), visit(shard, config, patience).await) });
    join_all(answers).await
}

/// Examines a shard over a new connection. Connecting and examining may take `patience` together.
pub async fn visit(shard: &ShardConfig, config: &RedisConfig, patience: Duration) -> Result<Examination, String> {
    let (client, task) =
        connect_for_now(shard.endpoint.clone(), config, EVENTS).map_err(|error| words(error.details()))?;
    let answered = async {
        // The library reconnects repeatedly; only the first error matters.
        let mut errors = client.error_rx();
        tokio::select! {
            connected = client.wait_for_connect() => connected,
            Ok((error, _)) = errors.recv() => Err(error),
        }?;
        client.ping::<String>(None).await?;
        examine(&client, &shard.name, shard.endpoint.username.as_deref().unwrap_or("default")).await
    };
    let answer = match timeout(patience, answered).await {
        Ok(answer) => answer.map_err(|error| words(error.details())),
        Err(_) => Err(format!("no answer within {patience:?}")),
    };
    // Close it in any case, because the library would reconnect again and again.
    let _ = timeout(Duration::from_millis(100), client.quit()).await;
    task.abort();
    answer
}

/// Examines the server behind `client` as `shard`, for `user`. Afterwards the connection is subscribed and cannot be
/// used for anything else.
///
/// # Errors
/// The server did not answer.
async fn examine(client: &Client, shard: &str, user: &str) -> Result<Examination, fred::error::Error> {
    let info = send(client, "INFO", &[]).await?;
    let mut refusals = Refusals::default();
    let has_info = refusals.passes("INFO", "", &info);
    let server = reply::text(info).map(|info| ServerInfo::parse(&info)).unwrap_or_default();
    let mut findings = server.findings(shard);
    // Write nothing to a server that will not be used.
    let is_tried = findings.iter().all(|finding| finding.severity != Severity::Refused);
    if is_tried {
        refusals.passes("EVALSHA", "", &send(client, "EVALSHA", &[NO_SCRIPT, "0"]).await?);
        let tried = send(client, "EVAL", &[SCRIPT, "0", PRIVATE_CHANNEL]).await?;
        if refusals.passes("EVAL", "", &tried) {
            let fields = reply::texts(tried).unwrap_or_default();
            fields.chunks_exact(3).for_each(|refusal| refusals.add(&refusal[0], &refusal[1], &refusal[2]));
        }
        if let Some(answer) = subscribe(client).await {
            refusals.passes("SUBSCRIBE", "", &answer);
        }
    }
    let takes_writes = is_tried && refusals.allow_writes();
    for finding in refusals.findings(shard, user) {
        // A replica shows both by its role and by its answers: report it once.
        if findings.iter().all(|known| known.code != finding.code) {
            findings.push(finding);
        }
    }
    Ok(Examination { server, has_info, takes_writes, findings })
}

async fn send(client: &Client, name: &'static str, arguments: &[&str]) -> Result<Frame, fred::error::Error> {
    let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
    client.custom_raw(command, arguments.iter().map(|argument| Value::from(*argument)).collect()).await
}

/// The answer to a SUBSCRIBE: its error, or another answer if it succeeded; `None` if there was none in time.
///
/// The library drops the confirmation of a SUBSCRIBE. So if the SUBSCRIBE succeeded, the answer to the PING after it
/// is taken as its answer.
async fn subscribe(client: &Client) -> Option<Frame> {
    let both = async {
        tokio::select! {
            biased;
            answer = send(client, "SUBSCRIBE", &[INVALIDATION_CHANNEL, PRIVATE_CHANNEL]) => answer.ok(),
            // This PING takes the place of the SUBSCRIBE in the library's queue; its own answer never comes.
            _ = async { let _ = send(client, "PING", &[]).await; std::future::pending::<()>().await } => None,
        }
    };
    timeout(SUBSCRIBE_TIMEOUT, both).await.ok().flatten()
}

/// Why a command is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RefusalReason {
    /// The user has no right to it.
    Right,
    /// The server does not know it, because it was renamed or because this kind of server does not have it.
    Command,
}

/// The refusals of the server.
#[derive(Debug, Default)]
struct Refusals {
    commands: BTreeMap<(RefusalReason, Severity), BTreeSet<String>>,
    /// Prefixes of keys that the user may not access, such as `cache_meta:`.
    prefixes: BTreeSet<String>,
    is_channel_forbidden: bool,
    /// Other problems, each with the reply that showed it.
    conditions: BTreeMap<&'static str, (Kind, String)>,
}

impl Refusals {
    /// Records the answer to `command` if it is a refusal; returns whether it is not one.
    fn passes(&mut self, command: &str, name: &str, answer: &Frame) -> bool {
        let error = match answer {
            Frame::SimpleError { data, .. } => data.to_string(),
            Frame::BlobError { data, .. } => String::from_utf8_lossy(data).into_owned(),
            _ => return true,
        };
        // NOSCRIPT shows that the server would have run the script if it knew it.
        let is_refusal = !error.starts_with("NOSCRIPT");
        if is_refusal {
            self.add(command, name, &error);
        }
        !is_refusal
    }

    /// Records that `command` was refused with `error`. `name` is the key that it was about, or empty.
    fn add(&mut self, command: &str, name: &str, error: &str) {
        let mut lacks = |lack| {
            self.commands.entry((lack, severity(command))).or_default().insert(command.to_owned());
        };
        // `ERR unknown command 'INFO'`, and from a script `Unknown Redis command called from script`.
        let is_unknown = error.contains("unknown command") || error.contains("Unknown Redis command");
        match Kind::of(error) {
            _ if is_unknown => lacks(RefusalReason::Command),
            Some(Kind::NoPermission) if error.contains("channel") => self.is_channel_forbidden = true,
            Some(Kind::NoPermission) if error.contains("the keys") || error.contains("a key") => {
                let prefix = name.split_once(':').map_or(name, |(prefix, _)| prefix);
                self.prefixes.insert(format!("{prefix}:"));
            }
            Some(Kind::NoPermission) => lacks(RefusalReason::Right),
            Some(kind) => {
                self.conditions.entry(kind.code()).or_insert((kind, error.to_owned()));
            }
            None => {}
        }
    }

    fn allow_writes(&self) -> bool {
        let is_lacking = self.commands.keys().any(|(_, severity)| *severity == Severity::Refused);
        !is_lacking && self.prefixes.is_empty() && !self.is_channel_forbidden && self.conditions.is_empty()
    }

    /// The findings about `shard` that follow from the refusals, with the rights that `user` needs.
    fn findings(&self, shard: &str, user: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        for ((lack, severity), commands) in &self.commands {
            let (names, loss) = (joined(commands, ", ", "", ""), loss(commands));
            let lowercase: BTreeSet<String> = commands.iter().map(|name| name.to_ascii_lowercase()).collect();
            let (code, predicate) = match lack {
                RefusalReason::Right => {
                    let rights = joined(&lowercase, " ", "+", "");
                    let grant = format!("ACL SETUSER {user} {rights}");
                    ("forbidden_command", format!("forbids user {user} to run {names}{loss}: run {grant}"))
                }
                RefusalReason::Command => {
                    let advice = "remove `rename-command` from its configuration";
                    ("unknown_command", format!("does not know {names}{loss}: {advice}"))
                }
            };
            findings.push(Finding::new(code, *severity, shard, &predicate));
        }
        if !self.prefixes.is_empty() {
            let names = joined(&self.prefixes, ", ", "", "*");
            let rights = joined(&self.prefixes, " ", "~", "*");
            let predicate = format!("forbids user {user} the keys {names}: run ACL SETUSER {user} {rights}");
            findings.push(Finding::new("forbidden_keys", Severity::Refused, shard, &predicate));
        }
        if self.is_channel_forbidden {
            let predicate = format!(
                "forbids user {user} the channels on which instances tell each other what changed: \
                 run ACL SETUSER {user} &sidecache:*"
            );
            findings.push(Finding::new("forbidden_channels", Severity::Refused, shard, &predicate));
        }
        findings.extend(self.conditions.values().map(|(kind, reply)| kind.finding(shard, reply)));
        findings
    }
}

/// Joins the words, each with a text before and after it.
fn joined(words: &BTreeSet<String>, between: &str, before: &str, after: &str) -> String {
    words.iter().map(|word| format!("{before}{word}{after}")).collect::<Vec<_>>().join(between)
}

/// The commands that only a PATCH of an entry needs.
const CHANGES_OF_TTL: [&str; 2] = ["PEXPIREAT", "PERSIST"];

/// How bad it is if a command is missing.
fn severity(command: &str) -> Severity {
    match command {
        "INFO" => Severity::Warning,
        "SUBSCRIBE" | "SCAN" | "PEXPIREAT" | "PERSIST" => Severity::Degraded,
        _ => Severity::Refused,
    }
}

/// What does not work without these commands, which all have one severity, while the rest works.
fn loss(commands: &BTreeSet<String>) -> &'static str {
    if commands.contains("INFO") {
        " (version, role and memory are unknown; evictions by Redis are noticed only by reads)"
    } else if commands.contains("SUBSCRIBE") {
        " (no read is answered from L1)"
    } else if commands.contains("SCAN") && commands.len() == 1 {
        " (entries whose keys moved to another shard are not removed)"
    } else if commands.iter().all(|command| CHANGES_OF_TTL.contains(&command.as_str())) {
        " (a PATCH cannot change when an entry expires, and `mode=stale` fails)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn found(refusals: &[(&str, &str, &str)]) -> Vec<(&'static str, Severity, String)> {
        let mut all = Refusals::default();
        refusals.iter().for_each(|(command, name, error)| all.add(command, name, error));
        let findings = all.findings("a", "shop").into_iter();
        findings.map(|finding| (finding.code, finding.severity, finding.text)).collect()
    }

    #[test]
    fn a_missing_right_is_reported_with_the_command_that_grants_it_on_every_release() {
        for error in [
            "ERR The user executing the script can't run this command or subcommand",
            "ERR ACL failure in script: User shop has no permissions to run the 'hset' command",
            "@user_script: 1: The user executing the script can't run this command or subcommand",
        ] {
            let found = found(&[("HSET", "cache:..:preflight", error), ("ZADD", "cache:..:preflight", error)]);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].0, found[0].1), ("forbidden_command", Severity::Refused));
            assert!(found[0].2.ends_with("ACL SETUSER shop +hset +zadd"), "{found:?}");
        }
        for error in [
            "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
            "ERR ACL failure in script: No permissions to access a key",
        ] {
            let found = found(&[("UNLINK", "cache_due:..:preflight", error)]);
            assert_eq!(found[0].0, "forbidden_keys");
            assert!(found[0].2.ends_with("ACL SETUSER shop ~cache_due:*"), "{found:?}");
        }
        for error in [
            "ERR The user executing the script can't publish to the channel mentioned in the command",
            "ERR ACL failure in script: No permissions to access a channel",
            "NOPERM this user has no permissions to access one of the channels used as arguments",
        ] {
            let found = found(&[("PUBLISH", "", error)]);
            assert_eq!((found[0].0, found[0].1), ("forbidden_channels", Severity::Refused));
        }
    }

    #[test]
    fn a_renamed_command_is_reported_and_info_is_optional() {
        let found = found(&[
            ("INFO", "", "ERR unknown command 'INFO', with args beginning with: "),
            ("ZADD", "cache:..:preflight", "ERR Unknown Redis command called from script"),
        ]);
        let codes: Vec<_> = found.iter().map(|(code, severity, _)| (*code, *severity)).collect();
        assert_eq!(codes, [("unknown_command", Severity::Warning), ("unknown_command", Severity::Refused)]);
    }

    #[test]
    fn without_the_commands_of_a_patch_everything_else_works() {
        let error = "ERR The user executing the script can't run this command or subcommand";
        let found = found(&[("PERSIST", "cache:..:preflight", error), ("PEXPIREAT", "cache:..:preflight", error)]);
        assert_eq!((found.len(), found[0].0, found[0].1), (1, "forbidden_command", Severity::Degraded));
        assert!(found[0].2.contains("a PATCH cannot") && found[0].2.contains("+persist +pexpireat"), "{found:?}");
    }

    #[test]
    fn a_server_that_refuses_writes_at_present_is_degraded_and_not_refused() {
        let found = found(&[("UNLINK", "cache:..:preflight", "MISCONF Redis is configured to save")]);
        assert_eq!((found[0].0, found[0].1), ("cannot_save", Severity::Degraded));
    }

    /// The words in `text` that follow `before`. A word ends before the first letter that is not `is_part`.
    fn words_after<'t>(text: &'t str, before: &str, is_part: impl Fn(char) -> bool) -> Vec<&'t str> {
        let starts = text.match_indices(before).map(|(at, found)| &text[at + found.len()..]);
        starts.map(|rest| &rest[..rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())]).collect()
    }

    #[test]
    fn every_command_and_every_prefix_that_is_used_is_tried() {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis");
        let files = |folder: &Path, extension: &str| {
            let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let ours = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
            ours.map(|path| (path.file_name().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
                .collect::<Vec<_>>()
        };
        let is_command = |letter: char| letter.is_ascii_uppercase();
        let tried: BTreeSet<&str> = words_after(SCRIPT, "try('", is_command).into_iter().collect();
        for (name, text) in files(&room.join("lua"), "lua") {
            // INFO is optional.
            for command in words_after(&text, "call('", is_command).into_iter().filter(|command| *command != "INFO") {
                assert!(tried.contains(command), "{name:?} uses {command}, which the preflight does not try");
            }
            for prefix in words_after(&text, "'cache", |letter| letter.is_ascii_lowercase() || letter == '_') {
                let name_of_prefix = format!("'cache{prefix}:'");
                assert!(SCRIPT.contains(&name_of_prefix), "{name:?} uses keys {name_of_prefix}");
            }
        }
        for (name, text) in files(&room, "rs") {
            for command in words_after(&text, ".read(\"", is_command) {
                assert!(command == "INFO" || command == "EVAL" || tried.contains(command), "{name:?} uses {command}");
            }
        }
    }
}
