//! A service with as few rights on its shards as possible: the least user of `docs/OPERATIONS.md` without INFO, on
//! servers without KEYS.

use std::sync::LazyLock;

use super::acl;
use super::redis::Redis;
use super::service::Service;

/// The service that the tests of this process share. If it does not start, the first test waits for the failure and
/// every later test fails at once.
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
