//! A primary and its replica, watched by three Sentinels that promote the replica when the primary is silent.
//!
//! The Sentinels are `redis-server --sentinel`, the same program under another name.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::process::{self, Process, Signal};
use super::redis::{Connection, Redis, Reply};
use super::{ports, scratch};

/// The name of the group in the Sentinels.
const NAME: &str = "group";

/// How long the primary must be silent before it counts as down.
pub const DOWN_AFTER: Duration = Duration::from_millis(1_000);

/// The limit for everything that the group does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Group {
    /// The loopback address at which the servers know each other.
    host: &'static str,
    nodes: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    _process: Process,
}

impl Group {
    /// Starts all servers and waits until the Sentinels know each other and the replica.
    pub fn start() -> Group {
        Group::start_at("127.0.0.1")
    }

    /// The same with IPv6 addresses.
    pub fn start_on_ipv6() -> Group {
        Group::start_at("::1")
    }

    fn start_at(host: &'static str) -> Group {
        // Sends the data to a replica at once, instead of waiting for more replicas.
        let first = Redis::start_as(&["--repl-diskless-sync-delay", "0", "--bind", "127.0.0.1", "::1"]);
        let second = Redis::start_as(&replica_of(host, &first).each_ref().map(String::as_str));
        let sentinels = (0..3).map(|_| Sentinel::start(host, &first)).collect();
        let group = Group { host, sentinels, nodes: [first, second] };
        group.wait_until_whole();
        group
    }

    /// Sets how often the Sentinels publish their view. A Sentinel waits for four of these periods before it demotes
    /// a primary that came back.
    pub fn tell_every(&self, period: Duration) {
        for sentinel in &self.sentinels {
            let millis = period.as_millis().to_string();
            let mut connection = Connection::open(sentinel.port).expect("a Sentinel accepts connections");
            connection.command(&["SENTINEL", "DEBUG", "PUBLISH-PERIOD", &millis]);
        }
    }

    /// The URL of a shard that consists of this group.
    pub fn url(&self) -> String {
        let [first, others @ ..] = self.sentinels.as_slice() else { panic!("there are three Sentinels") };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() };
        let others: String = others.iter().map(|other| format!("&node={host}:{}", other.port)).collect();
        format!("redis-sentinel://{host}:{}/0?sentinelServiceName={NAME}{others}", first.port)
    }

    /// The node that most Sentinels call the primary.
    pub fn primary(&self) -> usize {
        let says = |node: &usize| {
            let port = self.nodes[*node].port().to_string();
            self.sentinels.iter().filter(|sentinel| sentinel.primary_port() == port).count()
        };
        (0..self.nodes.len()).max_by_key(says).expect("there are two nodes")
    }

    pub fn node(&self, node: usize) -> &Redis {
        &self.nodes[node]
    }

    /// Makes the first Sentinel promote the replica, although the primary is alive. The other Sentinels learn of it
    /// from the first one's next message.
    pub fn fail_over(&self) {
        let mut sentinel = Connection::open(self.sentinels[0].port).expect("a Sentinel accepts connections");
        sentinel.command(&["SENTINEL", "FAILOVER", NAME]);
    }

    /// Whether the first Sentinel calls this node the primary.
    pub fn is_named(&self, node: usize) -> bool {
        self.sentinels[0].primary_port() == self.nodes[node].port().to_string()
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Waits until this node is the primary, by its own role and for all Sentinels.
    pub fn wait_for_primary(&self, node: usize) {
        let port = self.nodes[node].port().to_string();
        wait("a new primary", || {
            let believed = self.sentinels.iter().all(|sentinel| sentinel.primary_port() == port);
            believed && role(&self.nodes[node]) == "master"
        });
    }

    /// Starts a killed node again as the replica of the other node, and waits until the group is whole.
    pub fn come_back(&mut self, node: usize) {
        let words = replica_of(self.host, &self.nodes[1 - node]);
        self.nodes[node].becomes(&words.each_ref().map(String::as_str));
        self.nodes[node].run();
        self.wait_until_whole();
    }

    /// Waits until one node is the primary, the other is its replica and in sync, and every Sentinel sees this.
    pub fn wait_until_whole(&self) {
        wait("a whole group", || {
            let primary = self.primary();
            let replica = 1 - primary;
            let (first, second) = (&self.nodes[primary], &self.nodes[replica]);
            role(first) == "master"
                && role(second) == "slave"
                && text(second, "master_link_status").as_deref() == Some("up")
                && self.sentinels.iter().all(Sentinel::sees_all)
                && is_followed(first)
        });
    }

    /// The number of failovers so far.
    pub fn failovers(&self) -> u64 {
        let epoch = |sentinel: &Sentinel| sentinel.field("config-epoch").parse().unwrap_or(0);
        self.sentinels.iter().map(epoch).max().unwrap_or(0)
    }
}

/// The command line of a replica.
fn replica_of(host: &str, primary: &Redis) -> [String; 8] {
    let port = primary.port().to_string();
    ["--bind", "127.0.0.1", "::1", "--repl-diskless-sync-delay", "0", "--replicaof", host, &port].map(str::to_owned)
}

impl Sentinel {
    fn start(host: &str, primary: &Redis) -> Sentinel {
        let (port, folder) = (ports::free(), scratch::folder("sentinel"));
        let down_after = DOWN_AFTER.as_millis();
        let text = format!(
            "port {port}\nbind 127.0.0.1 ::1\ndir {}\nsentinel monitor {NAME} {host} {} 2\n\
             sentinel down-after-milliseconds {NAME} {down_after}\nsentinel failover-timeout {NAME} 3000\n",
            folder.path().display(),
            primary.port(),
        );
        let configuration = scratch::file(folder.path(), "sentinel.conf", &text);
        let program = process::program_named("redis-server", "redis-server");
        let mut command = process::dying_with_us(&program, Signal::Kill);
        command.arg(configuration).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn(command, Signal::Kill);
        wait("a Sentinel that answers", || {
            assert!(process.exited().is_none(), "a Sentinel on port {port} ended");
            Connection::open(port).is_ok_and(|mut sentinel| {
                // By default, Sentinels announce themselves every 2 s, check the nodes every 10 s, and elect no
                // primary for 30 s after they were paused (TILT mode).
                let periods = ["PUBLISH-PERIOD", "500", "INFO-PERIOD", "500", "TILT-PERIOD", "1000"];
                let words: Vec<&str> = ["SENTINEL", "DEBUG"].into_iter().chain(periods).collect();
                sentinel.try_command(&words).is_ok_and(|reply| reply == Reply::Simple("OK".to_owned()))
            })
        });
        // The folder is removed on purpose: the Sentinel goes on without saving its state. Otherwise it would wait
        // for the disk at every step, for seconds on a loaded machine, and then enter TILT mode, in which it elects
        // no primary.
        drop(folder);
        Sentinel { port, _process: process }
    }

    /// The texts that the Sentinel answers, or an empty list while it is busy.
    fn ask(&self, words: &[&str]) -> Vec<String> {
        let reply = Connection::open(self.port).and_then(|mut sentinel| sentinel.try_command(words));
        match reply {
            Ok(reply @ Reply::Array(_)) => reply.texts(),
            _ => Vec::new(),
        }
    }

    fn primary_port(&self) -> String {
        self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).pop().unwrap_or_default()
    }

    fn sees_all(&self) -> bool {
        let others = self.field("num-other-sentinels");
        (others.as_str(), self.field("num-slaves").as_str(), self.field("flags").as_str()) == ("2", "1", "master")
    }

    fn field(&self, name: &str) -> String {
        let fields = self.ask(&["SENTINEL", "MASTER", NAME]);
        let place = fields.iter().position(|field| field == name);
        place.map_or(String::new(), |place| fields[place + 1].clone())
    }
}

/// Whether a write reaches the replica. INFO reports the link as up before the replica has received all writes of the
/// initial sync.
fn is_followed(primary: &Redis) -> bool {
    let followed = ask(primary, &[&["SET", "tests:followed", "1"], &["WAIT", "1", "1000"]]);
    matches!(followed, Some(Reply::Integer(1)))
}

fn role(node: &Redis) -> String {
    text(node, "role").unwrap_or_default()
}

/// A field of `INFO replication`.
fn text(node: &Redis, field: &str) -> Option<String> {
    let text = ask(node, &[&["INFO", "replication"]])?.text();
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// The reply to the last command, or `None` if the connection breaks. Sentinel closes the connections of a node that
/// it makes a replica.
fn ask(node: &Redis, commands: &[&[&str]]) -> Option<Reply> {
    let mut connection = Connection::open(node.port()).ok()?;
    commands.iter().map(|words| connection.try_command(words).ok()).last().flatten()
}

fn wait(what: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
