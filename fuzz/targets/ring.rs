//! See `sidecache_fuzz::ring`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::ring::check(data));
