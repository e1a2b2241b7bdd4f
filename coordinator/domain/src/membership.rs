//! Who takes part: the workers a run knows, what is known of each, and their ranks in the present generation.
//!
//! A *member* is a worker the run counts on. What decides its fate are facts (its process ended, its stream broke, it
//! said so itself); not being heard from is a fact too, but never by itself a death.

use std::collections::BTreeMap;

use crate::run::{LeaveReason, LossClass, Millis, ProcessEnd};

mod worker_id;

pub use worker_id::{Names, WorkerId};

/// A worker's session stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Session {
    /// It has not joined.
    #[default]
    Never,
    /// It has joined and its stream is open.
    Open,
    /// Its stream ended or broke.
    Lost,
}

/// A worker's process, as far as this coordinator started it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Process {
    /// Started by someone else: only its stream tells whether it lives.
    #[default]
    Elsewhere,
    /// To be started, or started, here.
    Here,
    /// Started here, and over.
    Ended(ProcessEnd),
}

/// Where a worker stands between setting up and training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// It loads what it needs.
    #[default]
    SettingUp,
    /// It is in no process group and waits.
    Standby {
        /// The committed steps whose state it holds; `None`: it holds no state of this run's present.
        holds: Option<u64>,
    },
    /// It was sent into the newest generation and has not left it.
    InGeneration,
}

/// What the run knows of one worker.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Its number among the processes of this machine, which chooses its device.
    pub index: Option<u32>,
    /// Its process.
    pub process: Process,
    /// Its stream.
    pub session: Session,
    /// Where it stands.
    pub place: Place,
    /// Its rank in the newest generation; `None`: it is no member of it.
    pub rank: Option<u32>,
    /// The rank it had when it was lost, for sentences.
    pub rank_when_lost: Option<u32>,
    /// Whether its state is in place for the present generation.
    pub ready: bool,
    /// The next step it will report.
    pub next_step: u64,
    /// When it last said anything.
    pub heard: Millis,
    /// Whether it has been quiet for too long.
    pub silent: bool,
    /// Steps that were committed when it was last heard.
    pub steps_when_heard: u64,
    /// The collective it last said it had entered.
    pub collective: String,
    /// Whether it was still in it.
    pub in_collective: bool,
    /// That it is leaving, why, and after how many committed steps.
    pub leaving: Option<(LeaveReason, u64)>,
    /// What its loss is to count as, where that was decided before its process ended.
    pub verdict: Option<LossClass>,
    /// When it may be started again.
    pub again: Option<Millis>,
    /// How often it was lost since it last took part in a step.
    pub losses_in_a_row: u32,
    /// How often its state differed from that of the others.
    pub offences: u32,
    /// Nanoseconds of forward pass per sample, a moving mean; `None`: not known.
    pub pace: Option<u64>,
    /// Reports with a pace in the newest generation.
    pub paced: u32,
    /// Whether it is known to be much slower than the others.
    pub straggles: bool,
    /// Whether the state it holds is not to be trusted.
    pub suspect: bool,
    /// Whether it is shut out.
    pub quarantined: bool,
    /// Whether it was in its generation before this coordinator was started: what it has reported is not known whole.
    pub adopted: bool,
}

impl Member {
    /// Whether nothing of it is left that this run could wait for.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.session != Session::Open && self.process != Process::Here
    }

    /// Whether it is a member of the newest generation.
    pub(crate) fn is_member(&self) -> bool {
        self.rank.is_some()
    }

    /// Whether it is a member and has not left the generation's process group.
    pub(crate) fn is_inside(&self) -> bool {
        self.is_member() && !matches!(self.place, Place::Standby { .. })
    }

    /// Whether it is here, has set up, and is in no process group.
    pub(crate) fn stands_by(&self) -> bool {
        self.session == Session::Open && matches!(self.place, Place::Standby { .. })
    }

    /// What it last said it was doing, for a sentence.
    pub(crate) fn doing(&self) -> String {
        match (self.collective.as_str(), self.in_collective) {
            ("", _) => "it had entered no collective".to_owned(),
            (collective, true) => format!("it was last seen in {collective}"),
            (collective, false) => format!("it was last seen after {collective}"),
        }
    }
}

/// Why a worker cannot join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// Someone of this name is here.
    #[error("a worker named {0} has joined already: give every worker its own --worker-id")]
    NameTaken(WorkerId),
    /// A stranger in a run that starts its own workers.
    #[error(
        "{0} is not one of this run's workers, which its coordinator starts itself: start workers by `coordinator start --workers N`"
    )]
    Stranger(WorkerId),
    /// The world is complete, and so are its spares.
    #[error(
        "the run has its {0} workers and {1} spares: start more only for a run that wants more"
    )]
    Full(u32, u32),
    /// Its state differed from the others' too often.
    #[error(
        "{0} is shut out because its state differed from that of all others: look at its device"
    )]
    ShutOut(WorkerId),
    /// It comes from a generation that is over.
    #[error("generation {0} is over and has gone on without this worker: start it again")]
    Stale(u64),
    /// The end has begun.
    #[error("the run is ending: try again when it is resumed")]
    Ending,
}

impl JoinRefusal {
    /// The exit code the refused worker ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NameTaken(_) | Self::Stranger(_) | Self::ShutOut(_) => 64,
            Self::Full(..) | Self::Stale(_) | Self::Ending => 75,
        }
    }
}

/// All workers of a run.
#[derive(Debug, Clone)]
pub struct Roster {
    members: BTreeMap<WorkerId, Member>,
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
        Self {
            members,
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
    pub(crate) fn get_mut(&mut self, worker: &WorkerId) -> Option<&mut Member> {
        self.members.get_mut(worker)
    }

    /// All workers in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&WorkerId, &Member)> {
        self.members.iter()
    }

    /// The names of the workers for which `predicate` holds, in order.
    pub fn which(&self, predicate: impl Fn(&Member) -> bool) -> Vec<WorkerId> {
        self.members
            .iter()
            .filter(|(_, member)| predicate(member))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The members of the newest generation by rank.
    pub(crate) fn by_rank(&self) -> Vec<WorkerId> {
        let ranked = self.members.iter();
        let mut ranked: Vec<_> = ranked
            .filter_map(|(id, member)| Some((member.rank?, id)))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Workers beyond those wanted that may wait as spares.
    #[must_use]
    pub fn spares(&self) -> u32 {
        self.wanted.max(8)
    }

    /// How many have an open session.
    #[must_use]
    pub fn joined(&self) -> u32 {
        // A roster never holds more members than `wanted` and its spares, each a u32.
        self.members
            .values()
            .filter(|member| member.session == Session::Open)
            .count() as u32
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
        let member = self.members.entry(worker.clone()).or_default();
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
        Ok(())
    }

    /// The members of a generation whose coordinator was lost: they may be training still.
    pub(crate) fn adopt(&mut self, members: &[WorkerId], steps_done: u64) {
        for worker in members {
            self.members.entry(worker.clone()).or_default();
        }
        self.assign_ranks(members, steps_done);
        for worker in members {
            if let Some(member) = self.members.get_mut(worker) {
                member.adopted = true;
            }
        }
    }

    /// A member of the generation under way comes back to a coordinator that was started again.
    pub(crate) fn reopen(&mut self, worker: &WorkerId, now: Millis) {
        if let Some(member) = self.members.get_mut(worker) {
            member.session = Session::Open;
            member.heard = now;
            member.silent = false;
        }
    }

    /// Forgets a worker that was started elsewhere and is gone.
    pub(crate) fn forget(&mut self, worker: &WorkerId) {
        self.members.remove(worker);
    }

    /// A process of this machine is started again.
    pub(crate) fn expect(&mut self, worker: &WorkerId) {
        if let Some(member) = self.members.get_mut(worker) {
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
        for member in self.members.values_mut() {
            if member.session == Session::Open {
                continue;
            }
            member.rank = None;
            if member.leaving.take().is_some() && matches!(member.process, Process::Ended(_)) {
                member.again = Some(now);
            }
        }
    }

    /// Gives each of `members` its rank, in that order, for a generation that begins at `begins_at_step`.
    pub(crate) fn assign_ranks(&mut self, members: &[WorkerId], begins_at_step: u64) {
        for member in self.members.values_mut() {
            member.rank = None;
        }
        for (rank, worker) in (0u32..).zip(members) {
            if let Some(member) = self.members.get_mut(worker) {
                member.rank = Some(rank);
                member.place = Place::InGeneration;
                member.ready = false;
                member.next_step = begins_at_step;
                member.steps_when_heard = begins_at_step;
                member.in_collective = false;
                member.leaving = None;
                member.paced = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_people_count() {
        let mut names: Vec<_> = ["worker-10", "worker-2", "b", "a7", "a", "worker-02"]
            .map(WorkerId::new)
            .into();
        names.sort();
        let sorted: Vec<_> = names.iter().map(WorkerId::as_str).collect();
        assert_eq!(
            sorted,
            ["a", "a7", "b", "worker-02", "worker-2", "worker-10"]
        );
    }

    #[test]
    fn lists_read_as_sentences_and_long_ones_are_cut() {
        let names: Vec<_> = (0..11).map(WorkerId::local).collect();
        assert_eq!(Names(&names[..0]).to_string(), "nobody");
        assert_eq!(Names(&names[..1]).to_string(), "worker-0");
        assert_eq!(
            Names(&names[..3]).to_string(),
            "worker-0, worker-1 and worker-2"
        );
        assert!(Names(&names).to_string().ends_with("worker-7, and 3 more"));
    }

    #[test]
    fn a_name_joins_once_and_a_full_world_takes_nobody() {
        let mut roster = Roster::new(1, false);
        roster.join(&WorkerId::new("a"), Millis(0)).unwrap();
        let again = roster.join(&WorkerId::new("a"), Millis(1));
        assert_eq!(again, Err(JoinRefusal::NameTaken(WorkerId::new("a"))));
        for spare in 0..8 {
            roster.join(&WorkerId::local(spare), Millis(1)).unwrap();
        }
        assert_eq!(
            roster.join(&WorkerId::new("b"), Millis(1)),
            Err(JoinRefusal::Full(1, 8))
        );
        let stranger = Roster::new(1, true).join(&WorkerId::new("b"), Millis(1));
        assert_eq!(stranger, Err(JoinRefusal::Stranger(WorkerId::new("b"))));
    }
}
