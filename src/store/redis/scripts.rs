//! The Lua scripts: everything a write touches changes in one of them, whole or not at all, in
//! one round trip. Redis runs a script without interleaving others
//! (<https://redis.io/docs/latest/develop/programmability/eval-intro/>).

use std::sync::LazyLock;

use fred::util::sha1_hash;

/// A script and the name Redis gives it.
#[derive(Debug)]
pub struct Script {
    pub body: &'static str,
    /// Hexadecimal SHA-1 of the body, as `EVALSHA` wants it.
    pub sha1: String,
}

impl Script {
    fn new(body: &'static str) -> Self {
        Self { body, sha1: sha1_hash(body) }
    }
}

/// A script made of files that stand one behind the other.
macro_rules! script {
    ($($file:literal),+) => {
        LazyLock::new(|| Script::new(concat!($(include_str!($file), "\n"),+)))
    };
}

/// A script that works on entries: the shared prelude, then its own files.
macro_rules! on_entries {
    ($($file:literal),+) => {
        script!("lua/prelude.lua", $($file),+)
    };
}

pub static GET: LazyLock<Script> = on_entries!("lua/get.lua");
pub static DESCRIBE: LazyLock<Script> = script!("lua/describe.lua");
pub static SET: LazyLock<Script> = on_entries!("lua/quota.lua", "lua/set.lua");
pub static DELETE: LazyLock<Script> = on_entries!("lua/delete.lua");
pub static FLUSH: LazyLock<Script> = on_entries!("lua/flush.lua");
pub static LIST: LazyLock<Script> = on_entries!("lua/list.lua");
pub static SWEEP: LazyLock<Script> = on_entries!("lua/quota.lua", "lua/sweep.lua");
pub static FIND_EVICTED: LazyLock<Script> = on_entries!("lua/find_evicted.lua");
pub static TOTALS: LazyLock<Script> = script!("lua/totals.lua");
pub static RECORD_READS: LazyLock<Script> = script!("lua/record_reads.lua");
pub static RECORD_ACCESSES: LazyLock<Script> = script!("lua/record_accesses.lua");
pub static FORGET: LazyLock<Script> = script!("lua/forget.lua");

/// Channel on which the scripts publish the keys whose copies are void; see `prelude.lua`.
pub const INVALIDATION_CHANNEL: &str = "sidecache:invalidations";
