//! Bounded staleness under every fault: faults are injected into instances, shards and a Sentinel group while clients
//! write increasing values and read them through all instances. `support/history.rs` defines which answers are
//! correct.
//!
//! `store_faults` contains the faults of the shards' data and roles. With `CHAOS=long` (`make chaos`) every fault
//! lasts longer, and the schedule repeats until a million reads are checked. The tests in `sensitivity` disable a part
//! of the mechanism and expect stale answers, which proves that the checker notices them. `loop_checker.rs` injects
//! the same faults while its clients use leases.

mod probe;
mod sensitivity;
mod store_faults;

use std::thread;
use std::time::{Duration, Instant};

use self::probe::{Probe, see_copies};
pub use self::store_faults::under_faults_of_the_store;
use crate::support::checker::Checker;
use crate::support::history::Lost;
use crate::support::load::{Load, Misses, Plan, WHOLE_MACHINE};
use crate::support::process::Signal;
use crate::support::proxy::{Of, Proxy};
use crate::support::redis::{Connection, Redis};
use crate::support::sentinel::Group;
use crate::support::service::{Service, Settings};

/// The default of `max_staleness_ms`.
pub const BOUND: Duration = Duration::from_millis(1_000);

/// The default of `redis_timeout_ms`.
const REDIS_TIMEOUT: Duration = Duration::from_millis(250);

/// The limit for recovery after a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// A write that was acknowledged this shortly before its primary failed may not have reached the replica.
const ON_THE_WAY: Duration = Duration::from_millis(200);

const PLAN: Plan =
    Plan { bound: BOUND, readers_an_instance: 2, writers: 4, hot: 3, rare: 21, misses: Misses::Judged };

pub const INSTANCES: usize = 3;

/// Which faults are injected, and for how long.
#[derive(Clone, Copy)]
pub struct Schedule {
    pub faults: Faults,
    /// Ends the run early, after any fault.
    pub is_enough: fn(&Checker) -> bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    All,
    /// For a short run: those that can lose commands, data or leases.
    Few,
}

impl Schedule {
    /// Every fault, as often as the pace says.
    const WHOLE: Schedule = Schedule { faults: Faults::All, is_enough: |_| false };
}

/// The durations and counts of a run.
struct Pace {
    /// The time without a fault between two faults.
    calm: Duration,
    /// The duration of a fault of connections or messages.
    fault: Duration,
    /// How long a server or an instance stays paused.
    standstill: Duration,
    /// After this many faults the system settles completely. From then until the next fault, reads may not go back in
    /// time.
    settle_every: usize,
    /// The minimum number of repetitions of the schedule.
    rounds: usize,
    /// The minimum number of checked reads. The schedule repeats until they are reached.
    reads: u64,
    /// See [`Group::tell_every`].
    tell_every: Duration,
}

impl Pace {
    fn chosen() -> Pace {
        let millis = Duration::from_millis;
        match std::env::var("CHAOS").as_deref() {
            Ok("long") => Pace {
                calm: millis(2_000),
                fault: millis(2_500),
                standstill: millis(3_000),
                settle_every: 1,
                rounds: 3,
                reads: 1_000_000,
                tell_every: millis(2_000),
            },
            Ok(other) => panic!("CHAOS must be `long` or unset, not {other:?}"),
            Err(_) => Pace {
                calm: millis(120),
                fault: millis(650),
                standstill: millis(1_100),
                settle_every: 6,
                rounds: 1,
                reads: 0,
                tell_every: millis(250),
            },
        }
    }
}

/// All servers and services of the test. The shards `a` and `b` are servers behind one proxy for each instance. `c`
/// is a Sentinel group, and the instances learn its addresses from the Sentinels.
struct Field<'l> {
    load: &'l Load,
    pace: Pace,
    servers: [Redis; 2],
    /// By instance, then by server.
    proxies: Vec<[Proxy; 2]>,
    group: Group,
    settings: Vec<Settings>,
    services: Vec<Service>,
    probes: Vec<Probe>,
    /// Counts the faults and selects the target of the next one, so that in a long run every fault hits every target.
    turn: usize,
}

/// The shard names of the servers.
const NAMES: [&str; 2] = ["a", "b"];

/// The settings of the instances: short timeouts and no access log.
fn settings(shards: &str) -> Settings {
    Settings::none()
        .set("redis_shards", shards)
        .set("redis_timeout_ms", REDIS_TIMEOUT.as_millis())
        .set("request_timeout_ms", 2_000)
        .set("access_log_sample_rate", 0)
}

#[test]
fn no_answer_is_older_than_the_bound_whatever_fails() {
    let _alone = WHOLE_MACHINE.blocking_lock();
    under_faults_of_servers(PLAN, Schedule::WHOLE, |load, inject| {
        load.run(inject);
        eprintln!("{}", load.checker);
        assert_eq!(load.checker.violations(), 0, "violations, listed above");
    });
}

/// Starts the servers and the services. `run` gets a load on them, and the function that injects the faults.
pub fn under_faults_of_servers(plan: Plan, schedule: Schedule, run: impl FnOnce(&Load, &mut dyn FnMut())) {
    let pace = Pace::chosen();
    let servers = [Redis::start(), Redis::start()];
    let group = Group::start();
    group.tell_every(pace.tell_every);
    let proxies: Vec<[Proxy; 2]> = (0..INSTANCES).map(|_| servers.each_ref().map(Proxy::in_front_of)).collect();
    let settings: Vec<Settings> =
        proxies.iter().map(|[a, b]| settings(&format!("a={},b={},c={}", a.url(), b.url(), group.url()))).collect();
    let services: Vec<Service> = settings.iter().cloned().map(Service::start).collect();
    let addresses: Vec<_> = services.iter().map(Service::address).collect();
    let load = Load::new(plan, &addresses);
    let probes = Probe::all(&services[0], &["a", "b", "c"]);
    let mut field = Field { load: &load, pace, servers, proxies, group, settings, services, probes, turn: 0 };
    run(&load, &mut || field.run(schedule));
    eprintln!("failovers           {}", field.group.failovers());
}

impl Field<'_> {
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
        let all: [fn(&mut Self); 17] = [
            Self::cut_subscribers,
            Self::half_open_subscriber,
            Self::half_open_connections,
            Self::late_messages,
            Self::late_answers,
            Self::overflow_of_a_stalled_connection,
            Self::overflow_of_a_stopped_instance,
            Self::lagging_channel,
            Self::short_stop_of_a_server,
            Self::long_stop_of_a_server,
            Self::stop_of_an_instance,
            Self::kill_subscriber_clients,
            Self::kill_command_clients,
            Self::restart_empty,
            Self::kill_an_instance,
            Self::kill_a_primary,
            Self::stop_a_primary,
        ];
        let few: [fn(&mut Self); 11] = [
            Self::cut_subscribers,
            Self::half_open_connections,
            Self::late_answers,
            Self::short_stop_of_a_server,
            Self::long_stop_of_a_server,
            Self::stop_of_an_instance,
            Self::kill_command_clients,
            Self::restart_empty,
            Self::kill_an_instance,
            Self::kill_a_primary,
            Self::stop_a_primary,
        ];
        match faults {
            Faults::All => all.to_vec(),
            Faults::Few => few.to_vec(),
        }
    }

    fn checker(&self) -> &Checker {
        &self.load.checker
    }

    /// The instance that the next fault hits.
    fn instance(&self) -> usize {
        self.turn % INSTANCES
    }

    /// The server that the next fault hits.
    fn server(&self) -> usize {
        self.turn / INSTANCES % NAMES.len()
    }

    /// The proxy between this instance and this server.
    fn proxy(&self) -> &Proxy {
        &self.proxies[self.instance()][self.server()]
    }

    /// Waits until every instance answers from L1 again for every shard.
    fn recover(&mut self) {
        recover(self.load, &self.pace, &mut self.probes, &self.services, self.turn);
    }

    fn cut_subscribers(&mut self) {
        self.checker().fault("subscriber connection cut");
        self.proxy().hold("SUBSCRIBE");
        self.proxy().cut(Of::Subscribers);
        thread::sleep(self.pace.fault);
        self.proxy().release();
    }

    fn half_open_subscriber(&mut self) {
        self.checker().fault("subscriber connection half-open");
        self.proxy().swallow(Of::Subscribers);
        thread::sleep(self.pace.fault);
    }

    fn half_open_connections(&mut self) {
        self.checker().fault("all connections to a shard half-open");
        self.proxy().swallow(Of::All);
        thread::sleep(self.pace.fault);
    }

    fn late_messages(&mut self) {
        self.checker().fault("messages delivered late");
        for late in [BOUND / 2, BOUND * 3 / 2] {
            self.proxy().delay(Of::Subscribers, Duration::ZERO, late);
            thread::sleep(self.pace.fault / 2);
        }
        self.proxy().delay(Of::All, Duration::ZERO, Duration::ZERO);
    }

    fn late_answers(&mut self) {
        self.checker().fault("answers delivered late");
        self.proxy().delay(Of::Others, Duration::ZERO, REDIS_TIMEOUT * 3 / 5);
        thread::sleep(self.pace.fault);
        self.proxy().delay(Of::All, Duration::ZERO, Duration::ZERO);
    }

    fn overflow_of_a_stalled_connection(&mut self) {
        self.checker().fault("messages lost to the shard's output buffer, the connection being stalled");
        self.proxy().stall(Of::Subscribers);
        self.overflow();
        thread::sleep(self.pace.fault);
        self.proxy().flow(Of::Subscribers);
    }

    fn overflow_of_a_stopped_instance(&mut self) {
        self.checker().fault("messages lost to the shard's output buffer, the instance being stopped");
        self.stopped(|field| {
            field.overflow();
            thread::sleep(field.pace.standstill);
        });
    }

    /// Publishes until the server disconnects the subscriber that reads nothing.
    fn overflow(&self) {
        let mut server = self.servers[self.server()].connect();
        server.configure("client-output-buffer-limit", "pubsub 65536 0 0");
        let subscribers = |server: &mut Connection| {
            let list = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).text();
            list.lines().count()
        };
        let before = subscribers(&mut server);
        let message = messages(20_000);
        let deadline = Instant::now() + PATIENCE;
        while subscribers(&mut server) >= before {
            server.command(&["PUBLISH", INVALIDATIONS, &message]);
            assert!(Instant::now() < deadline, "the server disconnects no subscriber");
        }
        server.configure("client-output-buffer-limit", USUAL_LIMIT);
        self.checker().remark("subscriber disconnected");
    }

    fn lagging_channel(&mut self) {
        const ATTEMPTS: usize = 6;
        self.checker().fault("messages lost to the full queue of an instance");
        let mut server = self.servers[self.server()].connect();
        server.configure("client-output-buffer-limit", "pubsub 0 0 0");
        let noticed = |field: &Self| field.services[field.instance()].log().matches("the queue was full").count();
        let before = noticed(self);
        for attempt in 1..=ATTEMPTS {
            // On a busy machine the instance reads as slowly as it applies the messages, so it takes more of them to
            // fill the queue. Redis keeps a copy for each of six subscribers: about half a gigabyte at most.
            self.pile_up(&mut server, 40 * attempt.min(2));
            let released = Instant::now();
            while noticed(self) == before && released.elapsed() < BOUND * 2 {
                thread::sleep(Duration::from_millis(5));
            }
            if noticed(self) > before {
                self.checker().remark(&format!("queue full in attempt {attempt}"));
                break;
            }
            assert!(attempt < ATTEMPTS, "the queue of the instance did not fill up");
        }
        server.configure("client-output-buffer-limit", USUAL_LIMIT);
    }

    /// Delivers this many thousands of messages to the instance at once.
    fn pile_up(&self, server: &mut Connection, thousands: usize) {
        // Applying such a message takes the instance longer than reading it from the connection.
        let message = messages(100);
        let script = "for i = 1, 1000 do redis.call('PUBLISH', ARGV[1], ARGV[2]) end";
        self.proxy().stall(Of::Subscribers);
        for _ in 0..thousands {
            server.command(&["EVAL", script, "0", INVALIDATIONS, &message]);
        }
        // Short enough that the instance does not replace the connection.
        thread::sleep(self.pace.fault.min(BOUND));
        self.proxy().flow(Of::Subscribers);
    }

    fn short_stop_of_a_server(&mut self) {
        self.checker().fault("shard stopped for less than the timeout");
        for _ in 0..3 {
            self.servers[self.server()].signal(Signal::Stop);
            thread::sleep(REDIS_TIMEOUT * 3 / 5);
            self.servers[self.server()].signal(Signal::Cont);
            thread::sleep(REDIS_TIMEOUT / 5);
        }
    }

    fn long_stop_of_a_server(&mut self) {
        self.checker().fault("shard stopped for longer than the timeout");
        self.servers[self.server()].signal(Signal::Stop);
        thread::sleep(self.pace.standstill);
        self.servers[self.server()].signal(Signal::Cont);
    }

    fn stop_of_an_instance(&mut self) {
        self.checker().fault("instance stopped");
        self.stopped(|field| thread::sleep(field.pace.standstill));
    }

    /// Pauses an instance for longer than the bound. When it continues, reads that were sent during the pause are
    /// waiting.
    fn stopped(&self, during: impl FnOnce(&Self)) {
        let (instance, load) = (self.instance(), self.load);
        let mut lines = load.connections(instance, 48);
        // Writers use other instances meanwhile, so that writes are still acknowledged.
        load.avoid(instance, true);
        self.services[instance].signal(Signal::Stop);
        let stopped = Instant::now();
        let later = lines.split_off(24);
        let sent = load.send(instance, lines);
        during(self);
        thread::sleep((BOUND + BOUND / 10).saturating_sub(stopped.elapsed()));
        let sent_later = load.send(instance, later);
        self.services[instance].signal(Signal::Cont);
        load.receive(sent_later);
        load.receive(sent);
        load.avoid(instance, false);
    }

    fn kill_subscriber_clients(&mut self) {
        self.checker().fault("CLIENT KILL of all subscribers");
        self.kill_clients("pubsub");
    }

    fn kill_command_clients(&mut self) {
        self.checker().fault("CLIENT KILL of all other clients");
        self.kill_clients("normal");
    }

    fn kill_clients(&self, kind: &str) {
        const TIMES: u32 = 3;
        for _ in 0..TIMES {
            for server in &self.servers {
                server.connect().command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
            }
            thread::sleep(self.pace.fault / TIMES);
        }
    }

    fn restart_empty(&mut self) {
        let server = self.server();
        self.checker().fault("shard killed, and started empty");
        self.checker().begin_loss(NAMES[server], Lost::Everything, Duration::ZERO);
        self.servers[server].kill();
        thread::sleep(self.pace.fault / 2);
        self.servers[server].run();
        self.checker().end_loss(NAMES[server]);
        thread::sleep(self.pace.fault / 2);
    }

    fn kill_an_instance(&mut self) {
        let instance = self.instance();
        self.checker().fault("instance killed, and another started");
        self.services[instance].kill();
        thread::sleep(self.pace.fault / 2);
        self.services[instance] = Service::start(self.settings[instance].clone());
        self.load.moved(instance, self.services[instance].address());
        thread::sleep(self.pace.fault / 2);
    }

    fn kill_a_primary(&mut self) {
        self.checker().fault("primary of the Sentinel group killed");
        let primary = self.group.primary();
        self.fail_over(primary, |group| group.kill(primary));
        thread::sleep(self.pace.fault);
        self.group.come_back(primary);
    }

    fn stop_a_primary(&mut self) {
        self.checker().fault("primary of the Sentinel group stopped until another was elected");
        let primary = self.group.primary();
        self.fail_over(primary, |group| group.node(primary).signal(Signal::Stop));
        thread::sleep(self.pace.fault / 2);
        // The old primary considers itself the primary until a Sentinel demotes it.
        self.group.node(primary).signal(Signal::Cont);
        self.checker().remark("the old primary continues");
        thread::sleep(self.pace.fault / 2);
        self.group.wait_until_whole();
    }

    fn fail_over(&mut self, primary: usize, silence: impl FnOnce(&mut Group)) {
        self.checker().begin_loss("c", Lost::Latest, ON_THE_WAY);
        let began = Instant::now();
        silence(&mut self.group);
        self.group.wait_for_primary(1 - primary);
        self.checker().end_loss("c");
        self.checker().remark(&format!("new primary after {:.1?}", began.elapsed()));
    }
}

/// Waits until every instance answers from L1 again for every shard. `turn` is the number of the fault before.
fn recover(load: &Load, pace: &Pace, probes: &mut [Probe], services: &[Service], turn: usize) {
    let began = Instant::now();
    see_copies(probes, services, began + PATIENCE);
    load.checker.remark(&format!("recovered after {:.1?}", began.elapsed()));
    if turn.is_multiple_of(pace.settle_every) {
        // For this long, what an instance knew before the fault still proves its copies, even if no message arrives.
        thread::sleep((BOUND + BOUND / 10).saturating_sub(began.elapsed()));
        see_copies(probes, services, began + PATIENCE);
        load.checker.is_healthy();
    }
    thread::sleep(pace.calm);
}

/// The channel on which scripts publish their changes.
const INVALIDATIONS: &str = "sidecache:invalidations";

/// Redis' default limit for the output buffer of a subscriber.
const USUAL_LIMIT: &str = "pubsub 33554432 8388608 60";

/// An invalidation of this many keys that no instance holds.
fn messages(keys: usize) -> String {
    let keys: String = (0..keys).map(|key| format!("\nnobody-has-this-{key}")).collect();
    format!("0 set nowhere{keys}")
}
