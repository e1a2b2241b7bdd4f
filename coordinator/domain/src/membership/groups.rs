//! Which workers stand where, kept up as they change: a run of thousands cannot look through all of them at every event.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use super::{Member, Place, Process, Session, WorkerId};

/// A question about one worker whose answer is kept for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Its session is open.
    Joined,
    /// Its session is not open.
    Missing,
    /// It has joined and loads what it needs.
    SettingUp,
    /// It is here, has set up, and is in no process group.
    StandingBy,
    /// It stands by and is no member of the newest generation.
    Newcomers,
    /// It is a member of the newest generation.
    Members,
    /// It is a member and has not left the generation's process group.
    Inside,
    /// It is a member whose state is not in place yet.
    Unready,
    /// It is a member and has not said that it leaves.
    Staying,
    /// It is a member and has said that it leaves.
    Leaving,
    /// It is a member that is here and was not told to end.
    GoingOn,
    /// It is a member that may hold the run's state.
    Hopeful,
    /// It has been quiet for too long.
    Silent,
    /// It was last seen in a collective.
    InCollective,
    /// Something of it is left that the run could wait for.
    Present,
    /// Its process has ended and is to be started again.
    Restarting,
}

impl Group {
    const ALL: [Self; 16] = [
        Self::Joined,
        Self::Missing,
        Self::SettingUp,
        Self::StandingBy,
        Self::Newcomers,
        Self::Members,
        Self::Inside,
        Self::Unready,
        Self::Staying,
        Self::Leaving,
        Self::GoingOn,
        Self::Hopeful,
        Self::Silent,
        Self::InCollective,
        Self::Present,
        Self::Restarting,
    ];

    fn has(self, member: &Member) -> bool {
        let joined = member.session == Session::Open;
        match self {
            Self::Joined => joined,
            Self::Missing => !joined,
            Self::SettingUp => joined && member.place == Place::SettingUp,
            Self::StandingBy => member.stands_by(),
            Self::Newcomers => member.stands_by() && !member.is_member(),
            Self::Members => member.is_member(),
            Self::Inside => member.is_inside(),
            Self::Unready => member.is_member() && !member.ready,
            Self::Staying => member.is_member() && member.leaving.is_none(),
            Self::Leaving => member.is_member() && member.leaving.is_some(),
            Self::GoingOn => member.is_member() && joined && !member.draining,
            Self::Hopeful => {
                let holds_nothing = member.place == Place::Standby { holds: None };
                let distrusted = member.suspect && member.place != Place::InGeneration;
                member.is_member() && !holds_nothing && !distrusted
            }
            Self::Silent => member.silent,
            Self::InCollective => member.in_collective && joined,
            Self::Present => !member.is_gone(),
            Self::Restarting => {
                matches!(member.process, Process::Ended(_)) && member.again.is_some()
            }
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Where one worker stands, in all groups at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    groups: u32,
    /// The steps it holds, if it is a member.
    holds: Option<u64>,
}

impl Standing {
    pub(super) fn of(member: &Member) -> Self {
        let groups = Group::ALL
            .into_iter()
            .filter(|group| group.has(member))
            .fold(0, |groups, group| groups | group.bit());
        let held = if member.ready { member.next_step } else { 0 };
        Self {
            groups,
            holds: member.is_member().then_some(held),
        }
    }
}

/// Every group's workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Groups {
    workers: [BTreeSet<WorkerId>; Group::ALL.len()],
    /// How many members hold so many steps.
    held: BTreeMap<u64, u32>,
}

impl Groups {
    pub(super) fn of(&self, group: Group) -> &BTreeSet<WorkerId> {
        &self.workers[group as usize]
    }

    /// The steps that every member holds; `None` without members.
    pub(super) fn least_held(&self) -> Option<u64> {
        self.held.keys().next().copied()
    }

    /// A worker has moved.
    pub(super) fn update(&mut self, worker: &WorkerId, before: Standing, after: Standing) {
        if before == after {
            return;
        }
        let changed = before.groups ^ after.groups;
        for group in Group::ALL {
            if changed & group.bit() == 0 {
                continue;
            }
            let workers = &mut self.workers[group as usize];
            if after.groups & group.bit() == 0 {
                workers.remove(worker);
            } else {
                workers.insert(worker.clone());
            }
        }
        if before.holds == after.holds {
            return;
        }
        if let Some(held) = after.holds {
            *self.held.entry(held).or_default() += 1;
        }
        if let Some(held) = before.holds
            && let Some(members) = self.held.get_mut(&held)
        {
            *members -= 1;
            if *members == 0 {
                self.held.remove(&held);
            }
        }
    }
}

/// A worker that is being changed; its groups follow when this is dropped.
#[derive(Debug)]
pub(crate) struct Changing<'a> {
    worker: &'a WorkerId,
    member: &'a mut Member,
    before: Standing,
    groups: &'a mut Groups,
}

impl<'a> Changing<'a> {
    pub(super) fn new(
        worker: &'a WorkerId,
        member: &'a mut Member,
        groups: &'a mut Groups,
    ) -> Self {
        let before = Standing::of(member);
        Self {
            worker,
            member,
            before,
            groups,
        }
    }
}

impl Deref for Changing<'_> {
    type Target = Member;

    fn deref(&self) -> &Member {
        self.member
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut Member {
        self.member
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let after = Standing::of(self.member);
        self.groups.update(self.worker, self.before, after);
    }
}
