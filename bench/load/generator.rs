//! The bench's own load generator, for latencies at a fixed rate and for requests that can be sent only once.
//!
//! **Open loop.** Programs do not wait for each other's answers, so requests are due at fixed, evenly spaced moments,
//! whatever happened to earlier requests; a request that finds no free connection waits for one. Its latency counts
//! **from the moment at which it was due**. A generator that sends the next request after the answer to the last one
//! (a closed loop) sends nothing while the server stalls, so only one request shows a stall that would have affected
//! a thousand. Gil Tene calls this *coordinated omission* (<https://github.com/giltene/wrk2#acknowledgements>) and
//! wrote the histograms used here against it (<https://hdrhistogram.github.io/HdrHistogram/>). Correcting a closed
//! loop's histogram afterwards, as `record_correct` does, is a guess; a schedule does not need it.
//!
//! The generator's own delays count as the server's, because they cannot be separated. It runs on one thread next to
//! the servers, wakes up at most every [`TICK`], and reports how late it was ([`Outcome::lateness`]).
//!
//! Everything is bounded: a fixed number of connections with one request on each; at most [`MAX_WAITING`] seconds of
//! waiting requests (further ones are counted as not sent); and [`PATIENCE`] for the last answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;

use super::connection::Connection;
use super::request::Kind;
use super::timer::Timer;
use super::{Latency, Request, Traffic};

/// The shortest time between two checks of the schedule.
const TICK: Duration = Duration::from_micros(100);

/// The maximum number of requests that wait for a connection, in seconds of the rate.
const MAX_WAITING: f64 = 2.0;

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest latency that the histograms can record, in microseconds.
const LONGEST: u64 = 60_000_000;

/// Sends requests in turn over connections that are distributed over the addresses.
#[derive(Clone)]
pub struct Generator {
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    pub requests: Vec<Request>,
}

/// When requests are due.
#[derive(Clone, Copy, Debug)]
pub enum Arrivals {
    /// `rate` requests per second, evenly spaced.
    Open { rate: f64, count: u64 },
    /// As soon as a connection is free.
    Closed { count: u64 },
}

/// The outcome of a run.
pub struct Outcome {
    pub elapsed: Duration,
    pub reads: Histogram<u64>,
    pub writes: Histogram<u64>,
    /// How long after its due time the generator handled a request.
    pub lateness: Histogram<u64>,
    /// Due but never sent, because too many were waiting.
    pub unsent: u64,
    /// Sent or waiting, but not answered by the end.
    pub unanswered: u64,
    /// Answered with something other than success.
    pub refused: u64,
    /// Requests whose connection broke.
    pub broken: u64,
    first_error: Option<String>,
}

impl Outcome {
    fn new() -> anyhow::Result<Outcome> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3);
        Ok(Outcome {
            elapsed: Duration::ZERO,
            reads: histogram()?,
            writes: histogram()?,
            lateness: histogram()?,
            unsent: 0,
            unanswered: 0,
            refused: 0,
            broken: 0,
            first_error: None,
        })
    }

    pub fn answered(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }

    /// Whether every request was sent and answered with success.
    pub fn is_whole(&self) -> bool {
        self.unsent + self.unanswered + self.refused + self.broken == 0
    }

    /// # Errors
    /// A request was answered with an error or not at all.
    pub fn traffic(&self) -> anyhow::Result<Traffic> {
        ensure!(
            self.is_whole(),
            "{} answered, {} refused, {} broken, {} unanswered, {} not sent; the first error: {}",
            self.answered(),
            self.refused,
            self.broken,
            self.unanswered,
            self.unsent,
            self.first_error.as_deref().unwrap_or("none")
        );
        let mut all = self.reads.clone();
        all.add(&self.writes)?;
        Ok(Traffic { requests: all.len(), elapsed: self.elapsed, latency: latency(&all) })
    }
}

/// Percentiles of a histogram in microseconds.
pub fn latency(histogram: &Histogram<u64>) -> Latency {
    let ms = |quantile| (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1e3);
    Latency { p50_ms: ms(0.5), p99_ms: ms(0.99), p999_ms: ms(0.999) }
}

/// A request that is due.
struct Due {
    /// `None`: due when a connection takes it.
    at: Option<Instant>,
    request: usize,
}

/// State shared by the schedule and the connections, all on one thread.
struct Shared {
    requests: Vec<Request>,
    waiting: RefCell<VecDeque<Due>>,
    /// One permit for each waiting request; closed at the end.
    ready: Semaphore,
    outcome: RefCell<Outcome>,
    /// Notified after every answer.
    progress: Notify,
}

impl Generator {
    /// Runs the load on a separate thread.
    ///
    /// # Errors
    /// The connections cannot be opened. Failed requests are counted in the outcome.
    pub fn run(&self, arrivals: Arrivals) -> anyhow::Result<Outcome> {
        ensure!(!self.requests.is_empty() && !self.addresses.is_empty(), "the load has no requests or no address");
        let generator = self.clone();
        let thread = thread::Builder::new().name("generator".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Tasks that still wait for an answer end with the task set.
            runtime.block_on(LocalSet::new().run_until(generator.conduct(arrivals)))
        })?;
        match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("the generator panicked"),
        }
    }

    async fn conduct(self, arrivals: Arrivals) -> anyhow::Result<Outcome> {
        let shared = Rc::new(Shared {
            requests: self.requests,
            waiting: RefCell::default(),
            ready: Semaphore::new(0),
            outcome: RefCell::new(Outcome::new()?),
            progress: Notify::new(),
        });
        for number in 0..self.connections {
            let address = self.addresses[number % self.addresses.len()];
            let connection = Connection::open(address).await.with_context(|| format!("connecting to {address}"))?;
            tokio::task::spawn_local(serve(Rc::clone(&shared), address, connection));
        }
        let begun = Instant::now();
        let sent = match arrivals {
            Arrivals::Open { rate, count } => shared.keep_to_schedule(begun, rate, count).await?,
            Arrivals::Closed { count } => {
                for number in 0..count {
                    shared.put(None, number);
                }
                count
            }
        };
        shared.ended(sent, arrivals).await;
        let mut outcome = shared.outcome.replace(Outcome::new()?);
        outcome.elapsed = begun.elapsed();
        let known = outcome.answered() + outcome.refused + outcome.broken;
        outcome.unanswered = sent - known;
        Ok(outcome)
    }
}

impl Shared {
    fn put(&self, at: Option<Instant>, number: u64) {
        let request = (number % self.requests.len() as u64) as usize;
        self.waiting.borrow_mut().push_back(Due { at, request });
        self.ready.add_permits(1);
    }

    /// Queues requests when they are due. Returns how many.
    async fn keep_to_schedule(&self, begun: Instant, rate: f64, count: u64) -> anyhow::Result<u64> {
        let mut timer = Timer::new()?;
        let most = (rate * MAX_WAITING).ceil() as usize;
        let mut unsent = 0;
        for number in 0..count {
            let due = begun + Duration::from_secs_f64(number as f64 / rate);
            let mut now = Instant::now();
            if due > now {
                timer.sleep_until(due.max(now + TICK)).await?;
                now = Instant::now();
            }
            let lateness = now.saturating_duration_since(due);
            self.outcome.borrow_mut().lateness.saturating_record(micros(lateness));
            if self.waiting.borrow().len() < most {
                self.put(Some(due), number);
            } else {
                unsent += 1;
            }
        }
        self.outcome.borrow_mut().unsent = unsent;
        Ok(count - unsent)
    }

    /// Returns when everything was answered or the patience is over.
    async fn ended(&self, sent: u64, arrivals: Arrivals) {
        let over = tokio::time::Instant::now() + PATIENCE;
        loop {
            let known = {
                let outcome = self.outcome.borrow();
                outcome.answered() + outcome.refused + outcome.broken
            };
            let limit = match arrivals {
                Arrivals::Open { .. } => over,
                Arrivals::Closed { .. } => tokio::time::Instant::now() + PATIENCE,
            };
            if known >= sent || tokio::time::timeout_at(limit, self.progress.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// Sends due requests over one connection, one at a time.
async fn serve(shared: Rc<Shared>, address: SocketAddr, connection: Connection) {
    let mut connection = Some(connection);
    while let Ok(permit) = shared.ready.acquire().await {
        permit.forget();
        let Some(due) = shared.waiting.borrow_mut().pop_front() else { continue };
        let (at, request) = (due.at.unwrap_or_else(Instant::now), &shared.requests[due.request]);
        let answer = async {
            if connection.is_none() {
                connection = Some(Connection::open(address).await?);
            }
            let open = connection.as_mut().ok_or(std::io::ErrorKind::NotConnected)?;
            open.ask(&request.bytes).await
        };
        let answer = answer.await;
        let took = micros(at.elapsed());
        let mut outcome = shared.outcome.borrow_mut();
        match answer {
            Ok(200..300) => match request.kind {
                Kind::Read => outcome.reads.saturating_record(took),
                Kind::Write => outcome.writes.saturating_record(took),
            },
            Ok(status) => {
                outcome.refused += 1;
                outcome.first_error.get_or_insert_with(|| format!("status {status}"));
            }
            Err(error) => {
                connection = None;
                outcome.broken += 1;
                outcome.first_error.get_or_insert_with(|| error.to_string());
            }
        }
        drop(outcome);
        shared.progress.notify_one();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
