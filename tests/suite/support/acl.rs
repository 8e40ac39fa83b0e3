//! Redis users with limited rights.

use super::redis::Redis;
use super::service::Settings;

/// The fewest rights with which a shard works, the same line as in `docs/OPERATIONS.md`.
pub const LEAST: &str = "ACL SETUSER sidecache on >password resetkeys ~cache:* ~cache_meta:* ~cache_stats:* \
    ~cache_index:* ~cache_due:* ~cache_tag:* ~cache_tags:* ~sidecache:* resetchannels &sidecache:* -@all +ping \
    +info +eval +evalsha +publish +subscribe +get +set +incr +del +unlink +exists +type +pttl +pexpireat +persist \
    +scan +time +dbsize +hset +hget +hmget +hexists +hlen +hincrby +hdel +zadd +zcard +zcount +zrem +zscore +zrange +zrangebyscore \
    +zrevrange +zrevrangebyscore +zrandmember +sadd +srem +sscan +sismember +smove";

/// Creates the user of [`LEAST`] on `server`.
pub fn create_least(server: &Redis) {
    let words: Vec<&str> = LEAST.split_whitespace().collect();
    server.connect().command(&words);
}

/// Creates a user `shop` with the password `secret` and these rights on `server`.
pub fn create(server: &Redis, rights: &[&str]) {
    let words = [&["ACL", "SETUSER", "shop", "reset", "on", ">secret"], rights].concat();
    server.connect().command(&words);
}

/// Settings with these servers as the shards `a`, `b` and so on. The service logs in as `user` with `password`.
pub fn settings(servers: &[Redis], user: &str, password: &str) -> Settings {
    let shards = ('a'..='z').zip(servers);
    let shards: Vec<String> = shards
        .map(|(name, server)| format!("{name}=redis://{user}:{password}@127.0.0.1:{}", server.port()))
        .collect();
    Settings::on(servers).set("redis_shards", shards.join(","))
}
