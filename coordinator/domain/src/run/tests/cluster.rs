//! Simulated workers that follow the protocol, and a loom that picks what happens next: who acts, who hears, who dies or
//! stops, and when. A state is the list of generations that did its steps, so two states are equal only if they descend
//! from each other.

mod driver;
mod moves;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::assignment::Assignment;
use crate::ledger::Ledger;

const WORKERS: u32 = 3;
/// Enough for any run that comes to its end at all.
const MOVES: usize = 20_000;

/// What a worker holds: by step, the generation that did it.
type Held = Vec<u64>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Loading.
    Starting,
    /// Joined and welcomed, or out of a generation.
    Apart,
    /// In a generation, before its state is in place.
    Forming,
    /// In a generation; whether it has entered its next step's all-reduce.
    Working { entered: bool },
    /// It has done its part.
    Left,
}

#[derive(Debug, Clone)]
struct Process {
    place: Place,
    joined: bool,
    stopped: bool,
    held: Option<Held>,
    generation: u64,
    boundary: bool,
    /// A checkpoint on its way: it is committed only when nobody's death can make its state void.
    pending: Option<Held>,
    heard: VecDeque<Effect>,
}

/// What became of a process and is not known yet.
#[derive(Debug, Clone, Copy)]
struct Corpse {
    stream: bool,
    exit: bool,
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
            if !matches!(process.place, Place::Working { .. } | Place::Left)
                || Some(process.generation) != newest
            {
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

/// A fault: after so many moves, to whom, and whether it only stops.
fn any_faults() -> impl Strategy<Value = Vec<(usize, u32, bool)>> {
    proptest::collection::vec((0usize..60, 0..WORKERS, prop::bool::weighted(0.2)), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_dies_or_stops_and_whenever_the_run_heals_and_every_step_counts_once(
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
                let (_, victim, stops) = faults.pop_front().unwrap();
                since = 0;
                let victim = WorkerId::local(victim);
                match cluster.processes.get_mut(&victim) {
                    Some(process) if stops => process.stopped = true,
                    Some(_) => cluster.kill(&victim),
                    None => {}
                }
            }
            since += 1;
            let moves = cluster.moves();
            if moves.is_empty() {
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
        prop_assert_eq!(cluster.checkpoint.map(|held| held.len()), Some(4), "its last checkpoint");
    }
}
