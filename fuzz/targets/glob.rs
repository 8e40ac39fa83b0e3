//! See `sidecache_fuzz::glob`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::glob::check(data));
