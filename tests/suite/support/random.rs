//! Reproducible random numbers: a failing test prints its seed, and the environment variable `TEST_SEED` sets it.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// The `SplitMix64` generator: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random {
    state: u64,
    seed: u64,
    /// Whether a failing test prints the seed on drop.
    announces: bool,
}

impl Random {
    /// A generator with a new seed in every run, unless `TEST_SEED` is set.
    pub fn new() -> Random {
        let given = std::env::var("TEST_SEED").ok();
        let seed = match given {
            Some(text) => text.parse().unwrap_or_else(|_| panic!("TEST_SEED must be a whole number, not {text:?}")),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                u64::from(now.subsec_nanos()) ^ (now.as_secs() << 30)
            }
        };
        Random { state: seed, seed, announces: true }
    }

    /// A generator with the same numbers in every run.
    pub fn seeded(seed: u64) -> Random {
        Random { state: seed, seed, announces: false }
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A whole number from 0 to `end` - 1.
    pub fn below(&mut self, end: usize) -> usize {
        let point = (u128::from(self.number()) * end as u128) >> 64;
        usize::try_from(point).expect("less than `end`")
    }

    /// A whole number from `first` to `last`.
    pub fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// True once in `times`, on average.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if self.announces && thread::panicking() {
            eprintln!("repeat these random numbers with TEST_SEED={}", self.seed);
        }
    }
}
