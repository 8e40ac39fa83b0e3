//! Keys that show whether the service has recovered: every instance caches keys of every shard, and receives the
//! invalidations of other instances' writes.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::support::client::{key_path, namespace};
use crate::support::line::{self, Line};
use crate::support::service::Service;

/// A key of one shard that shows whether instances cache it and receive invalidations for it.
pub struct Probe {
    shard: String,
    path: String,
    value: u64,
}

impl Probe {
    /// One probe for each of these shards.
    pub fn all(service: &Service, shards: &[&str]) -> Vec<Probe> {
        let ns = namespace("probe");
        let mut found: Vec<Probe> = Vec::new();
        for number in 0..1_000 {
            let mut probe = Probe { shard: String::new(), path: key_path(&ns, &number.to_string()), value: 0 };
            probe.write(service, Instant::now() + PATIENCE);
            let (_, said, _) = probe.look(service).expect("the instance answers");
            let its = shards.iter().find(|shard| said.contains(&format!("detail={shard},")));
            if let Some(shard) = its.filter(|shard| !found.iter().any(|probe| probe.shard == **shard)) {
                probe.shard = (*shard).to_owned();
                found.push(probe);
            }
            if found.len() == shards.len() {
                return found;
            }
        }
        panic!("some shard owns none of 1,000 keys");
    }

    /// Writes a new value through this instance, and retries until `deadline`.
    fn write(&mut self, service: &Service, deadline: Instant) {
        self.value += 1;
        let request = line::request("PUT", &self.path, "", &format!("{{\"value\":{}}}", self.value));
        loop {
            match ask(service, &request) {
                Ok((200 | 201, _, _)) => return,
                other => assert!(Instant::now() < deadline, "shard {} accepts no writes: {other:?}", self.shard),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the instance answers from L1 with the newest value.
    fn wait_for_copy(&mut self, service: &Service, deadline: Instant) {
        loop {
            let seen = self.look(service);
            let value = format!("{{\"value\":{},", self.value);
            match &seen {
                Ok((200, said, body)) if said.contains("sidecache-l1; hit") && body.starts_with(&value) => return,
                // The shard lost the value.
                Ok((200 | 404, said, body)) if !said.starts_with("sidecache-l1") && !body.starts_with(&value) => {
                    self.write(service, deadline);
                }
                _ => {}
            }
            let shard = &self.shard;
            assert!(
                Instant::now() < deadline,
                "{}: shard {shard}'s {value} is not in L1: {seen:?}",
                service.address()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn look(&self, service: &Service) -> io::Result<(u16, String, String)> {
        ask(service, &line::request("GET", &self.path, "", ""))
    }
}

/// Returns the status, `Cache-Status` and body.
fn ask(service: &Service, request: &[u8]) -> io::Result<(u16, String, String)> {
    let mut line = Line::try_open(service.address(), Duration::from_secs(3))?;
    line.send(request)?;
    let answer = line.receive()?;
    let said = answer.header("cache-status").unwrap_or_default().to_owned();
    Ok((answer.status, said, String::from_utf8_lossy(answer.body).into_owned()))
}

/// Waits until each of three instances caches keys of every shard, and receives the invalidations of the others.
pub fn see_copies(probes: &mut [Probe], services: &[Service], deadline: Instant) {
    for probe in probes {
        // The copy must exist before another instance writes, so that the invalidation has an effect.
        for (listener, writer) in [(0, 1), (1, 2), (2, 0)] {
            probe.wait_for_copy(&services[listener], deadline);
            probe.write(&services[writer], deadline);
            probe.wait_for_copy(&services[listener], deadline);
        }
    }
}
