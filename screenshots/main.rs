//! `make screenshots`: takes the pictures for the documents, `docs/img/*.png`, of a service under load.
//!
//! ```text
//! make screenshots                                     ten minutes of load, the period that the charts show
//! make screenshots SCREENSHOTS_ARGS='--seconds 60'     one minute
//! ```
//!
//! Three Redis shards and two instances serve a made-up web shop ([`shop`]), while Chromium opens the dashboard.
//! Everything stops with this program.

mod shop;
#[expect(dead_code, reason = "the screenshots use only a part of the tests' support code")]
mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command, value_parser};

use crate::shop::{KINDS, Kind, SHOWN};
use crate::support::browser::{Browser, Scheme};
use crate::support::client::encoded;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// Ten minutes fill the charts.
const SECONDS: &str = "615";

fn main() -> anyhow::Result<()> {
    let arguments = Command::new("screenshots")
        .about("Takes the pictures for the documents")
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .default_value(SECONDS)
                .value_parser(value_parser!(u64).range(5..=3_600))
                .help("How long the shop runs before the pictures are taken"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .default_value(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/img"))
                .value_parser(value_parser!(PathBuf))
                .help("Folder for the pictures"),
        )
        // Cargo passes this flag to every bench.
        .arg(Arg::new("bench").long("bench").hide(true).num_args(0))
        .get_matches();
    let seconds = *arguments.get_one::<u64>("seconds").expect("it has a default");
    let out = arguments.get_one::<PathBuf>("out").expect("it has a default").clone();
    fs::create_dir_all(&out)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(take(seconds, out));
    Ok(())
}

async fn take(seconds: u64, out: PathBuf) {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let services = [Service::start(settings.clone()), Service::start(settings)];
    let caches = services.each_ref().map(Service::client);
    for kind in &KINDS {
        caches[0].put_policy(kind.namespace, kind.policy).await;
    }
    let visits = KINDS.iter().zip(1..).map(|(kind, seed)| {
        let caches = caches.clone();
        tokio::spawn(async move { kind.visit(&caches, seed).await })
    });
    let visits: Vec<_> = visits.collect();
    eprintln!("the shop is open for {seconds} s");
    tokio::time::sleep(Duration::from_secs(seconds)).await;

    Kind::put_shown(&caches[0]).await;
    for pattern in ["product:59*", "product:58*"] {
        caches[0].flush("products", &[("pattern", pattern)]).await;
    }
    for _ in 0..40 {
        caches[0].get("products", SHOWN).await;
    }
    // Audit trail, counts of reads and new points need a moment to appear.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let dashboard = format!("http://{}/dashboard", services[0].address());
    let products = format!("{dashboard}/namespaces/products");
    let product = format!("{products}/keys/{}", encoded(SHOWN));
    Browser::run(async |browser| {
        let take = async |name: &str, url: &str, scheme: Scheme, width: u32, height: u32| {
            browser.size(width, height).await;
            browser.scheme(scheme).await;
            browser.goto(url).await;
            save(browser, &out, name).await;
        };
        take("overview-dark", &dashboard, Scheme::Dark, 1280, 1136).await;
        take("overview-light", &dashboard, Scheme::Light, 1280, 1136).await;
        take("namespace-dark", &products, Scheme::Dark, 1280, 776).await;
        take("namespace-light", &products, Scheme::Light, 1280, 776).await;
        take("key-dark", &product, Scheme::Dark, 1280, 960).await;
        take("phone-dark", &dashboard, Scheme::Dark, 390, 844).await;
        take("phone-namespace-light", &products, Scheme::Light, 390, 844).await;

        browser.size(1280, 560).await;
        browser.goto(&products).await;
        browser.enter("#flush input[name=pattern]", "product:1*").await;
        browser.click("#flush button").await;
        browser.find("#dry-run").await;
        save(browser, &out, "flush-dry-run-light").await;
    })
    .await;
    visits.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn save(browser: &Browser, out: &std::path::Path, name: &str) {
    let picture = browser.screenshot().await;
    let path = out.join(format!("{name}.png"));
    fs::write(&path, &picture).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    eprintln!("{} ({} KiB)", path.display(), picture.len() / 1024);
}
