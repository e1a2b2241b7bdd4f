//! Simulated workers that follow the protocol, and a loom that picks what happens next: who acts, who hears, who dies, stops
//! or is told to end, and when; and when their coordinator dies, what it has written by then, and how long it is away.
//! A state is the list of generations that did its steps, so two states are equal only if they descend from each other.

mod driver;
mod lost;
mod moves;
mod scores;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::assignment::Assignment;
use crate::ledger::Ledger;

const WORKERS: u32 = 3;
/// Enough for any run that comes to its end at all.
const MOVES: usize = 20_000;
/// So many ranks after a rank hold its scores while there is no coordinator.
const COPIES: usize = 2;
/// What is agreed on at the evaluation after so many steps stands beside what is in the step after it.
const MEETING: u64 = 1000;

/// What a worker holds: by step, the generation that did it.
type Held = Vec<u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Loading.
    #[default]
    Starting,
    /// Joined and welcomed, or out of a generation.
    Apart,
    /// In a generation, before its state is in place.
    Forming,
    /// In a generation; whether it has entered its next step's all-reduce.
    Working { entered: bool },
    /// All ranks have agreed to end here: its last checkpoint is waited for.
    Settling(Way),
    /// It has done its part.
    Left,
}

/// Why ranks end their generation together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Boundary,
    /// Some of them were told to end.
    Drained,
    /// All of them were.
    Stopped,
    Finished,
}

#[derive(Debug, Clone, Default)]
struct Process {
    place: Place,
    /// Whether its session is open.
    connected: bool,
    /// Whether the coordinator that started it is gone.
    adopted: bool,
    stopped: bool,
    /// Whether its training thread hangs, while its session goes on.
    hangs: bool,
    /// Whether it was told to end, and how many seconds it has waited since for others to take what it holds.
    draining: Option<u32>,
    held: Option<Held>,
    /// The steps before an evaluation that it has to score, and before one in which it has done so and waits for the others.
    to_score: Option<u64>,
    meets: Option<u64>,
    /// Rows that it has scored and no coordinator has taken, and those that it keeps for two other ranks, by steps before them.
    kept: BTreeMap<u64, BTreeSet<u32>>,
    /// The generation that its training thread has taken up, and the one that it was last told of.
    generation: u64,
    present: u64,
    /// Whether that one was over before its training thread took it up.
    over: bool,
    /// Whether its training thread is about to say once more where it stands: the generation that it left at a boundary was
    /// over meanwhile.
    says_again: bool,
    boundary: bool,
    /// A checkpoint on its way: it is committed only when nobody's death can make its state void.
    pending: Option<Held>,
    heard: VecDeque<Effect>,
    /// What it tells again to a coordinator in the place of a lost one: its reports of this generation, and where it stands.
    reports: Vec<Event>,
    standing: Option<Event>,
}

/// What became of a process and is not known yet.
#[derive(Debug, Clone, Copy)]
struct Corpse {
    stream: bool,
    exit: bool,
    end: ProcessEnd,
}

/// A generation as its members see it.
#[derive(Debug, Clone)]
struct World {
    members: Vec<WorkerId>,
    assignment: Assignment,
    begins_at: u64,
    opening: Opening,
    source: Source,
    arrived: BTreeMap<WorkerId, Option<Held>>,
    /// By step, who has entered its all-reduce, and who asked to regroup there.
    entered: BTreeMap<u64, BTreeSet<WorkerId>>,
    asked: BTreeMap<u64, bool>,
    /// The same for those who were told to end.
    draining: BTreeMap<u64, u32>,
    /// The rows to score where it begins.
    unscored: Vec<u32>,
    /// By the steps before an evaluation, who has scored its share, and which rows of it no coordinator has taken.
    scored: BTreeMap<u64, BTreeMap<WorkerId, BTreeSet<u32>>>,
    gone: BTreeSet<WorkerId>,
}

struct Cluster {
    sim: Sim,
    seen: usize,
    processes: BTreeMap<WorkerId, Process>,
    corpses: BTreeMap<WorkerId, Corpse>,
    worlds: BTreeMap<u64, World>,
    checkpoint: Option<Held>,
    ledger: Ledger,
    /// What of it is on disk, and the evaluations that have figures there.
    durable: Ledger,
    evaluated: BTreeSet<u64>,
    /// The rows of other evaluations that are scored there.
    scores: BTreeMap<u64, BTreeSet<u32>>,
    /// While there is no coordinator: after how many moves there is one again.
    away: Option<usize>,
}

impl Cluster {
    fn new(config: Config) -> Self {
        let mut cluster = Self {
            sim: Sim::new(config),
            seen: 0,
            processes: BTreeMap::new(),
            corpses: BTreeMap::new(),
            worlds: BTreeMap::new(),
            checkpoint: None,
            ledger: Ledger::new(),
            durable: Ledger::new(),
            evaluated: BTreeSet::new(),
            scores: BTreeMap::new(),
            away: None,
        };
        cluster.carry_out();
        cluster
    }

    fn say(&mut self, event: Event) {
        self.sim.happen(event);
        self.carry_out();
    }

    /// That the replicas in the newest generation and the ledger tell one story.
    fn check(&self) -> Result<(), TestCaseError> {
        for (worker, process) in &self.processes {
            let Some(held) = &process.held else { continue };
            let newest = self.ledger.current().map(|generation| generation.number);
            let in_place = matches!(
                process.place,
                Place::Working { .. } | Place::Settling(_) | Place::Left
            );
            // What a lost coordinator did not write is known when it was told again.
            if !in_place || !process.connected || Some(process.generation) != newest {
                continue;
            }
            for (step, by) in held.iter().enumerate() {
                let owner = self.ledger.generations().iter().find(|generation| {
                    generation
                        .committed
                        .is_some_and(|steps| (steps.first..steps.end()).contains(&(step as u64)))
                });
                let owner = owner.map(|generation| generation.number);
                prop_assert_eq!(owner, Some(*by), "step {} of {}", step, worker);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Fault {
    Kill(u32),
    Stop(u32),
    TellToEnd(u32),
    Hang(u32),
    /// The coordinator dies: of what it has said, each worker still hears so many messages; it is away for so many moves.
    Coordinator {
        heard: usize,
        away: usize,
    },
}

/// Faults, each after so many moves.
fn any_faults() -> impl Strategy<Value = Vec<(usize, Fault)>> {
    let fault = prop_oneof![
        5 => (0..WORKERS).prop_map(Fault::Kill),
        2 => (0..WORKERS).prop_map(Fault::Stop),
        2 => (0..WORKERS).prop_map(Fault::TellToEnd),
        2 => (0..WORKERS).prop_map(Fault::Hang),
        3 => (0usize..3, prop_oneof![Just(0usize), 0usize..40])
            .prop_map(|(heard, away)| Fault::Coordinator { heard, away }),
    ];
    proptest::collection::vec((0usize..60, fault), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_dies_stops_or_is_told_to_end_and_whenever_the_run_heals_and_every_step_counts_once(
        faults in any_faults(), picks in proptest::collection::vec(any::<prop::sample::Index>(), 400), fixed: bool,
    ) {
        let budget = 1000;
        let mut cluster = Cluster::new(Config {
            world: if fixed { super::World::Fixed } else { super::World::Elastic },
            budgets: Budgets { crash: budget, hang: budget, preemption: budget, memory: 0 },
            last_generation: 0,
            ..config(WORKERS, true)
        });
        // Before the first generation a crash ends the run: what fails then fails again.
        let mut faults: VecDeque<_> = faults.into();
        let mut since = 0;
        for made in 0..MOVES {
            if cluster.sim.is_over() {
                break;
            }
            let begun = cluster.sim.state().generation() > 0;
            if begun && faults.front().is_some_and(|(after, ..)| since >= *after) {
                let (_, fault) = faults.pop_front().unwrap();
                since = 0;
                cluster.suffer(&fault);
            }
            since += 1;
            let moves = cluster.moves();
            if cluster.is_back(moves.is_empty()) {
                cluster.start_again();
            } else if moves.is_empty() {
                cluster.wait();
            } else {
                let pick = picks[made % picks.len()];
                cluster.do_move(&moves[pick.index(moves.len())]);
            }
            cluster.check()?;
        }
        prop_assert!(cluster.sim.is_over(), "it did not end: {}", cluster.sim.reason);
        prop_assert_eq!(cluster.sim.ending().kind, EndKind::Finished, "{}", &cluster.sim.ending().reason);
        prop_assert_eq!(cluster.ledger.steps_done(), 4);
        let plan = RunPlan::new(cluster.sim.state().config().shape, 1).unwrap();
        let verification = cluster.ledger.verify(&plan);
        prop_assert!(verification.holds(), "{verification:?}");
        prop_assert_eq!(cluster.evaluated, BTreeSet::from([2, 4]), "all evaluations have their figures");
        prop_assert_eq!(cluster.checkpoint.map(|held| held.len()), Some(4), "its last checkpoint");
    }
}
