//! The Lua scripts. Everything that a write touches changes in one script, completely or not at all, in one round
//! trip. Redis runs one script at a time (<https://redis.io/docs/latest/develop/programmability/eval-intro/>).

use std::sync::LazyLock;

use fred::bytes_utils::Str;
use fred::util::sha1_hash;

/// A script, and the hash by which Redis finds it.
#[derive(Debug)]
pub struct Script {
    pub body: &'static str,
    /// Hexadecimal SHA-1 of the body, for `EVALSHA`.
    pub sha1: Str,
}

impl Script {
    fn new(body: &'static str) -> Self {
        Self { body, sha1: Str::from(sha1_hash(body)) }
    }
}

/// A script that is the concatenation of files. It has no fence: it runs before a ring record is known, or it is
/// about instances and not about entries.
macro_rules! script {
    ($($file:literal),+) => {
        LazyLock::new(|| Script::new(concat!($(include_str!($file), "\n"),+)))
    };
}

/// A script that changes nothing, after the fence.
macro_rules! reading {
    ($($file:literal),+) => {
        script!("lua/fence_read.lua", $($file),+)
    };
}

/// Such a script, whose answer also says how far the shard has come. Call it through `Shard::ask_at`.
macro_rules! reading_at {
    ($($file:literal),*) => {
        reading!("lua/at_begin.lua", $($file,)* "lua/at_end.lua")
    };
}

/// A script that writes, after the fence.
macro_rules! writing {
    ($($file:literal),+) => {
        script!("lua/fence_write.lua", $($file),+)
    };
}

/// A script that adds or removes entries: first the files that this requires, then its own files.
macro_rules! change {
    ($($file:literal),+) => {
        writing!(
            "lua/constants.lua",
            "lua/count.lua",
            "lua/prelude.lua",
            "lua/index.lua",
            "lua/tags.lua",
            "lua/removal.lua",
            $($file),+
        )
    };
}

pub static GET: LazyLock<Script> = reading!("lua/get.lua");
pub static GET_AT: LazyLock<Script> = reading_at!("lua/get.lua");
pub static POSITION: LazyLock<Script> = reading_at!();
pub static LEASE: LazyLock<Script> = reading!("lua/remaining.lua", "lua/lease.lua");
pub static LEASE_AT: LazyLock<Script> = reading_at!("lua/remaining.lua", "lua/lease.lua");
pub static RELEASE: LazyLock<Script> = writing!("lua/constants.lua", "lua/count.lua", "lua/release.lua");
pub static RAISE_LEASE_FLOOR: LazyLock<Script> =
    writing!("lua/constants.lua", "lua/count.lua", "lua/raise_lease_floor.lua");
pub static NOTICE_LOST: LazyLock<Script> = change!("lua/notice_lost.lua");
pub static DESCRIBE: LazyLock<Script> = reading!("lua/remaining.lua", "lua/describe.lua");
pub static DESCRIBE_AT: LazyLock<Script> = reading_at!("lua/remaining.lua", "lua/describe.lua");
pub static SET: LazyLock<Script> = writing!(
    "lua/constants.lua",
    "lua/precondition.lua",
    "lua/set_plain.lua",
    "lua/count.lua",
    "lua/prelude.lua",
    "lua/index.lua",
    "lua/tombstones.lua",
    "lua/tags.lua",
    "lua/insertion.lua",
    "lua/extra.lua",
    "lua/fill.lua",
    "lua/no_quota.lua",
    "lua/set.lua"
);
pub static SET_WITHIN_QUOTA: LazyLock<Script> = writing!(
    "lua/constants.lua",
    "lua/precondition.lua",
    "lua/set_plain.lua",
    "lua/count.lua",
    "lua/prelude.lua",
    "lua/index.lua",
    "lua/tombstones.lua",
    "lua/tags.lua",
    "lua/removal.lua",
    "lua/insertion.lua",
    "lua/extra.lua",
    "lua/fill.lua",
    "lua/quota.lua",
    "lua/set.lua"
);
pub static DELETE: LazyLock<Script> = writing!(
    "lua/constants.lua",
    "lua/precondition.lua",
    "lua/delete_plain.lua",
    "lua/count.lua",
    "lua/prelude.lua",
    "lua/index.lua",
    "lua/tags.lua",
    "lua/removal.lua",
    "lua/tombstones.lua",
    "lua/burial.lua",
    "lua/extra.lua",
    "lua/delete.lua"
);
pub static PATCH: LazyLock<Script> =
    change!("lua/precondition.lua", "lua/insertion.lua", "lua/extra.lua", "lua/no_quota.lua", "lua/patch.lua");
pub static PATCH_WITHIN_QUOTA: LazyLock<Script> =
    change!("lua/precondition.lua", "lua/insertion.lua", "lua/extra.lua", "lua/quota.lua", "lua/patch.lua");
pub static FLUSH: LazyLock<Script> = change!("lua/tombstones.lua", "lua/burial.lua", "lua/flush.lua");
pub static MARK: LazyLock<Script> =
    change!("lua/precondition.lua", "lua/extra.lua", "lua/tombstones.lua", "lua/burial.lua", "lua/mark.lua");
pub static PURGE: LazyLock<Script> = change!("lua/purge.lua");
pub static LIST: LazyLock<Script> = reading!("lua/constants.lua", "lua/prelude.lua", "lua/index.lua", "lua/list.lua");
pub static SWEEP: LazyLock<Script> =
    change!("lua/quota.lua", "lua/tombstones.lua", "lua/burial.lua", "lua/sweep.lua");
pub static FIND_EVICTED: LazyLock<Script> = change!("lua/find_evicted.lua");
pub static BEGIN_REPAIR: LazyLock<Script> =
    writing!("lua/constants.lua", "lua/prelude.lua", "lua/index.lua", "lua/begin_repair.lua");
pub static ADOPT: LazyLock<Script> = change!("lua/insertion.lua", "lua/extra.lua", "lua/adopt.lua");
pub static DROP_SCOPES: LazyLock<Script> =
    writing!("lua/constants.lua", "lua/prelude.lua", "lua/index.lua", "lua/drop_scopes.lua");
pub static END_REPAIR: LazyLock<Script> =
    writing!("lua/constants.lua", "lua/prelude.lua", "lua/index.lua", "lua/end_repair.lua");
pub static SCAN: LazyLock<Script> = reading!("lua/scan.lua");
pub static EMPTY: LazyLock<Script> = script!("lua/empty.lua");
pub static BECOME_WALKER: LazyLock<Script> = writing!("lua/become_walker.lua");
pub static END_WALK: LazyLock<Script> = writing!("lua/end_walk.lua");
pub static READ_RING: LazyLock<Script> = script!("lua/read_ring.lua");
pub static WRITE_RING: LazyLock<Script> = script!("lua/write_ring.lua");
pub static PROVE: LazyLock<Script> = reading!("lua/prove.lua");
pub static TOTALS: LazyLock<Script> = reading!("lua/totals.lua");
pub static RECORD_READS: LazyLock<Script> = writing!("lua/record_reads.lua");
pub static RECORD_ACCESSES: LazyLock<Script> = writing!("lua/record_accesses.lua");
pub static FORGET: LazyLock<Script> = writing!("lua/forget.lua");
pub static BEAT: LazyLock<Script> = script!("lua/living.lua", "lua/beat.lua");
pub static LEAVE: LazyLock<Script> = script!("lua/living.lua", "lua/leave.lua");
pub static ANNOUNCE: LazyLock<Script> = script!("lua/living.lua", "lua/announce.lua");
pub static COUNT_RINGS: LazyLock<Script> = script!("lua/living.lua", "lua/count_rings.lua");
pub static NEIGHBOURS: LazyLock<Script> = script!("lua/living.lua", "lua/neighbours.lua");
pub static COUNT_KEYS: LazyLock<Script> = reading!("lua/count_keys.lua");

/// The channel on which the scripts publish the keys whose cached copies are void; see `prelude.lua`.
pub const INVALIDATION_CHANNEL: &str = "sidecache:invalidations";

/// The set that holds the token of the shard's ring record and the namespaces with data here. Every script declares
/// it as its key.
pub const FENCE: &str = "sidecache:fence";
