//! Faults of the shards' data and roles: failovers, an address that leads to another server, lost data and
//! bookkeeping, and foreign types under the service's names. Shard `a` is one server. Shard `b` is a primary with a
//! replica, behind a TCP switch.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use super::probe::Probe;
use super::{Faults, INSTANCES, ON_THE_WAY, PATIENCE, PLAN, Pace, Schedule, recover, settings};
use crate::support::checker::Checker;
use crate::support::history::Lost;
use crate::support::load::{Load, Plan};
use crate::support::redis::{Connection, Redis, Reply};
use crate::support::service::{Service, Settings};
use crate::support::switch::Switch;

struct World<'l> {
    load: &'l Load,
    pace: Pace,
    single: Redis,
    pair: [Redis; 2],
    /// The index of the primary in `pair`.
    primary: usize,
    name: Switch,
    settings: Settings,
    services: Vec<Service>,
    probes: Vec<Probe>,
    turn: usize,
}

#[test]
fn no_answer_is_older_than_the_bound_whatever_happens_to_the_store() {
    under_faults_of_the_store(PLAN, Schedule::WHOLE, |load, inject| {
        let shown = ShownAtTheEnd(&load.checker);
        load.run(inject);
        drop(shown);
        assert_eq!(load.checker.violations(), 0, "violations, listed above");
    });
}

/// Starts the servers and the services. `run` gets a load on them, and the function that injects the faults.
pub fn under_faults_of_the_store(plan: Plan, schedule: Schedule, run: impl FnOnce(&Load, &mut dyn FnMut())) {
    let pace = Pace::chosen();
    let single = Redis::start();
    let pair = [0; 2].map(|_| Redis::start_as(&["--repl-diskless-sync-delay", "0"]));
    follow(&pair[1], &pair[0]);
    let name = Switch::to(&pair[0]);
    let settings = settings(&format!("a={},b={}", single.url(), name.url()));
    let services: Vec<Service> = (0..INSTANCES).map(|_| Service::start(settings.clone())).collect();
    let addresses: Vec<_> = services.iter().map(Service::address).collect();
    let load = Load::new(plan, &addresses);
    let probes = Probe::all(&services[0], &["a", "b"]);
    let mut world = World { load: &load, pace, single, pair, primary: 0, name, settings, services, probes, turn: 0 };
    run(&load, &mut || world.run(schedule));
}

/// Prints the results on drop, so also when the test panics during a fault.
struct ShownAtTheEnd<'c>(&'c Checker);

impl Drop for ShownAtTheEnd<'_> {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

impl World<'_> {
    /// Injects the faults, one after the other, until the run is long enough.
    fn run(&mut self, schedule: Schedule) {
        self.recover();
        for round in 1.. {
            for fault in Self::faults(schedule.faults) {
                fault(self);
                self.recover();
                self.turn += 1;
                if (schedule.is_enough)(self.checker()) {
                    return;
                }
            }
            if round >= self.pace.rounds && self.checker().reads() >= self.pace.reads {
                return;
            }
        }
    }

    fn faults(faults: Faults) -> Vec<fn(&mut Self)> {
        let all: [fn(&mut Self); 10] = [
            Self::managed_failover,
            Self::managed_failover_before_an_instance_starts,
            Self::switch_of_the_address,
            Self::demotion_and_back,
            Self::replica_of_another,
            Self::flushall,
            Self::flushdb,
            Self::lost_records,
            Self::lost_books,
            Self::foreign_types,
        ];
        let few: [fn(&mut Self); 5] = [
            Self::managed_failover,
            Self::switch_of_the_address,
            Self::flushall,
            Self::lost_records,
            Self::lost_books,
        ];
        match faults {
            Faults::All => all.to_vec(),
            Faults::Few => few.to_vec(),
        }
    }

    fn checker(&self) -> &Checker {
        &self.load.checker
    }

    fn recover(&mut self) {
        recover(self.load, &self.pace, &mut self.probes, &self.services, self.turn);
    }

    /// The replica becomes the primary and the primary its replica, and the switch leads to the new primary.
    /// Connections stay open.
    fn managed_failover(&mut self) {
        self.checker().fault("managed failover: roles exchanged, the name leads elsewhere");
        self.fail_over(|_, _| {});
    }

    /// The old primary cannot reach the new one. Then an instance starts that knows only the new primary. The other
    /// instances do not hear of its writes.
    fn managed_failover_before_an_instance_starts(&mut self) {
        let instance = self.turn % INSTANCES;
        self.checker().fault("managed failover without a link, and an instance killed and started");
        self.services[instance].kill();
        let nowhere = Redis::reserved();
        let (settings, load, pause) = (self.settings.clone(), self.load, self.pace.standstill);
        let mut service = None;
        self.fail_over(|old, end_loss| {
            replicate(old, nowhere.port());
            end_loss();
            let started = Service::start(settings);
            load.moved(instance, started.address());
            service = Some(started);
            thread::sleep(pause);
        });
        self.services[instance] = service.expect("the instance was started");
    }

    /// The switch leads to the new primary. The old one is not demoted, but its connections are closed.
    fn switch_of_the_address(&mut self) {
        self.checker().fault("switch of the address: the old primary stays one, its connections are closed");
        self.fail_over(|old, _| {
            for kind in ["pubsub", "normal"] {
                old.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
            }
        });
    }

    /// `meanwhile` gets a connection to the old primary, and a function to call once the old primary accepts no more
    /// writes.
    fn fail_over(&mut self, meanwhile: impl FnOnce(&mut Connection, &dyn Fn())) {
        let (old, new) = (&self.pair[self.primary], &self.pair[1 - self.primary]);
        self.checker().begin_loss("b", Lost::Latest, ON_THE_WAY);
        new.connect().command(&["REPLICAOF", "NO", "ONE"]);
        self.name.lead_to(new);
        let ended = Cell::new(false);
        let end_loss = || {
            if !ended.replace(true) {
                self.checker().end_loss("b");
            }
        };
        meanwhile(&mut old.connect(), &end_loss);
        replicate(&mut old.connect(), new.port());
        end_loss();
        thread::sleep(self.pace.fault);
        wait_until_in_sync(old);
        self.primary = 1 - self.primary;
    }

    /// The primary is told to follow a server that does not exist. Later it becomes a primary again, with its data.
    fn demotion_and_back(&mut self) {
        self.checker().fault("REPLICAOF on a living primary, and back");
        let nowhere = Redis::reserved();
        replicate(&mut self.single.connect(), nowhere.port());
        thread::sleep(self.pace.standstill);
        self.single.connect().command(&["REPLICAOF", "NO", "ONE"]);
    }

    /// The primary follows another server for a while, and that server's data replaces its own.
    fn replica_of_another(&mut self) {
        self.checker().fault("REPLICAOF of an empty server, and back");
        let other = Redis::start_as(&["--repl-diskless-sync-delay", "0"]);
        self.checker().begin_loss("a", Lost::Everything, Duration::ZERO);
        follow(&self.single, &other);
        thread::sleep(self.pace.fault / 2);
        self.single.connect().command(&["REPLICAOF", "NO", "ONE"]);
        self.checker().end_loss("a");
        thread::sleep(self.pace.fault / 2);
    }

    fn flushall(&mut self) {
        self.checker().fault("FLUSHALL");
        self.lose(|shard, _| drop(shard.command(&["FLUSHALL"])));
    }

    fn flushdb(&mut self) {
        self.checker().fault("FLUSHDB");
        self.lose(|shard, _| drop(shard.command(&["FLUSHDB"])));
    }

    /// Deletes the shard's records of the fleet, one after the other.
    fn lost_records(&mut self) {
        self.checker().fault("a shard's records lost, one after the other");
        for name in ["sidecache:ring", "sidecache:fence", "sidecache:instances", "sidecache:heartbeats"] {
            self.lose(|shard, _| drop(shard.command(&["DEL", name])));
        }
    }

    /// Deletes the bookkeeping of the load's namespace, one kind after the other.
    fn lost_books(&mut self) {
        self.checker().fault("bookkeeping lost, one kind after the other");
        for kind in KINDS {
            self.lose(|shard, ns| {
                let names = some_names(shard, kind, ns);
                shard.pipeline(names.iter().map(|name| vec!["DEL", name]));
            });
        }
    }

    /// Puts lists under one kind of names after the other, and removes them again.
    fn foreign_types(&mut self) {
        self.checker().fault("foreign types under one kind of names after the other");
        let of_the_fleet = ["sidecache:ring", "sidecache:fence", "sidecache:instances", "sidecache:heartbeats"];
        for kind in KINDS.into_iter().chain(of_the_fleet) {
            let namespace = self.load.namespace();
            let mut shard = self.single.connect();
            self.checker().begin_loss("a", Lost::Everything, Duration::ZERO);
            let names = if of_the_fleet.contains(&kind) {
                vec![kind.to_owned()]
            } else {
                some_names(&mut shard, kind, namespace)
            };
            for name in &names {
                // In one script, since a write of the service could come in between.
                let script = "redis.call('DEL', KEYS[1]) return redis.call('LPUSH', KEYS[1], 'x')";
                shard.command(&["EVAL", script, "1", name]);
            }
            thread::sleep(self.pace.fault / 2);
            for name in &names {
                if shard.command(&["TYPE", name]) == Reply::Simple("list".to_owned()) {
                    shard.command(&["DEL", name]);
                }
            }
            self.checker().end_loss("a");
            thread::sleep(self.pace.fault / 4);
        }
    }

    /// Loses something on shard `a` at one moment.
    fn lose(&self, lose: impl FnOnce(&mut Connection, &str)) {
        self.checker().begin_loss("a", Lost::Everything, Duration::ZERO);
        lose(&mut self.single.connect(), self.load.namespace());
        self.checker().end_loss("a");
        thread::sleep(self.pace.fault / 2);
    }
}

/// The kinds of names that a namespace has on a shard.
const KINDS: [&str; 6] = ["cache", "cache_meta", "cache_stats", "cache_index", "cache_due", "cache_tag"];

/// The names of this kind in a namespace. Of values and metadata only every third.
fn some_names(shard: &mut Connection, kind: &str, ns: &str) -> Vec<String> {
    match kind {
        "cache" | "cache_meta" => shard.scan(&format!("{kind}:{ns}:*")).into_iter().step_by(3).collect(),
        // Nothing here expires or has a tag, but a foreign value can still occupy the name.
        "cache_due" => vec![format!("{kind}:{ns}")],
        "cache_tag" => vec![format!("{kind}:{ns}:tag")],
        _ => shard.scan(&format!("{kind}:{ns}*")),
    }
}

fn replicate(server: &mut Connection, port: u16) {
    server.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
}

/// Makes a server the replica of another, and waits until it has the data.
fn follow(replica: &Redis, primary: &Redis) {
    replicate(&mut replica.connect(), primary.port());
    wait_until_in_sync(replica);
}

fn wait_until_in_sync(replica: &Redis) {
    let deadline = Instant::now() + PATIENCE;
    while !replica.connect().command(&["INFO", "replication"]).text().contains("master_link_status:up") {
        assert!(Instant::now() < deadline, "the replica is not in sync");
        thread::sleep(Duration::from_millis(20));
    }
}
