//! What a lost coordinator has left behind, for the one in its place.

use serde::{Deserialize, Serialize};

use super::Millis;
use crate::ledger::Ledger;
use crate::membership::WorkerId;

/// The generation that a lost coordinator has left behind, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The workers by rank. They may be training still.
    pub members: Vec<WorkerId>,
    /// The generation before it; 0: none.
    pub previous: u64,
    /// By rank, the oldest generation for which the member may still speak, because it may have heard of none since: several
    /// coordinators may have been lost, each before it told anybody of the one that it had made durable. 0: of this one
    /// alone. Older records have none, where it was `previous`.
    #[serde(default)]
    pub since: Vec<u64>,
    /// Steps that are known to be committed.
    pub steps_done: u64,
    /// The evaluations that have their figures, by the steps committed before them.
    pub evaluated: Vec<u64>,
    /// How long its steps took; 0: not known.
    #[serde(default)]
    pub usual_step: Millis,
}

impl Adopted {
    /// What `ledger` tells of it; `None` if no generation has begun.
    #[must_use]
    pub fn of(ledger: &Ledger, evaluated: Vec<u64>, usual_step: Millis) -> Option<Self> {
        let (newest, before) = ledger.generations().split_last()?;
        let since = |member: &String| {
            // A step takes all members: with one committed, none of them is left in what came before.
            let unheard_of = std::iter::once(newest).chain(before.iter().rev());
            unheard_of
                .zip(before.iter().rev())
                .take_while(|(one, before)| {
                    let untouched = one.committed.is_none() || one.number == newest.number;
                    untouched && before.members.contains(member)
                })
                .last()
                .map_or(0, |(_, before)| before.number)
        };
        Some(Self {
            members: newest.members.iter().cloned().map(WorkerId::new).collect(),
            previous: before.last().map_or(0, |before| before.number),
            since: newest.members.iter().map(since).collect(),
            steps_done: ledger.steps_done(),
            evaluated,
            usual_step,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::Shares;

    /// Generations 1, 2, … of these workers, each beginning at the step that the ones before have come to, and how many steps
    /// each commits.
    fn left_behind(generations: &[(&[&str], u64)]) -> Adopted {
        let mut ledger = Ledger::new();
        for (number, (members, steps)) in (1..).zip(generations) {
            let begins_at = ledger.steps_done();
            let members: Vec<_> = members.iter().map(ToString::to_string).collect();
            let shares = Shares::even(members.len() as u32);
            ledger
                .begin_generation(number, begins_at, members, shares)
                .unwrap();
            if *steps > 0 {
                ledger
                    .commit_through(number, begins_at + steps - 1)
                    .unwrap();
            }
        }
        Adopted::of(&ledger, Vec::new(), Millis(0)).unwrap()
    }

    #[test]
    fn a_member_may_speak_for_the_generations_that_it_was_in_and_since_which_nothing_was_done() {
        let (all, two): (&[&str], &[&str]) = (&["a", "b", "c"], &["a", "b"]);
        for (generations, since) in [
            (vec![(all, 2)], [0, 0, 0]),
            (vec![(all, 2), (all, 0)], [1, 1, 1]),
            (vec![(all, 2), (all, 0), (all, 0), (all, 0)], [1, 1, 1]),
            (vec![(all, 1), (all, 1), (all, 0), (all, 0)], [2, 2, 2]),
            // Whether it was told of the newest is not known of any, whatever was done in that.
            (vec![(all, 1), (all, 1), (all, 1)], [2, 2, 2]),
            // One that was not in the second of these is another process in the third.
            (vec![(all, 1), (two, 0), (all, 0)], [1, 1, 0]),
            (vec![(all, 1), (two, 0), (all, 0), (all, 0)], [1, 1, 3]),
        ] {
            let left = left_behind(&generations);
            assert_eq!(left.since, since, "{generations:?}");
            let before = generations.len() as u64 - 1;
            assert_eq!(left.previous, before);
        }
    }
}
