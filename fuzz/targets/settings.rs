//! See `sidecache_fuzz::settings`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecache_fuzz::settings::check(data));
