//! See `sidecache_fuzz::path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::path::check(data));
