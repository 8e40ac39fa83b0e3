//! The checker notices stale answers: a part of the mechanism is disabled, and then there must be some.

use std::thread;
use std::time::{Duration, Instant};

use super::{BOUND, PATIENCE, PLAN, settings};
use crate::support::history::Violation;
use crate::support::load::{Load, Plan};
use crate::support::proxy::{Of, Proxy};
use crate::support::redis::Redis;
use crate::support::service::Service;

/// Runs a load on two instances while `hurt` injects a fault into the proxy of the first one, repeatedly. Fails
/// unless the checker finds a stale answer.
fn must_be_noticed(test_without: &str, hurt: impl Fn(&Proxy)) {
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let start = |url: String| Service::start(settings(&format!("a={url}")).set("test_without", test_without));
    let services = [start(proxy.url()), start(server.url())];
    let load = Load::new(Plan { writers: 3, ..PLAN }, &services.each_ref().map(Service::address));
    let began = Instant::now();
    load.run(|| {
        while load.checker.violations_of(Violation::Stale) == 0 && began.elapsed() < PATIENCE {
            hurt(&proxy);
        }
    });
    eprintln!("without the {test_without}:\n{}", load.checker);
    assert!(load.checker.violations_of(Violation::Stale) > 0, "no stale answer was noticed");
}

/// The interleaving of `l1/mod.rs`: the answer with the old value takes longer than the invalidation.
#[test]
fn without_the_fence_stale_answers_are_noticed() {
    must_be_noticed("fence", |proxy| {
        proxy.delay(Of::Others, Duration::ZERO, Duration::from_millis(30));
        thread::sleep(Duration::from_millis(100));
    });
}

#[test]
fn without_the_watermark_stale_answers_are_noticed() {
    must_be_noticed("watermark", |proxy| {
        thread::sleep(Duration::from_millis(500));
        proxy.swallow(Of::Subscribers);
        thread::sleep(BOUND * 2);
    });
}
