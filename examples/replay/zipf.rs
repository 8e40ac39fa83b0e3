//! Seeded random numbers and the zipf distribution. The same seed gives the same accesses on every machine; no
//! library is used, because its next release could change them.

/// The maximum number of keys of a distribution. It keeps the sum of the weights within 64 bits.
pub const MAX_DISTINCT: u32 = 10_000_000;

/// The weight of the first rank. Weights are whole numbers, so that their sums are exact and do not depend on the
/// order of additions or on rounding.
const FIRST_WEIGHT: f64 = (1_u64 << 40) as f64;

/// The generator `SplitMix64`: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014, <https://doi.org/10.1145/2660193.2660195>, with the constants of Vigna's
/// <https://prng.di.unimi.it/splitmix64.c>.
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Ranks 0, 1, 2, ... with rank r drawn in proportion to 1 / (r + 1)^skew.
pub struct Zipf {
    /// Entry r is the sum of the weights of ranks 0 to r: the unscaled distribution function.
    cumulative: Vec<u64>,
}

impl Zipf {
    /// `distinct` must be 1 to [`MAX_DISTINCT`], and `skew` must not be negative.
    pub fn new(distinct: u32, skew: f64) -> Self {
        let mut sum = 0;
        let cumulative = (1..=distinct)
            .map(|rank| {
                sum += (FIRST_WEIGHT / f64::from(rank).powf(skew)) as u64;
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// Draws one rank, less than `distinct`.
    pub fn draw(&self, random: &mut SplitMix64) -> usize {
        let total = *self.cumulative.last().expect("a distribution has at least one rank");
        // A whole number below `total`, by multiplication instead of a remainder: Lemire, "Fast
        // random integer generation in an interval", <https://arxiv.org/abs/1805.10941>.
        let point = ((u128::from(random.next()) * u128::from(total)) >> 64) as u64;
        self.cumulative.partition_point(|&sum| sum <= point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected numbers are from <https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64>.
    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut random = SplitMix64::new(1_234_567);
        for expected in [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ] {
            assert_eq!(random.next(), expected);
        }
    }

    #[test]
    fn ranks_are_drawn_as_often_as_zipf_says() {
        let (draws, distinct) = (200_000, 100);
        let zipf = Zipf::new(distinct, 1.0);
        let mut random = SplitMix64::new(7);
        let mut seen = vec![0_u32; distinct as usize];
        for _ in 0..draws {
            seen[zipf.draw(&mut random)] += 1;
        }
        let harmonic: f64 = (1..=distinct).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = f64::from(draws) / (f64::from(rank) * harmonic);
            let found = f64::from(seen[rank as usize - 1]);
            // Five standard deviations of a binomial count.
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {found} of {expected}");
        }
    }

    #[test]
    fn the_largest_uniform_distribution_does_not_overflow() {
        let zipf = Zipf::new(MAX_DISTINCT, 0.0);
        assert!(zipf.draw(&mut SplitMix64::new(1)) < MAX_DISTINCT as usize);
    }
}
