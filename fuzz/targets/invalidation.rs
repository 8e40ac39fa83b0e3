//! See `sidecache_fuzz::invalidation`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::invalidation::check(data));
