//! The releases of Redis that the tests run on: Debian's, and those that `tests/redis/install.sh` fetches.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::process;
use super::redis::Redis;
use super::service::{Service, Settings};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    V6_2,
    /// Debian's.
    #[default]
    V7_0,
    V8_2,
}

impl Release {
    /// The release of servers for which a test names none: `REDIS=6.2` or `8.2` in the environment, otherwise
    /// Debian's.
    pub fn chosen() -> Release {
        match std::env::var("REDIS").as_deref() {
            Err(_) | Ok("7.0") => Release::V7_0,
            Ok("6.2") => Release::V6_2,
            Ok("8.2") => Release::V8_2,
            Ok(other) => panic!("REDIS must be 6.2, 7.0 or 8.2, not {other:?}"),
        }
    }

    /// The path of `redis-server`.
    pub fn program(self) -> PathBuf {
        let fetched = |version: &str| {
            let path =
                PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("target/tools/redis/{version}/redis-server"));
            assert!(path.is_file(), "{} is missing: run tests/install-tools.sh", path.display());
            path
        };
        match self {
            Release::V6_2 => fetched("6.2"),
            Release::V7_0 => process::program_named("redis-server", "redis-server"),
            Release::V8_2 => fetched("8.2"),
        }
    }

    /// The service on three shards of this release, shared by the tests of this process.
    pub fn shared_service(self) -> &'static Service {
        static SERVICES: [OnceLock<(Service, [Redis; 3])>; 3] = [const { OnceLock::new() }; 3];
        let (service, _) = SERVICES[self as usize].get_or_init(|| {
            let servers = Redis::three_of(self);
            (Service::start(Settings::on(&servers)), servers)
        });
        service
    }
}
