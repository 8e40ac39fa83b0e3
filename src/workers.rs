//! The threads that serve connections: one single-threaded runtime for each core, each with its own connections.
//!
//! A worker serves a connection from the first byte to the last. Handing a request to another thread and waking that
//! thread would cost more than an L1 hit. Values that all requests touch exist once for each worker ([`PerWorker`]),
//! so that two cores do not write to the same cache line.
//!
//! The runtime of the main thread ([`background`]) accepts connections and does all background work. Its number of
//! threads does not depend on the number of workers.
//!
//! A large batch that is parsed on a worker delays other requests on that worker, and commands on the worker's own
//! connections to shards. It does not delay invalidations: subscriptions run in the background.

use std::cell::Cell;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Threads for background work, in addition to the main thread.
const BACKGROUND_THREADS: usize = 2;

/// The maximum number of threads for blocking calls (DNS lookups, rendering `/metrics`), in the background runtime
/// and on each worker, and how long an idle thread is kept.
const BLOCKING_THREADS: usize = 4;
const BLOCKING_STAYS: Duration = Duration::from_secs(1);

/// The runtime of the main thread.
///
/// # Errors
/// The operating system refuses to create a thread.
pub fn background() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_STAYS)
        .thread_name("background")
        .enable_all()
        .build()
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread's worker, from 1; 0 for a thread that is not a worker.
pub fn current() -> usize {
    CURRENT.get()
}

/// The workers. Dropping this stops them.
pub struct Workers {
    all: Vec<Worker>,
}

struct Worker {
    runtime: Handle,
    /// The number of connections on this worker.
    load: Arc<AtomicUsize>,
    /// Ends the thread when dropped.
    _stop: oneshot::Sender<()>,
}

/// A connection's place on a worker. Dropping it lowers the worker's load.
pub struct ConnectionSlot {
    pub runtime: Handle,
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` workers; `None`: one for each core.
    ///
    /// # Errors
    /// The operating system refuses to create a thread.
    pub fn start(count: Option<NonZero<usize>>) -> io::Result<Self> {
        let count = count.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let all = (1..=count).map(|number| {
            let runtime = Builder::new_current_thread()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_keep_alive(BLOCKING_STAYS)
                .thread_name("look-up")
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel::<()>();
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                CURRENT.set(number);
                let _ = runtime.block_on(stopped);
                // Requests had their time to finish: end the rest.
                runtime.shutdown_background();
            })?;
            Ok(Worker { runtime: handle, load: Arc::default(), _stop: stop })
        });
        Ok(Self { all: all.collect::<io::Result<_>>()? })
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The runtime of worker `number`, from 1; numbers beyond the last worker wrap around.
    pub fn runtime(&self, number: usize) -> &Handle {
        &self.all[(number - 1) % self.all.len()].runtime
    }

    /// A place on the worker that has the fewest connections.
    pub fn place(&self) -> ConnectionSlot {
        let fewest = self.all.iter().min_by_key(|worker| worker.load.load(Relaxed));
        let Worker { runtime, load, .. } = fewest.expect("there is at least one worker");
        load.fetch_add(1, Relaxed);
        ConnectionSlot { runtime: runtime.clone(), load: load.clone() }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Relaxed);
    }
}

/// One value for each worker and one for all other threads, each on its own cache lines. Access from another thread
/// is allowed, only slower.
pub struct PerWorker<T> {
    parts: Box<[Padded<T>; 16]>,
}

/// Aligned to two cache lines: the processor often fetches the second together with the first (Intel's optimisation
/// manual, spatial prefetcher).
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self { parts: Box::new(std::array::from_fn(|_| Padded(T::default()))) }
    }
}

impl<T> PerWorker<T> {
    /// The number of values. With more workers than this, some workers share a value.
    pub const PARTS: usize = 16;

    /// The value of this thread's worker.
    pub fn own(&self) -> &T {
        self.at(self.own_index())
    }

    /// The value at `index`.
    pub fn at(&self, index: usize) -> &T {
        &self.parts[index].0
    }

    /// The index of this thread's value.
    pub fn own_index(&self) -> usize {
        current() % Self::PARTS
    }

    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().map(|Padded(value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_on_the_worker_with_the_fewest_connections() {
        let workers = Workers::start(NonZero::new(2)).unwrap();
        let loads = || workers.all.iter().map(|worker| worker.load.load(Relaxed)).collect::<Vec<_>>();
        let places: Vec<ConnectionSlot> = (0..4).map(|_| workers.place()).collect();
        assert_eq!(loads(), [2, 2]);
        drop(places);
        assert_eq!(loads(), [0, 0]);
    }

    #[test]
    fn a_task_knows_its_worker() {
        let workers = Workers::start(NonZero::new(2)).unwrap();
        for (number, expected) in [(1, 1), (2, 2), (3, 1)] {
            let (send, receive) = std::sync::mpsc::channel();
            workers.runtime(number).spawn(async move { send.send(current()) });
            assert_eq!(receive.recv().unwrap(), expected);
        }
        assert_eq!(current(), 0);
    }
}
