//! A part of a whole, such as a tenth of a TTL.

/// A part of a whole, from 0 to 1, in whole thousandths: so parts can be compared, and keep their value on the way
/// through JSON and databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part(u16);

impl Part {
    pub const NOTHING: Self = Self(0);
    pub const ALL: Self = Self(1000);

    /// Rounds to whole thousandths; `None` unless `part` is from 0 to 1.
    pub fn rounded(part: f64) -> Option<Self> {
        (0.0..=1.0).contains(&part).then(|| Self((part * 1000.0).round() as u16))
    }

    /// This part of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        // Divides first, so that nothing overflows.
        whole / 1000 * u64::from(self.0) + whole % 1000 * u64::from(self.0) / 1000
    }

    /// The decimal fraction: 0.1 for a tenth.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_fractions_keep_their_value() {
        for thousandths in 0..=1000 {
            let part = f64::from(thousandths) / 1000.0;
            assert_eq!(Part::rounded(part).unwrap().as_f64(), part);
        }
        assert_eq!(Part::rounded(0.1 + 0.2), Part::rounded(0.3));
        for wrong in [-0.1, 1.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Part::rounded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_part_of_a_whole_is_rounded_down() {
        let tenth = Part::rounded(0.1).unwrap();
        for (whole, expected) in [(0, 0), (9, 0), (10, 1), (60_000, 6_000), (u64::MAX, u64::MAX / 10)] {
            assert_eq!(tenth.of(whole), expected, "{whole}");
        }
        assert_eq!((Part::NOTHING.of(u64::MAX), Part::ALL.of(u64::MAX)), (0, u64::MAX));
    }
}
