//! See `sidecache_fuzz::request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::request::check(data));
