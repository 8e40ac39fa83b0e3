//! A service that its shards grant as little as possible: the least user of `docs/OPERATIONS.md`, without INFO, on
//! servers that have no KEYS.

use std::sync::LazyLock;

use super::acl;
use super::redis::Redis;
use super::service::Service;

/// The one that the tests of this process share. Where it does not start, each test fails at once but the first.
pub fn shared_service() -> &'static Service {
    static SHARED: LazyLock<(Service, [Redis; 3])> = LazyLock::new(|| {
        let servers = Redis::three_with(&["--rename-command", "KEYS", ""]);
        for server in &servers {
            acl::create_least(server);
            server.connect().command(&["ACL", "SETUSER", "sidecache", "-info"]);
        }
        (Service::start(acl::settings(&servers, "sidecache", "password")), servers)
    });
    &SHARED.0
}
