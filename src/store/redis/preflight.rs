//! Examines a server over a connection of its own: whether sidecache can run on it with the rights that its user
//! has, and what to do where it cannot.
//!
//! `INFO` tells version, role and settings; a script tries every command and prefix of names that we use
//! (`lua/preflight.lua`); a SUBSCRIBE tries the channels. **Nobody else notices:** keys are under names that no
//! entry can have, and the channel of invalidations is subscribed to and never published on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Resp3Frame as Frame, Value};
use tokio::time::timeout;

use super::conditions::Kind;
use super::reply;
use super::scripts::INVALIDATION_CHANNEL;
use super::server_info::ServerInfo;
use crate::store::{Finding, Severity};

const SCRIPT: &str = include_str!("lua/preflight.lua");

/// A channel to which nobody listens, with the prefix of those that instances have for themselves.
const PRIVATE_CHANNEL: &str = "sidecache:watermark:preflight";

/// The name of a script that no server has.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// How long the answer to a SUBSCRIBE is waited for.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What an examination found.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    pub server: ServerInfo,
    /// Whether `INFO` was answered.
    pub has_info: bool,
    /// Whether writes were tried, and all that they need worked.
    pub takes_writes: bool,
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Why the server is not used, if it is not.
    pub fn refusal(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.severity == Severity::Refused)
    }
}

/// Examines the server behind `client` as `shard`, for `user`. The connection is of no use afterwards: it is
/// subscribed.
///
/// # Errors
/// The server did not answer.
pub async fn examine(client: &Client, shard: &str, user: &str) -> Result<Examination, fred::error::Error> {
    let info = send(client, "INFO", &[]).await?;
    let mut refusals = Refusals::default();
    let has_info = refusals.passes("INFO", "", &info);
    let server = reply::text(info).map(|info| ServerInfo::parse(&info)).unwrap_or_default();
    let mut findings = server.findings(shard);
    // Nothing is written to a server that is not used in any case.
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
        // A replica is known by its role, and by what it answered.
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

/// The answer to a SUBSCRIBE: an error, or what it stands for; `None` where there was none in time.
///
/// The library drops the confirmation of a SUBSCRIBE, so what answers a SUBSCRIBE that was carried out is the
/// answer to the PING behind it.
async fn subscribe(client: &Client) -> Option<Frame> {
    let both = async {
        tokio::select! {
            biased;
            answer = send(client, "SUBSCRIBE", &[INVALIDATION_CHANNEL, PRIVATE_CHANNEL]) => answer.ok(),
            // It takes the place of the one above in the library's queue, and is never answered itself.
            _ = async { let _ = send(client, "PING", &[]).await; std::future::pending::<()>().await } => None,
        }
    };
    timeout(SUBSCRIBE_TIMEOUT, both).await.ok().flatten()
}

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    /// The user has no right to it.
    Right,
    /// The server does not know it, as it was renamed or is no command of this server.
    Command,
}

/// What the server refused.
#[derive(Debug, Default)]
struct Refusals {
    commands: BTreeMap<(Lack, Severity), BTreeSet<String>>,
    /// Prefixes of names that the user has no right to, such as `cache_meta:`.
    prefixes: BTreeSet<String>,
    is_channel_forbidden: bool,
    /// Other trouble, with the reply that told of it.
    conditions: BTreeMap<&'static str, (Kind, String)>,
}

impl Refusals {
    /// Notes an answer to `command` if it is a refusal; tells whether it is none.
    fn passes(&mut self, command: &str, name: &str, answer: &Frame) -> bool {
        let error = match answer {
            Frame::SimpleError { data, .. } => data.to_string(),
            Frame::BlobError { data, .. } => String::from_utf8_lossy(data).into_owned(),
            _ => return true,
        };
        // There is no such script; if there were, it would have been run.
        let is_refusal = !error.starts_with("NOSCRIPT");
        if is_refusal {
            self.add(command, name, &error);
        }
        !is_refusal
    }

    /// Notes that `command`, about the key `name` if any, was refused with `error`.
    fn add(&mut self, command: &str, name: &str, error: &str) {
        let mut lacks = |lack| {
            self.commands.entry((lack, severity(command))).or_default().insert(command.to_owned());
        };
        // `ERR unknown command 'INFO'`, and from a script `Unknown Redis command called from script`.
        let is_unknown = error.contains("unknown command") || error.contains("Unknown Redis command");
        match Kind::of(error) {
            _ if is_unknown => lacks(Lack::Command),
            Some(Kind::NoPermission) if error.contains("channel") => self.is_channel_forbidden = true,
            Some(Kind::NoPermission) if error.contains("the keys") || error.contains("a key") => {
                let prefix = name.split_once(':').map_or(name, |(prefix, _)| prefix);
                self.prefixes.insert(format!("{prefix}:"));
            }
            Some(Kind::NoPermission) => lacks(Lack::Right),
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

    /// What that means for `shard`, and what `user` has to be given.
    fn findings(&self, shard: &str, user: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        for ((lack, severity), commands) in &self.commands {
            let (names, loss) = (joined(commands, ", ", "", ""), loss(commands));
            let lowercase: BTreeSet<String> = commands.iter().map(|name| name.to_ascii_lowercase()).collect();
            let (code, predicate) = match lack {
                Lack::Right => {
                    let rights = joined(&lowercase, " ", "+", "");
                    let grant = format!("ACL SETUSER {user} {rights}");
                    ("forbidden_command", format!("forbids its user {user} {names}{loss}: {grant}"))
                }
                Lack::Command => {
                    let advice = "remove `rename-command` from its configuration";
                    ("unknown_command", format!("does not know {names}{loss}: {advice}"))
                }
            };
            findings.push(Finding::new(code, *severity, shard, &predicate));
        }
        if !self.prefixes.is_empty() {
            let names = joined(&self.prefixes, ", ", "", "*");
            let rights = joined(&self.prefixes, " ", "~", "*");
            let predicate = format!("forbids its user {user} the keys {names}: ACL SETUSER {user} {rights}");
            findings.push(Finding::new("forbidden_keys", Severity::Refused, shard, &predicate));
        }
        if self.is_channel_forbidden {
            let predicate = format!(
                "forbids its user {user} the channels on which instances tell each other what changed: \
                 ACL SETUSER {user} &sidecache:*"
            );
            findings.push(Finding::new("forbidden_channels", Severity::Refused, shard, &predicate));
        }
        findings.extend(self.conditions.values().map(|(kind, reply)| kind.finding(shard, reply)));
        findings
    }
}

/// The words with what stands before, after and between them.
fn joined(words: &BTreeSet<String>, between: &str, before: &str, after: &str) -> String {
    words.iter().map(|word| format!("{before}{word}{after}")).collect::<Vec<_>>().join(between)
}

/// How bad it is to be without a command.
fn severity(command: &str) -> Severity {
    match command {
        "INFO" => Severity::Warning,
        "SUBSCRIBE" | "SCAN" => Severity::Degraded,
        _ => Severity::Refused,
    }
}

/// What does not work without these commands, of one severity, where the rest does.
fn loss(commands: &BTreeSet<String>) -> &'static str {
    if commands.contains("INFO") {
        " (its version, role and memory are unknown; what Redis evicts is noticed when it is read)"
    } else if commands.contains("SUBSCRIBE") {
        " (no read is answered from L1)"
    } else if commands.contains("SCAN") && commands.len() == 1 {
        " (entries whose keys moved to another shard are not removed)"
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
    fn a_missing_right_is_told_with_the_line_that_grants_it_whatever_the_release() {
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
    fn a_renamed_command_is_told_as_such_and_info_is_not_needed() {
        let found = found(&[
            ("INFO", "", "ERR unknown command 'INFO', with args beginning with: "),
            ("ZADD", "cache:..:preflight", "ERR Unknown Redis command called from script"),
        ]);
        let codes: Vec<_> = found.iter().map(|(code, severity, _)| (*code, *severity)).collect();
        assert_eq!(codes, [("unknown_command", Severity::Warning), ("unknown_command", Severity::Refused)]);
    }

    #[test]
    fn a_server_that_refuses_writes_at_present_is_degraded_and_not_given_up() {
        let found = found(&[("UNLINK", "cache:..:preflight", "MISCONF Redis is configured to save")]);
        assert_eq!((found[0].0, found[0].1), ("cannot_save", Severity::Degraded));
    }

    /// The words in `text` that stand behind `before`, as far as `is_part` goes.
    fn words<'t>(text: &'t str, before: &str, is_part: impl Fn(char) -> bool) -> Vec<&'t str> {
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
        let tried: BTreeSet<&str> = words(SCRIPT, "try('", is_command).into_iter().collect();
        for (name, text) in files(&room.join("lua"), "lua") {
            // What INFO would tell is done without where it is refused.
            for command in words(&text, "call('", is_command).into_iter().filter(|command| *command != "INFO") {
                assert!(tried.contains(command), "{name:?} uses {command}, which the preflight does not try");
            }
            for prefix in words(&text, "'cache", |letter| letter.is_ascii_lowercase() || letter == '_') {
                let name_of_prefix = format!("'cache{prefix}:'");
                assert!(SCRIPT.contains(&name_of_prefix), "{name:?} uses keys {name_of_prefix}");
            }
        }
        for (name, text) in files(&room, "rs") {
            for command in words(&text, ".read(\"", is_command) {
                assert!(command == "INFO" || command == "EVAL" || tried.contains(command), "{name:?} uses {command}");
            }
        }
    }
}
