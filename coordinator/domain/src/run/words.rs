//! Workers, places and counts as sentences name them. Steps are told by how many are done, which is how progress counts
//! them; records number them from 0.

use super::State;
use crate::membership::{Member, WorkerId};
use crate::numbers::count;

/// "1 step", "3 steps".
pub(super) fn steps(number: u64) -> String {
    counted(number, "step")
}

/// A number with its noun, whose plural ends in s.
pub(super) fn counted(number: u64, noun: &str) -> String {
    count(number, noun, &format!("{noun}s"))
}

/// Where a resume goes on.
pub(super) fn resumes(done: u64) -> String {
    match done {
        0 => "--resume begins at the first step again".to_owned(),
        done => format!("--resume goes on after {}", steps(done)),
    }
}

impl State {
    /// A worker with its rank.
    pub(super) fn name(&self, worker: &WorkerId) -> String {
        let rank = |member: &Member| member.rank.or(member.rank_when_lost);
        match self.roster.get(worker).and_then(rank) {
            Some(rank) => format!("{worker} (rank {rank})"),
            None => worker.to_string(),
        }
    }

    /// Where the run is, for a sentence about a worker. Its process may be seen to end when the others are one generation
    /// further already.
    pub(super) fn place(&self, worker: &WorkerId) -> String {
        let lost_in =
            |member: &Member| member.rank.is_none().then_some(member.generation_when_lost);
        let earlier = self.roster.get(worker).and_then(lost_in).flatten();
        if let Some(earlier) = earlier.filter(|earlier| *earlier < self.generation) {
            return format!("in generation {earlier}");
        }
        match self.generation {
            0 => "before the first generation".to_owned(),
            generation => format!(
                "in generation {generation} after {}",
                steps(self.steps_done)
            ),
        }
    }
}
