//! All workers of a run, and which of them stand where.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::{Changing, Groups, Standing};
use super::{Crowd, Group, JoinRefusal, Member, Place, Process, Session, WorkerId};
use crate::run::Millis;

/// All workers of a run.
#[derive(Debug, Clone)]
pub struct Roster {
    members: BTreeMap<WorkerId, Member>,
    groups: Groups,
    wanted: u32,
    /// Whether the run starts its workers itself, and so knows their names beforehand.
    local: bool,
}

impl Roster {
    /// A roster for `wanted` workers; `local` ones are known by name before they join.
    #[must_use]
    pub fn new(wanted: u32, local: bool) -> Self {
        let members = if local {
            (0..wanted)
                .map(|index| {
                    let member = Member {
                        index: Some(index),
                        process: Process::Here,
                        ..Member::default()
                    };
                    (WorkerId::local(index), member)
                })
                .collect()
        } else {
            BTreeMap::new()
        };
        let mut groups = Groups::default();
        for (worker, member) in &members {
            groups.update(worker, Standing::default(), Standing::of(member));
        }
        Self {
            members,
            groups,
            wanted,
            local,
        }
    }

    /// How many workers the run wants.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Whether the run starts its workers itself.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// One worker.
    #[must_use]
    pub fn get(&self, worker: &WorkerId) -> Option<&Member> {
        self.members.get(worker)
    }

    /// One worker, to change.
    pub(crate) fn get_mut<'a>(&'a mut self, worker: &'a WorkerId) -> Option<Changing<'a>> {
        let member = self.members.get_mut(worker)?;
        Some(Changing::new(worker, member, &mut self.groups))
    }

    /// The workers of a group, in order.
    #[must_use]
    pub fn group(&self, group: Group) -> &BTreeSet<WorkerId> {
        self.groups.of(group)
    }

    /// The same for a sentence.
    #[must_use]
    pub fn crowd(&self, group: Group) -> Crowd {
        Crowd::of(self.groups.of(group).iter())
    }

    /// The steps that every member holds; `None` without members.
    pub(crate) fn least_held(&self) -> Option<u64> {
        self.groups.least_held()
    }

    /// All workers in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&WorkerId, &Member)> {
        self.members.iter()
    }

    /// The members of the newest generation by rank.
    pub(crate) fn by_rank(&self) -> Vec<WorkerId> {
        let members = self.groups.of(Group::Members).iter();
        let mut ranked: Vec<_> = members
            .filter_map(|id| Some((self.get(id)?.rank?, id)))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// The names of the workers for which `predicate` holds, in order.
    pub fn which(&self, predicate: impl Fn(&Member) -> bool) -> Vec<WorkerId> {
        self.members
            .iter()
            .filter(|(_, member)| predicate(member))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Workers beyond those wanted that may wait as spares.
    #[must_use]
    pub fn spares(&self) -> u32 {
        self.wanted.max(8)
    }

    /// Whether others are all that are wanted, so that this worker of the roster has no place among them.
    pub(crate) fn is_surplus(&self, member: &Member) -> bool {
        let complete = self.groups.of(Group::Members).len() >= self.wanted as usize;
        complete && !member.is_member()
    }

    /// Whether it is one of these and waits, set up, to take over.
    #[must_use]
    pub fn is_spare(&self, member: &Member) -> bool {
        self.is_surplus(member) && member.stands_by()
    }

    /// How many it knows.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// How many have an open session.
    #[must_use]
    pub fn joined(&self) -> u32 {
        // A roster never holds more members than `wanted` and its spares, each a u32.
        self.groups.of(Group::Joined).len() as u32
    }

    /// Takes a worker in.
    pub(crate) fn join(&mut self, worker: &WorkerId, now: Millis) -> Result<(), JoinRefusal> {
        match self.members.get(worker) {
            Some(member) if member.session == Session::Open => {
                return Err(JoinRefusal::NameTaken(worker.clone()));
            }
            Some(member) if member.quarantined => {
                return Err(JoinRefusal::ShutOut(worker.clone()));
            }
            None if self.local => return Err(JoinRefusal::Stranger(worker.clone())),
            None if u64::from(self.joined())
                >= u64::from(self.wanted) + u64::from(self.spares()) =>
            {
                return Err(JoinRefusal::Full(self.wanted, self.spares()));
            }
            _ => {}
        }
        self.note(worker);
        if let Some(mut member) = self.get_mut(worker) {
            // Whatever was known of an earlier process of this name is of no use.
            *member = Member {
                index: member.index,
                process: member.process.clone(),
                session: Session::Open,
                heard: now,
                offences: member.offences,
                losses_in_a_row: member.losses_in_a_row,
                ..Member::default()
            };
        }
        Ok(())
    }

    /// Makes sure that there is something to know of a worker.
    fn note(&mut self, worker: &WorkerId) {
        if !self.members.contains_key(worker) {
            let member = Member::default();
            let standing = Standing::of(&member);
            self.groups.update(worker, Standing::default(), standing);
            self.members.insert(worker.clone(), member);
        }
    }

    /// Changes every worker.
    fn change_all(&mut self, change: impl Fn(&mut Member)) {
        for (worker, member) in &mut self.members {
            change(&mut Changing::new(worker, member, &mut self.groups));
        }
    }

    /// The members of a generation whose coordinator was lost: they may be training still.
    pub(crate) fn adopt(&mut self, members: &[WorkerId], steps_done: u64) {
        for worker in members {
            self.note(worker);
        }
        self.assign_ranks(members, steps_done);
        for worker in members {
            if let Some(mut member) = self.get_mut(worker) {
                member.adopted = true;
            }
        }
    }

    /// A member of the generation under way comes back to a coordinator that was started again.
    pub(crate) fn reopen(&mut self, worker: &WorkerId, now: Millis) {
        if let Some(mut member) = self.get_mut(worker) {
            member.session = Session::Open;
            member.heard = now;
            member.silent = false;
        }
    }

    /// Forgets a worker that was started elsewhere and is gone; of one that is shut out that is kept.
    pub(crate) fn forget(&mut self, worker: &WorkerId) {
        if self.get(worker).is_some_and(|member| member.quarantined) {
            return;
        }
        if let Some(member) = self.members.remove(worker) {
            let standing = Standing::of(&member);
            self.groups.update(worker, standing, Standing::default());
        }
    }

    /// A process of this machine is started again.
    pub(crate) fn expect(&mut self, worker: &WorkerId) {
        if let Some(mut member) = self.get_mut(worker) {
            *member = Member {
                index: member.index,
                process: Process::Here,
                offences: member.offences,
                losses_in_a_row: member.losses_in_a_row,
                ..Member::default()
            };
        }
    }

    /// Takes the rank from those who are not here any more. One that had done its part and gone is wanted again.
    pub(crate) fn drop_the_gone(&mut self, now: Millis) {
        self.change_all(|member| {
            if member.session == Session::Open {
                return;
            }
            member.rank = None;
            if member.leaving.take().is_some() && matches!(member.process, Process::Ended(_)) {
                member.again = Some(now);
            }
        });
    }

    /// Gives each of `members` its rank, in that order, for a generation that begins at `begins_at_step`.
    pub(crate) fn assign_ranks(&mut self, members: &[WorkerId], begins_at_step: u64) {
        self.change_all(|member| member.rank = None);
        for (rank, worker) in (0u32..).zip(members) {
            if let Some(mut member) = self.get_mut(worker) {
                member.rank = Some(rank);
                member.place = Place::InGeneration;
                member.ready = false;
                member.next_step = begins_at_step;
                member.steps_when_heard = begins_at_step;
                member.in_collective = false;
                member.leaving = None;
                member.micro_batches.clear();
                member.paced = 0;
            }
        }
    }
}

#[cfg(test)]
impl Roster {
    /// Whether every group holds exactly those whom a look at all workers would find.
    pub(crate) fn groups_are_right(&self) -> bool {
        let mut groups = Groups::default();
        for (worker, member) in &self.members {
            groups.update(worker, Standing::default(), Standing::of(member));
        }
        groups == self.groups
    }
}
