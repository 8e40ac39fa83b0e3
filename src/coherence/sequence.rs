//! The numbers of one shard's changes: pure.
//!
//! Each message has the number of its change, and each clock reading has the number of the last change before it. A
//! number that is missing is a message that was lost, even if the subscription never broke.

use crate::model::Position;

/// How far this instance has applied the changes of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// Unknown until the next reading.
    #[default]
    Unknown,
    /// Every change up to this one is applied.
    Reached(Position),
}

impl Sequence {
    /// A message with this number arrived. Returns whether messages before it are missing.
    #[must_use]
    pub fn message(&mut self, seq: u64) -> bool {
        let Self::Reached(reached) = self else { return false };
        if seq == reached.seq.wrapping_add(1) {
            reached.seq = seq;
            return false;
        }
        *self = Self::Unknown;
        true
    }

    /// A reading arrived: `last` is the last change that was published before it. Returns whether messages before it
    /// are missing.
    #[must_use]
    pub fn reading(&mut self, last: Position) -> bool {
        let is_missing = match self {
            Self::Unknown => false,
            Self::Reached(reached) => (reached.incarnation, reached.seq) != (last.incarnation, last.seq),
        };
        *self = Self::Reached(last);
        is_missing
    }

    /// Whether every change up to `position` is applied. False if the two cannot be compared.
    pub fn has_reached(&self, position: Position) -> bool {
        matches!(self, Self::Reached(reached) if reached.incarnation == position.incarnation && reached.seq >= position.seq)
            && self.is_of_ring(position)
    }

    /// Whether `position`, of any shard, is of the present ring.
    pub fn is_of_ring(&self, position: Position) -> bool {
        matches!(self, Self::Reached(reached) if reached.ring == position.ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { incarnation: 7, ring: 1, seq }
    }

    #[test]
    fn numbers_without_a_gap_are_no_loss() {
        let mut sequence = Sequence::default();
        assert!(!sequence.message(4), "nothing is known before the first reading");
        assert!(!sequence.has_reached(at(1)));
        assert!(
            !sequence.reading(at(9)) && !sequence.message(10) && !sequence.message(11) && !sequence.reading(at(11))
        );
        assert!(sequence.has_reached(at(11)) && !sequence.has_reached(at(12)));
    }

    #[test]
    fn a_gap_is_a_loss_until_the_next_reading() {
        for seq in [0, 8, 9, 11] {
            let mut sequence = Sequence::Reached(at(9));
            assert!(sequence.message(seq), "{seq}");
            assert!(!sequence.has_reached(at(1)) && !sequence.message(seq + 5), "unknown");
            assert!(!sequence.reading(at(seq + 5)) && sequence.has_reached(at(seq + 5)));
        }
    }

    #[test]
    fn a_reading_shows_that_the_last_message_is_missing() {
        for last in [at(8), at(10), Position { incarnation: 8, ..at(9) }] {
            let mut sequence = Sequence::Reached(at(9));
            assert!(sequence.reading(last), "{last:?}");
            assert_eq!(sequence, Sequence::Reached(last));
        }
    }

    #[test]
    fn positions_of_another_incarnation_or_ring_are_never_reached() {
        let sequence = Sequence::Reached(at(9));
        assert!(!sequence.has_reached(Position { incarnation: 8, ..at(1) }));
        assert!(
            !sequence.has_reached(Position { ring: 2, ..at(1) })
                && !sequence.is_of_ring(Position { ring: 2, ..at(1) })
        );
    }
}
