//! The writes of a key, and a judgement for each read: which answers are correct.
//!
//! A key has one writer, so its writes are totally ordered. They are numbered from 1, and a value contains the number
//! of its write. All times come from one clock. The judgement relies on this:
//!
//! - A write takes effect between its start and its end. A write of unknown outcome may take effect at any moment
//!   after its start, once or never. A refused write never takes effect.
//! - A read that starts more than the bound after the end of an acknowledged write must return the value of this
//!   write or a newer one.
//! - A write is recorded before it is sent, and only recorded facts count. If an acknowledgement is not yet recorded,
//!   the judgement may be too mild, but a reported violation is always real.
//!
//! Pure: no clock, no network, no threads.

use std::time::Duration;

/// A moment: the time since the run began.
pub type At = Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Set,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    UnderWay,
    /// The write has taken effect by this moment.
    Acknowledged(At),
    /// The write has not taken effect and never will.
    Refused,
    /// The write may have taken effect, or may still do so.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub change: Change,
    pub start: At,
    pub outcome: Outcome,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The value of the write with this number.
    Value(u64),
    Nothing,
}

/// An answered read of the key.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub instance: usize,
    pub found: Found,
    pub start: At,
    pub end: At,
    /// Whether the read carried `no-cache`, so that the owning shard answers with its newest value.
    pub no_cache: bool,
}

/// A fault that may lose acknowledged writes.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    pub from: At,
    /// `None` while the fault lasts.
    pub until: Option<At>,
    pub what: Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Everything that was written before the fault ended.
    Everything,
    /// Only writes that were under way or acknowledged during the fault, so that older values may come back.
    Latest,
}

impl Loss {
    /// Whether a write may have taken effect during the fault, if it was sent at `start` and acknowledged at `end`. The moment in
    /// between is unknown: an acknowledgement may arrive long after the server that sent it was replaced.
    fn covers(&self, start: At, end: At) -> bool {
        self.from <= end && self.until.is_none_or(|until| start <= until)
    }
}

/// The rules for a judgement, beside the history.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'r> {
    pub bound: Duration,
    /// The losses of the key's shard.
    pub losses: &'r [Loss],
    /// The start of the current phase without a fault or its after-effects. `None` during a fault.
    pub healthy_since: Option<At>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A value that no write had started to store by then.
    NeverWritten,
    /// The value of a write that was refused.
    Refused,
    /// A value that was replaced longer ago than the bound.
    Stale,
    /// The answer to a `no-cache` read that was already replaced when the read started.
    NotTheShards,
    /// A miss although an acknowledged write must be visible.
    LostWrite,
    /// Something older than an earlier answer of the same instance.
    BackInTime,
    /// An answer that the contract does not allow.
    Unexpected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub violation: Option<Violation>,
    /// How long before the read started the answer had been replaced.
    pub behind: Option<Duration>,
    /// Whether only a write of unknown outcome explains the answer.
    pub of_unknown_outcome: bool,
    /// For [`Violation::BackInTime`]: the newest write that the instance had answered before.
    pub known: Option<u64>,
}

impl Verdict {
    fn violation(violation: Violation) -> Verdict {
        Verdict { violation: Some(violation), ..Verdict::default() }
    }
}

/// The writes of a key, and the newest write that each instance has answered.
#[derive(Debug, Default)]
pub struct History {
    writes: Vec<Write>,
    first_unknown_delete: Option<At>,
    /// By instance.
    seen: Vec<Seen>,
}

/// The answers of an instance in one healthy phase: pairs of the end of a read and the write it found. Both ascend,
/// so one binary search finds the newest write that was known at a moment.
#[derive(Debug, Default)]
struct Seen {
    phase: Option<At>,
    marks: Vec<(At, u64)>,
}

/// More marks than there are concurrent reads, so the oldest may be dropped.
const MARKS: usize = 64;

impl History {
    /// Records a write that is about to be sent, and returns its number.
    pub fn begin(&mut self, change: Change, start: At) -> u64 {
        self.writes.push(Write { change, start, outcome: Outcome::UnderWay });
        self.writes.len() as u64
    }

    /// Records how a write ended.
    pub fn end(&mut self, number: u64, outcome: Outcome) {
        let write = &mut self.writes[index(number)];
        write.outcome = outcome;
        if (write.change, outcome) == (Change::Delete, Outcome::Unknown) && self.first_unknown_delete.is_none() {
            self.first_unknown_delete = Some(write.start);
        }
    }

    pub fn write(&self, number: u64) -> Option<&Write> {
        self.writes.get(index(number))
    }

    pub fn newest(&self) -> u64 {
        self.writes.len() as u64
    }

    /// The first acknowledged write after `number` that no fault may have lost, and its end.
    pub fn replaced(&self, number: u64, losses: &[Loss]) -> Option<(u64, At)> {
        (number + 1..=self.newest()).find_map(|later| Some((later, self.binding(later, losses)?)))
    }

    /// Judges a read. From then on its instance is known to have seen what the read found.
    pub fn judge(&mut self, read: &Read, rules: &Rules<'_>) -> Verdict {
        let (verdict, number) = match read.found {
            Found::Value(number) => (self.judge_value(number, read, rules), Some(number)),
            Found::Nothing => self.judge_miss(self.newest(), read, rules),
        };
        let Some(phase) = rules.healthy_since.filter(|since| *since <= read.start) else { return verdict };
        if verdict.violation.is_some() || verdict.of_unknown_outcome {
            return verdict;
        }
        if self.seen.len() <= read.instance {
            self.seen.resize_with(read.instance + 1, Seen::default);
        }
        let seen = &mut self.seen[read.instance];
        if seen.phase != Some(phase) {
            *seen = Seen { phase: Some(phase), marks: Vec::new() };
        }
        let known = seen.known_by(read.start);
        // A write of unknown outcome may take effect after a newer one, so it is no proof.
        let went_back = match read.found {
            Found::Value(number) => {
                let is_certain = |write: &Write| matches!(write.outcome, Outcome::Acknowledged(_));
                number < known && self.write(number).is_some_and(is_certain)
            }
            // A miss counts as the newest delete that can explain it.
            Found::Nothing => {
                let may_be_late = self.first_unknown_delete.is_some_and(|start| start <= read.end);
                known > 0 && !may_be_late && self.delete_after(known - 1, self.newest(), read.end).is_none()
            }
        };
        if let Some(number) = number {
            self.seen[read.instance].mark(read.end, number);
        }
        match went_back {
            true => Verdict { violation: Some(Violation::BackInTime), known: Some(known), ..verdict },
            false => verdict,
        }
    }

    /// Judges the statement of write `number` that the key did not exist before it.
    pub fn judge_absence_before(&self, number: u64, read: &Read, rules: &Rules<'_>) -> Verdict {
        self.judge_miss(number - 1, read, rules).0
    }

    fn judge_value(&self, number: u64, read: &Read, rules: &Rules<'_>) -> Verdict {
        let write = match self.write(number) {
            Some(write) if write.change == Change::Set && write.start <= read.end => write,
            _ => return Verdict::violation(Violation::NeverWritten),
        };
        if write.outcome == Outcome::Refused {
            return Verdict::violation(Violation::Refused);
        }
        let Some((_, replaced)) = self.replaced(number, rules.losses) else { return Verdict::default() };
        if !matches!(write.outcome, Outcome::Acknowledged(_)) {
            return Verdict { of_unknown_outcome: true, ..Verdict::default() };
        }
        let behind = read.start.checked_sub(replaced).filter(|behind| !behind.is_zero());
        let violation = match behind {
            Some(behind) if behind > rules.bound => Some(Violation::Stale),
            Some(_) if read.no_cache => Some(Violation::NotTheShards),
            _ => None,
        };
        Verdict { violation, behind, ..Verdict::default() }
    }

    /// Judges a miss, considering the writes up to `newest`. Also returns the oldest delete that explains it.
    fn judge_miss(&self, newest: u64, read: &Read, rules: &Rules<'_>) -> (Verdict, Option<u64>) {
        let bound = if read.no_cache { Duration::ZERO } else { rules.bound };
        let binds = |number: &u64| self.binding(*number, rules.losses).is_some_and(|end| end + bound < read.start);
        let Some(required) = (1..=newest).rev().find(binds) else {
            return (self.behind_of_a_miss(newest, read, rules), None);
        };
        if let Some(delete) = self.delete_after(required - 1, newest, read.end) {
            return (self.behind_of_a_miss(newest, read, rules), Some(delete));
        }
        if self.first_unknown_delete.is_some_and(|start| start <= read.end) {
            return (Verdict { of_unknown_outcome: true, ..Verdict::default() }, None);
        }
        let start = self.writes[index(required)].start;
        let took = |loss: &Loss| {
            let by_then = loss.until.is_none_or(|until| start <= until);
            loss.what == Lost::Everything && loss.from <= read.end && by_then
        };
        match rules.losses.iter().any(took) {
            true => (Verdict::default(), None),
            false => (Verdict::violation(Violation::LostWrite), None),
        }
    }

    /// For a correct miss: how long before the read the newest delete that explains it had been replaced.
    fn behind_of_a_miss(&self, newest: u64, read: &Read, rules: &Rules<'_>) -> Verdict {
        let is_its = |number: &u64| {
            let write = &self.writes[index(*number)];
            write.change == Change::Delete && write.outcome != Outcome::Refused && write.start <= read.end
        };
        let delete = (1..=newest).rev().find(is_its).unwrap_or(0);
        let replaced = self.replaced(delete, rules.losses).filter(|(by, _)| *by <= newest);
        let behind = replaced.and_then(|(_, end)| read.start.checked_sub(end)).filter(|behind| !behind.is_zero());
        Verdict { behind, ..Verdict::default() }
    }

    /// The first delete after `number` and up to `newest` that may have taken effect by `moment`.
    fn delete_after(&self, number: u64, newest: u64, moment: At) -> Option<u64> {
        (number + 1..=newest).find(|number| {
            let write = &self.writes[index(*number)];
            write.change == Change::Delete && write.outcome != Outcome::Refused && write.start <= moment
        })
    }

    /// The end of an acknowledged write that later reads must see, unless a fault may have lost it.
    fn binding(&self, number: u64, losses: &[Loss]) -> Option<At> {
        let write = self.write(number)?;
        let Outcome::Acknowledged(end) = write.outcome else { return None };
        let may_be_gone = losses.iter().any(|loss| loss.what == Lost::Latest && loss.covers(write.start, end));
        (!may_be_gone).then_some(end)
    }
}

impl Seen {
    /// The newest write in an answer that came before `moment`, or 0.
    fn known_by(&self, moment: At) -> u64 {
        let before = self.marks.partition_point(|(end, _)| *end < moment);
        if before == 0 { 0 } else { self.marks[before - 1].1 }
    }

    fn mark(&mut self, end: At, number: u64) {
        if self.marks.iter().any(|(earlier, known)| *earlier <= end && *known >= number) {
            return;
        }
        self.marks.retain(|(later, known)| *later < end || *known > number);
        let place = self.marks.partition_point(|(earlier, _)| *earlier < end);
        self.marks.insert(place, (end, number));
        if self.marks.len() > MARKS {
            self.marks.remove(0);
        }
    }
}

/// The position of a write in the list. For 0 a position beyond its end.
fn index(number: u64) -> usize {
    usize::try_from(number.wrapping_sub(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(1_000);

    fn at(millis: u64) -> At {
        Duration::from_millis(millis)
    }

    fn rules<'r>() -> Rules<'r> {
        Rules { bound: BOUND, losses: &[], healthy_since: None }
    }

    fn healthy<'r>() -> Rules<'r> {
        Rules { healthy_since: Some(at(0)), ..rules() }
    }

    /// Writes that start at 0, 100, 200 ms and so on, each acknowledged 10 ms later.
    fn acknowledged(changes: &[Change]) -> History {
        let mut history = History::default();
        for (place, change) in (0..).zip(changes) {
            let number = history.begin(*change, at(place * 100));
            history.end(number, Outcome::Acknowledged(at(place * 100 + 10)));
        }
        history
    }

    /// A read that took 5 ms.
    fn read(found: Found, start: u64) -> Read {
        Read { instance: 0, found, start: at(start), end: at(start + 5), no_cache: false }
    }

    fn judged(history: &mut History, found: Found, start: u64) -> Option<Violation> {
        history.judge(&read(found, start), &rules()).violation
    }

    use Change::{Delete, Set};
    use Found::{Nothing, Value};

    #[test]
    fn the_newest_value_is_always_correct() {
        let mut history = acknowledged(&[Set, Set, Set]);
        for start in [210, 300, 1_300, 100_000] {
            assert_eq!(history.judge(&read(Value(3), start), &healthy()), Verdict::default());
        }
    }

    #[test]
    fn an_older_value_is_correct_only_within_the_bound() {
        let mut history = acknowledged(&[Set, Set, Set]);
        // The second was acknowledged at 110.
        let behind = |millis| Verdict { behind: Some(at(millis)), ..Verdict::default() };
        assert_eq!(history.judge(&read(Value(1), 105), &rules()), Verdict::default());
        assert_eq!(history.judge(&read(Value(1), 1_110), &rules()), behind(1_000));
        let stale = Verdict { violation: Some(Violation::Stale), ..behind(1_001) };
        assert_eq!(history.judge(&read(Value(1), 1_111), &rules()), stale);
        assert_eq!(judged(&mut history, Value(2), 1_210), None);
        assert_eq!(judged(&mut history, Value(2), 1_211), Some(Violation::Stale));
    }

    #[test]
    fn a_read_that_began_before_the_bound_may_end_after_it() {
        let mut history = acknowledged(&[Set, Set]);
        let slow = Read { end: at(9_000), ..read(Value(1), 1_000) };
        assert_eq!(history.judge(&slow, &rules()).violation, None);
    }

    #[test]
    fn a_no_cache_read_must_return_the_newest_value() {
        let mut history = acknowledged(&[Set, Set]);
        let from_shard = |found, start| Read { no_cache: true, ..read(found, start) };
        assert_eq!(history.judge(&from_shard(Value(1), 105), &rules()).violation, None);
        let seen = history.judge(&from_shard(Value(1), 120), &rules()).violation;
        assert_eq!(seen, Some(Violation::NotTheShards));
        let seen = history.judge(&from_shard(Nothing, 120), &rules()).violation;
        assert_eq!(seen, Some(Violation::LostWrite));
        assert_eq!(history.judge(&from_shard(Value(2), 120), &rules()).violation, None);
    }

    #[test]
    fn a_value_that_nobody_wrote_is_noticed() {
        let mut history = acknowledged(&[Set, Delete]);
        for number in [0, 2, 3, u64::MAX] {
            assert_eq!(judged(&mut history, Value(number), 300), Some(Violation::NeverWritten), "{number}");
        }
        history.begin(Set, at(400));
        assert_eq!(judged(&mut history, Value(3), 396), None, "the read ended while the write was under way");
        assert_eq!(
            judged(&mut history, Value(3), 390),
            Some(Violation::NeverWritten),
            "the read ended before the write"
        );
    }

    #[test]
    fn a_value_that_was_refused_is_noticed() {
        let mut history = acknowledged(&[Set, Set]);
        history.end(1, Outcome::Refused);
        assert_eq!(judged(&mut history, Value(1), 150), Some(Violation::Refused));
        assert_eq!(judged(&mut history, Value(1), 5_000), Some(Violation::Refused));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_be_read_at_any_time_and_replaces_nothing() {
        let mut history = acknowledged(&[Set, Set, Set]);
        history.end(2, Outcome::Unknown);
        let unknown = Verdict { of_unknown_outcome: true, ..Verdict::default() };
        assert_eq!(history.judge(&read(Value(2), 90_000), &healthy()), unknown);
        assert_eq!(judged(&mut history, Value(1), 1_205), None, "the second may not have happened");
        assert_eq!(judged(&mut history, Value(1), 1_211), Some(Violation::Stale), "the third has replaced the first");
    }

    #[test]
    fn the_newest_write_may_be_read_before_its_outcome_is_known() {
        let mut history = acknowledged(&[Set]);
        let number = history.begin(Set, at(100));
        assert_eq!(judged(&mut history, Value(number), 200), None);
        assert_eq!(judged(&mut history, Value(1), 9_000), None);
        history.end(number, Outcome::Unknown);
        assert_eq!(judged(&mut history, Value(1), 9_000), None);
        history.end(number, Outcome::Acknowledged(at(8_500)));
        assert_eq!(judged(&mut history, Value(1), 9_000), None);
        assert_eq!(judged(&mut history, Value(1), 9_501), Some(Violation::Stale));
    }

    #[test]
    fn a_miss_is_correct_before_the_first_write_and_after_a_delete() {
        let mut history = acknowledged(&[Set, Delete, Set]);
        assert_eq!(judged(&mut history, Nothing, 900), None, "within the bound of the first");
        assert_eq!(judged(&mut history, Nothing, 1_100), None, "the delete had begun by then");
        assert_eq!(judged(&mut history, Nothing, 1_210), None, "within the bound of the third");
        assert_eq!(judged(&mut history, Nothing, 1_211), Some(Violation::LostWrite));
        let verdict = history.judge(&read(Nothing, 700), &rules());
        assert_eq!(verdict.behind, Some(at(490)), "replaced by the third, acknowledged at 210");
    }

    #[test]
    fn a_miss_before_any_delete_began_is_a_lost_write() {
        let mut history = acknowledged(&[Set]);
        assert_eq!(judged(&mut history, Nothing, 2_000), Some(Violation::LostWrite));
        let delete = history.begin(Delete, at(2_100));
        assert_eq!(judged(&mut history, Nothing, 2_000), Some(Violation::LostWrite));
        assert_eq!(judged(&mut history, Nothing, 2_099), None, "the read ended after the delete began");
        history.end(delete, Outcome::Refused);
        assert_eq!(judged(&mut history, Nothing, 2_200), Some(Violation::LostWrite));
    }

    #[test]
    fn a_delete_of_unknown_outcome_explains_every_later_miss() {
        let mut history = acknowledged(&[Set, Delete, Set]);
        history.end(2, Outcome::Unknown);
        let verdict = history.judge(&read(Nothing, 50_000), &healthy());
        assert_eq!(verdict, Verdict { of_unknown_outcome: true, ..Verdict::default() });
    }

    #[test]
    fn a_write_that_finds_no_entry_can_reveal_a_lost_write() {
        let history = acknowledged(&[Set, Delete, Set, Set]);
        let before = |number: u64, start| {
            let own = Read { no_cache: true, ..read(Nothing, start) };
            history.judge_absence_before(number, &own, &rules()).violation
        };
        assert_eq!(before(1, 0), None, "no entry existed before");
        assert_eq!(before(2, 100), Some(Violation::LostWrite), "the delete found nothing");
        assert_eq!(before(3, 200), None, "deleted before");
        assert_eq!(before(4, 300), Some(Violation::LostWrite));
    }

    #[test]
    fn a_shard_that_came_back_empty_explains_misses_until_the_next_write() {
        let mut history = acknowledged(&[Set, Set]);
        let number = history.begin(Set, at(5_000));
        history.end(number, Outcome::Acknowledged(at(5_010)));
        let loss = |until| [Loss { from: at(2_000), until, what: Lost::Everything }];
        let judge = |history: &mut History, losses: &[Loss], found, start| {
            history.judge(&read(found, start), &Rules { losses, ..rules() }).violation
        };
        for losses in [loss(None), loss(Some(at(3_000)))] {
            assert_eq!(judge(&mut history, &losses, Nothing, 1_900), Some(Violation::LostWrite), "before the loss");
            assert_eq!(judge(&mut history, &losses, Nothing, 2_500), None);
            assert_eq!(judge(&mut history, &losses, Nothing, 4_900), None);
            assert_eq!(judge(&mut history, &losses, Value(1), 4_900), Some(Violation::Stale), "replaced long before");
        }
        assert_eq!(judge(&mut history, &loss(Some(at(3_000))), Nothing, 6_010), None, "within the bound");
        let seen = judge(&mut history, &loss(Some(at(3_000))), Nothing, 6_011);
        assert_eq!(seen, Some(Violation::LostWrite));
    }

    #[test]
    fn a_failover_excuses_only_writes_acknowledged_during_it() {
        let mut history = acknowledged(&[Set, Set, Set]);
        let losses = [Loss { from: at(150), until: Some(at(220)), what: Lost::Latest }];
        let rules = Rules { losses: &losses, ..rules() };
        let mut judge = |found, start| history.judge(&read(found, start), &rules).violation;
        assert_eq!(judge(Value(2), 9_000), None, "the third may be gone");
        assert_eq!(judge(Value(3), 9_000), None, "or not");
        assert_eq!(judge(Value(1), 9_000), Some(Violation::Stale), "the second cannot be lost");
        assert_eq!(judge(Nothing, 9_000), Some(Violation::LostWrite));
    }

    #[test]
    fn going_back_in_time_on_one_instance_is_noticed() {
        let mut history = acknowledged(&[Set, Set, Set]);
        let mut judge = |instance, found, start| {
            let read = Read { instance, ..read(found, start) };
            history.judge(&read, &healthy()).violation
        };
        assert_eq!(judge(0, Value(2), 120), None);
        assert_eq!(judge(1, Value(1), 130), None, "another instance");
        assert_eq!(judge(0, Value(1), 125), None, "both reads were under way");
        assert_eq!(judge(0, Value(1), 126), Some(Violation::BackInTime));
        assert_eq!(judge(0, Value(3), 210), None);
        assert_eq!(judge(0, Value(2), 300), Some(Violation::BackInTime));
        assert_eq!(judge(0, Nothing, 300), Some(Violation::BackInTime));
        assert_eq!(judge(0, Value(2), 214), None, "started before the answer with the third write came");
    }

    #[test]
    fn a_miss_is_as_old_as_its_delete() {
        let mut history = acknowledged(&[Set, Delete, Set]);
        let mut judge = |found, start| history.judge(&read(found, start), &healthy()).violation;
        assert_eq!(judge(Value(1), 105), None);
        assert_eq!(judge(Nothing, 112), None);
        assert_eq!(judge(Value(3), 205), None);
        assert_eq!(judge(Nothing, 220), Some(Violation::BackInTime));

        let mut history = acknowledged(&[Set, Delete]);
        for start in [1_150, 1_200, 1_205] {
            assert_eq!(history.judge(&read(Nothing, start), &healthy()).violation, None, "explained by the delete");
        }
        let verdict = history.judge(&read(Value(1), 1_210), &Rules { bound: at(5_000), ..healthy() });
        assert_eq!(verdict.violation, Some(Violation::BackInTime));
    }

    #[test]
    fn only_reads_of_one_healthy_phase_are_compared() {
        let mut history = acknowledged(&[Set, Set]);
        let judge = |history: &mut History, found, start, healthy_since| {
            history.judge(&read(found, start), &Rules { healthy_since, ..rules() }).violation
        };
        assert_eq!(judge(&mut history, Value(2), 120, Some(at(0))), None);
        assert_eq!(judge(&mut history, Value(1), 200, None), None, "a fault");
        assert_eq!(judge(&mut history, Value(1), 290, Some(at(300))), None, "started during the fault");
        assert_eq!(judge(&mut history, Value(1), 300, Some(at(300))), None, "a new phase");
        assert_eq!(judge(&mut history, Value(2), 320, Some(at(300))), None);
        assert_eq!(judge(&mut history, Value(1), 340, Some(at(300))), Some(Violation::BackInTime));
    }

    #[test]
    fn reads_may_be_judged_in_any_order() {
        let mut seen = Seen::default();
        for (end, number) in [(30, 3), (10, 1), (20, 5), (40, 4), (25, 2)] {
            seen.mark(at(end), number);
        }
        assert_eq!(seen.marks, [(at(10), 1), (at(20), 5)]);
        assert_eq!([5, 10, 11, 20, 21, 90].map(|moment| seen.known_by(at(moment))), [0, 0, 1, 1, 5, 5]);
        for number in 6..1_000 {
            seen.mark(at(number * 10), number);
        }
        assert_eq!((seen.marks.len(), seen.known_by(at(20_000))), (MARKS, 999));
    }
}
