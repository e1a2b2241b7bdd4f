//! Who takes part: the workers a run knows, what is known of each, and their ranks in the present generation.
//!
//! A *member* is a worker the run counts on. What decides its fate are facts (its process ended, its stream broke, it
//! said so itself); not being heard from is a fact too, but never by itself a death.

use crate::run::{LeaveReason, LossClass, Millis, ProcessEnd};

mod groups;
mod roster;
mod worker_id;

pub use groups::Group;
pub use roster::Roster;
pub use worker_id::{Crowd, Names, WorkerId};

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
    /// The micro-batches that it has done of the step after the state it holds, see [`crate::assignment`].
    pub micro_batches: Vec<u32>,
    /// Its rank in the newest generation; `None`: it is no member of it.
    pub rank: Option<u32>,
    /// The rank it had when it was lost, for sentences.
    pub rank_when_lost: Option<u32>,
    /// And the generation in which it had it.
    pub generation_when_lost: Option<u64>,
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
    /// When it first said so.
    pub collective_since: Millis,
    /// The machine that it said it is on.
    pub host: String,
    /// The device that it said it computes on.
    pub device: String,
    /// That it is leaving, why, and after how many committed steps.
    pub leaving: Option<(LeaveReason, u64)>,
    /// Whether its process was told to end: it leaves at the next boundary.
    pub draining: bool,
    /// What its loss is to count as, and why, where that was decided before its process ended.
    pub verdict: Option<(LossClass, String)>,
    /// Why its process executes itself again, until it is here again: then that counts as a crash.
    pub executes_again: Option<String>,
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

    /// Whether it has done its part and waits for other ranks.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.in_collective || self.leaving.is_some() || self.stands_by()
    }

    /// What it last said it was doing, since when, and where, for a sentence.
    pub(crate) fn doing(&self, now: Millis) -> String {
        let since = now.since(self.collective_since);
        let what = match (self.collective.as_str(), self.in_collective) {
            ("", _) => "it had entered no collective".to_owned(),
            (collective, true) => format!("it was last seen in {collective}, entered {since} ago"),
            (collective, false) => format!("it was last seen after {collective}, left {since} ago"),
        };
        match self.host.as_str() {
            "" => what,
            host => format!("{what}, on host {host}"),
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
