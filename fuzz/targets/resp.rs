//! See `sidecache_fuzz::resp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::resp::check(data));
