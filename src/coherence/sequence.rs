//! The numbers of one shard's changes: pure.
//!
//! Each message has the number of its change, and each clock reading has the number of the last change before it. A
//! number that is missing is a message that was lost, even if the subscription never broke.
//!
//! A loss voids the copies that exist. Copies that are made afterwards need the numbers from then on without a gap, so
//! the numbers are followed from the first message on, and not only from the next reading on: losses come in bursts.

use crate::model::Position;

/// How far this instance has applied the changes of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// No number has arrived since messages may have been lost.
    #[default]
    Unknown,
    /// The last number that arrived, after a loss. Positions cannot be compared before the next reading, because the
    /// number may be of another incarnation.
    Seen(u64),
    /// Every change up to this one is applied.
    Reached(Position),
}

/// What a number says about the messages before it. Unless they are applied, all copies are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// All messages since the last number have arrived.
    Applied,
    /// It is the first number since messages may have been lost, so more of them may be missing.
    Unknown,
    Missing,
}

impl Sequence {
    /// A message with this number arrived.
    #[must_use]
    pub fn message(&mut self, seq: u64) -> Before {
        match self {
            Self::Seen(last) | Self::Reached(Position { seq: last, .. }) if seq == last.wrapping_add(1) => {
                *last = seq;
                Before::Applied
            }
            _ => {
                let before = self.unless_applied();
                *self = Self::Seen(seq);
                before
            }
        }
    }

    /// A reading arrived: `last` is the last change that was published before it.
    #[must_use]
    pub fn reading(&mut self, last: Position) -> Before {
        let is_applied = match self {
            Self::Unknown => false,
            Self::Seen(seen) => *seen == last.seq,
            Self::Reached(reached) => (reached.incarnation, reached.seq) == (last.incarnation, last.seq),
        };
        let before = if is_applied { Before::Applied } else { self.unless_applied() };
        *self = Self::Reached(last);
        before
    }

    /// What a number that does not follow says.
    fn unless_applied(&self) -> Before {
        if *self == Self::Unknown { Before::Unknown } else { Before::Missing }
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
    use super::Before::{Applied, Missing, Unknown};
    use super::*;
    use proptest::prelude::*;

    fn at(seq: u64) -> Position {
        Position { incarnation: 7, ring: 1, seq }
    }

    #[test]
    fn numbers_without_a_gap_are_no_loss() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.reading(at(9)), Unknown, "nothing is known before the first number");
        assert_eq!([sequence.message(10), sequence.message(11), sequence.reading(at(11))], [Applied; 3]);
        assert!(sequence.has_reached(at(11)) && !sequence.has_reached(at(12)));
    }

    #[test]
    fn positions_cannot_be_compared_before_the_first_reading() {
        let mut sequence = Sequence::default();
        assert_eq!([sequence.message(4), sequence.message(5)], [Unknown, Applied]);
        assert!(!sequence.has_reached(at(1)) && !sequence.is_of_ring(at(1)));
        assert_eq!(sequence.reading(at(5)), Applied);
        assert!(sequence.has_reached(at(5)));
    }

    #[test]
    fn after_a_gap_positions_cannot_be_compared_before_the_next_reading() {
        for seq in [0, 8, 9, 11] {
            let mut sequence = Sequence::Reached(at(9));
            assert_eq!(sequence.message(seq), Missing, "{seq}");
            assert!(!sequence.has_reached(at(1)));
            assert_eq!(sequence.message(seq + 1), Applied);
            assert!(!sequence.has_reached(at(1)));
            assert_eq!(sequence.reading(at(seq + 1)), Applied);
            assert!(sequence.has_reached(at(seq + 1)));
        }
    }

    #[test]
    fn regression_a_second_loss_after_a_gap_is_noticed() {
        // After a gap every number was accepted: (1) a gap voids the copies; (2) a copy is made; (3) its invalidation is
        // lost, too; (4) a reading arrives. The copy was served until its TTL.
        let mut sequence = Sequence::Reached(at(9));
        assert_eq!(sequence.message(11), Missing);
        assert_eq!(sequence.reading(at(12)), Missing);
        // The same behind a message.
        assert_eq!(sequence.message(14), Missing);
        assert_eq!(sequence.message(16), Missing);
    }

    #[test]
    fn a_reading_shows_that_the_last_message_is_missing() {
        for last in [at(8), at(10), Position { incarnation: 8, ..at(9) }] {
            let mut sequence = Sequence::Reached(at(9));
            assert_eq!(sequence.reading(last), Missing, "{last:?}");
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

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A change on the shard, and whether its message arrives.
        Change {
            arrives: bool,
        },
        /// A copy is made.
        Copy,
        Reading,
        /// The subscription is known to have lost messages.
        Loss,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => any::<bool>().prop_map(|arrives| Step::Change { arrives }),
            4 => Just(Step::Copy),
            3 => Just(Step::Reading),
            1 => Just(Step::Loss),
        ]
    }

    proptest! {
        #[test]
        fn no_copy_outlives_a_reading_behind_a_lost_message(steps in prop::collection::vec(step(), 1..40)) {
            let mut sequence = Sequence::default();
            // The numbers of the changes whose messages did not arrive.
            let (mut last, mut lost) = (0, Vec::new());
            // The last change that the oldest copy has which is not void.
            let mut copy: Option<u64> = None;
            // The last number that arrived here.
            let mut heard = 0;
            for step in steps {
                let before = match step {
                    Step::Change { arrives } => {
                        last += 1;
                        if !arrives {
                            lost.push(last);
                            continue;
                        }
                        sequence.message(last)
                    }
                    Step::Copy => {
                        copy = copy.or(Some(last));
                        continue;
                    }
                    Step::Reading => sequence.reading(at(last)),
                    Step::Loss => {
                        (sequence, copy) = (Sequence::Unknown, None);
                        continue;
                    }
                };
                if before != Applied {
                    copy = None;
                }
                prop_assert!(before != Missing || lost.iter().any(|number| *number > heard), "nothing is missing");
                heard = last;
                if let Some(copy) = copy {
                    prop_assert!(!lost.iter().any(|number| *number > copy), "the copy of {copy} misses one of {lost:?}");
                }
                let is_reading = matches!(step, Step::Reading);
                prop_assert!(sequence.has_reached(at(last)) || !is_reading);
            }
        }
    }
}
