//! Ranks of different speed: who lags behind the others, and who is given how many micro-batches.
//!
//! A rank's pace is the time of its forward passes per sample. The rest of a step would not tell: every rank waits there
//! for the slowest.

use super::{Effect, Phase, State};
use crate::membership::{Member, WorkerId};
use crate::shares::Shares;

/// Reports of a generation that tell nothing: caches and memory are still being filled.
const WARM_UP: u32 = 2;
/// Reports before a pace is acted upon, and again after as many.
const TRUSTED: u32 = 10;
/// A pace this many times the others' median makes a straggler, in hundredths; below the second figure it is none again.
const STRAGGLES: (u64, u64) = (200, 150);
/// A new generation must promise at least this much of a step, in hundredths: it costs more than a step itself.
const WORTH_IT: u64 = 10;

impl State {
    /// Learns a rank's pace from its report. Tells of a straggler, and of shares that would suit better.
    pub(super) fn note_rank_pace(&mut self, worker: &WorkerId, pace: u64) -> Vec<Effect> {
        let Some(mut member) = self.roster.get_mut(worker).filter(|_| pace > 0) else {
            return Vec::new();
        };
        member.paced = member.paced.saturating_add(1);
        let paced = member.paced;
        if paced > WARM_UP {
            // A mean over the last eight or so: a single slow step is no slow machine.
            let known = member.pace.unwrap_or(pace);
            member.pace = Some(known - known / 8 + pace / 8);
        }
        drop(member);
        if !paced.is_multiple_of(TRUSTED) {
            return Vec::new();
        }
        let mut effects = self.watch_for_straggling(worker);
        effects.extend(self.rebalance());
        effects
    }

    fn watch_for_straggling(&mut self, worker: &WorkerId) -> Vec<Effect> {
        let mut others: Vec<u64> = self
            .roster
            .iter()
            .filter(|(other, member)| {
                *other != worker && member.is_member() && member.paced >= TRUSTED
            })
            .filter_map(|(_, member)| member.pace)
            .collect();
        others.sort_unstable();
        let name = self.name(worker);
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        let (Some(&median), Some(pace)) = (others.get(others.len() / 2), member.pace) else {
            return Vec::new();
        };
        let hundredths = pace.saturating_mul(100) / median.max(1);
        if hundredths < STRAGGLES.1 {
            member.straggles = false;
        }
        if hundredths < STRAGGLES.0 || std::mem::replace(&mut member.straggles, true) {
            return Vec::new();
        }
        let advice = if self.config.balance {
            "it is given fewer micro-batches"
        } else {
            "train.balance = \"speed\" would give it fewer micro-batches"
        };
        let (times, tenth) = (hundredths / 100, hundredths % 100 / 10);
        vec![Effect::Warn {
            text: format!(
                "{name} is a straggler: a sample's forward pass takes it {times}.{tenth} times as long as the others; \
                 look at what else its machine does; {advice}"
            ),
        }]
    }

    /// Asks everyone to a step boundary if other shares would make steps shorter.
    fn rebalance(&mut self) -> Vec<Effect> {
        if !self.config.balance || self.phase != Phase::Training || self.stop.is_some() {
            return Vec::new();
        }
        let ready = |member: &Member| member.paced >= TRUSTED;
        let members = self.roster.by_rank();
        if !members
            .iter()
            .all(|worker| self.roster.get(worker).is_some_and(ready))
        {
            return Vec::new();
        }
        let micro_batches = self.plan.epoch_shape().micro_batches_per_step();
        let Some(paces) = self.paces(&members) else {
            return Vec::new();
        };
        let better = Shares::by_pace(micro_batches, &paces);
        let (now, then) = (
            self.shares.longest(micro_batches, &paces),
            better.longest(micro_batches, &paces),
        );
        if now.saturating_sub(then).saturating_mul(100) < now.saturating_mul(WORTH_IT) {
            return Vec::new();
        }
        let reason = format!(
            "micro-batches are shared out anew, {:?} by rank instead of {:?}: a step then takes {} % of the time",
            Self::counts(&better, micro_batches),
            Self::counts(&self.shares, micro_batches),
            then.saturating_mul(100) / now.max(1),
        );
        self.meet_at_a_boundary(reason)
    }

    /// The shares of a generation of these members.
    pub(super) fn next_shares(&self, members: &[WorkerId]) -> Shares {
        let even = Shares::even(members.len() as u32);
        if !self.config.balance {
            return even;
        }
        let micro_batches = self.plan.epoch_shape().micro_batches_per_step();
        self.paces(members)
            .map_or(even, |paces| Shares::by_pace(micro_batches, &paces))
    }

    /// The members' paces; whose is not known counts as average. `None`: nobody's is known.
    fn paces(&self, members: &[WorkerId]) -> Option<Vec<u64>> {
        let known = |worker: &WorkerId| self.roster.get(worker)?.pace;
        let all: Vec<u64> = members.iter().filter_map(known).collect();
        let mean = all.iter().sum::<u64>().checked_div(all.len() as u64)?;
        Some(
            members
                .iter()
                .map(|worker| known(worker).unwrap_or(mean).max(1))
                .collect(),
        )
    }

    fn counts(shares: &Shares, micro_batches: u32) -> Vec<usize> {
        shares
            .assign(micro_batches as usize)
            .iter()
            .map(ExactSizeIterator::len)
            .collect()
    }
}
