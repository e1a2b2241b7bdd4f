//! Simulated workers that follow the protocol, and a loom that picks what happens next: who acts, who hears, who dies or
//! stops, and when. A state is the list of generations that did its steps, so two states are equal only if they descend
//! from each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
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

    /// What a driver does.
    fn carry_out(&mut self) {
        while let Some(effect) = self.sim.effects.get(self.seen).cloned() {
            self.seen += 1;
            match &effect {
                Effect::Launch { worker, .. } => {
                    let process = Process {
                        place: Place::Starting,
                        joined: false,
                        stopped: false,
                        held: None,
                        generation: 0,
                        boundary: false,
                        pending: None,
                        heard: VecDeque::new(),
                    };
                    assert!(
                        self.processes.insert(worker.clone(), process).is_none(),
                        "{worker} was started beside itself"
                    );
                }
                Effect::Kill { worker } | Effect::Terminate { worker } => self.kill(worker),
                // The process sees its stream end, and ends.
                Effect::Close { worker } => self.kill(worker),
                Effect::Release { worker, .. } => self.hear(worker, &effect),
                Effect::Regroup { workers, .. } => {
                    workers.iter().for_each(|worker| self.hear(worker, &effect));
                }
                Effect::BeginGeneration(Beginning {
                    number,
                    members,
                    begins_at_step,
                    source,
                    opening,
                    shares,
                    ..
                }) => {
                    let names = members.iter().map(ToString::to_string).collect();
                    self.ledger
                        .begin_generation(*number, *begins_at_step, names, shares.clone())
                        .unwrap();
                    let world = World {
                        members: members.clone(),
                        begins_at: *begins_at_step,
                        opening: *opening,
                        source: source.clone(),
                        arrived: BTreeMap::new(),
                        entered: BTreeMap::new(),
                        asked: BTreeMap::new(),
                        gone: BTreeSet::new(),
                    };
                    self.worlds.insert(*number, world);
                    members.iter().for_each(|worker| self.hear(worker, &effect));
                }
                Effect::Commit {
                    generation, step, ..
                } => {
                    self.ledger.commit(*generation, *step).unwrap();
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, worker: &WorkerId, effect: &Effect) {
        if let Some(process) = self.processes.get_mut(worker) {
            process.heard.push_back(effect.clone());
        }
    }

    fn kill(&mut self, worker: &WorkerId) {
        if let Some(process) = self.processes.remove(worker) {
            let stream = process.joined;
            self.corpses
                .insert(worker.clone(), Corpse { stream, exit: true });
            self.leave(worker, process.generation);
        }
    }

    /// Its connections close: whoever still waits for it in this generation fails.
    fn leave(&mut self, worker: &WorkerId, generation: u64) {
        if let Some(world) = self.worlds.get_mut(&generation) {
            world.gone.insert(worker.clone());
        }
    }

    /// Everything that can happen now, but for faults and time.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (worker, process) in &self.processes {
            if process.stopped {
                continue;
            }
            if !process.heard.is_empty() {
                moves.push(Move::Hear(worker.clone()));
            }
            if self.can_act(worker, process) {
                moves.push(Move::Act(worker.clone()));
            }
        }
        for (worker, corpse) in &self.corpses {
            if corpse.stream {
                moves.push(Move::LoseStream(worker.clone()));
            }
            if corpse.exit {
                moves.push(Move::Exit(worker.clone()));
            }
        }
        moves
    }

    fn can_act(&self, worker: &WorkerId, process: &Process) -> bool {
        match process.place {
            Place::Starting => true,
            Place::Apart | Place::Left => false,
            Place::Forming => {
                let world = &self.worlds[&process.generation];
                !world.arrived.contains_key(worker)
                    || world.arrived.len() == world.members.len()
                    || !world.gone.is_empty()
            }
            Place::Working { entered } => {
                let world = &self.worlds[&process.generation];
                let step = process.held.as_ref().map_or(0, Vec::len) as u64;
                if step == 4 && process.pending.is_some() {
                    return self.is_settled(process);
                }
                let all = world
                    .entered
                    .get(&step)
                    .is_some_and(|entered| entered.len() == world.members.len());
                !entered || all || !world.gone.is_empty()
            }
        }
    }

    fn is_settled(&self, process: &Process) -> bool {
        let held = self.sim.state().steps_held_by_all();
        process
            .pending
            .as_ref()
            .is_some_and(|state| state.len() as u64 <= held)
    }

    fn do_move(&mut self, what: &Move) {
        match what {
            Move::Hear(worker) => self.hears(worker),
            Move::Act(worker) => self.acts(worker),
            Move::LoseStream(worker) => {
                self.corpses.get_mut(worker).unwrap().stream = false;
                self.say(Event::StreamLost {
                    worker: worker.clone(),
                    detail: "reset".to_owned(),
                });
            }
            Move::Exit(worker) => {
                self.corpses.get_mut(worker).unwrap().exit = false;
                // An operating system tells of both before it starts another of that name.
                if std::mem::take(&mut self.corpses.get_mut(worker).unwrap().stream) {
                    self.say(Event::StreamLost {
                        worker: worker.clone(),
                        detail: "reset".to_owned(),
                    });
                }
                self.say(Event::Exited {
                    worker: worker.clone(),
                    end: ProcessEnd::Signal(9),
                    log: Vec::new(),
                });
            }
        }
    }

    fn hears(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let generation = process.generation;
        match process.heard.pop_front().unwrap() {
            Effect::Release { .. } => self.kill(worker),
            Effect::BeginGeneration(Beginning { number, .. }) => {
                process.generation = number;
                process.boundary = false;
                process.place = Place::Forming;
            }
            Effect::Regroup { at_boundary, .. } if at_boundary => process.boundary = true,
            Effect::Regroup { .. } if process.place != Place::Apart => {
                self.stands_by(worker, generation);
            }
            _ => {}
        }
    }

    fn stands_by(&mut self, worker: &WorkerId, generation: u64) {
        self.leave(worker, generation);
        let process = self.processes.get_mut(worker).unwrap();
        process.place = Place::Apart;
        process.pending = None;
        let step = process.held.as_ref().map(|held| held.len() as u64);
        self.say(Event::Standby {
            worker: worker.clone(),
            generation,
            step,
        });
    }

    fn acts(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        match process.place {
            Place::Starting => {
                process.joined = true;
                process.place = Place::Apart;
                self.say(Event::Joined {
                    worker: worker.clone(),
                    host: String::new(),
                    pid: 1,
                    device: String::new(),
                    generation: 0,
                });
                self.say(Event::Standby {
                    worker: worker.clone(),
                    generation: 0,
                    step: None,
                });
            }
            Place::Forming => self.forms(worker),
            Place::Working { entered } => self.works(worker, entered),
            Place::Apart | Place::Left => {}
        }
    }

    fn forms(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let (number, held) = (process.generation, process.held.clone());
        let world = self.worlds.get_mut(&number).unwrap();
        if !world.arrived.contains_key(worker) {
            world.arrived.insert(worker.clone(), held);
            return;
        }
        if world.arrived.len() < world.members.len() {
            self.fails(worker, number);
            return;
        }
        // Levelling: everyone has what the holders have.
        let begins_at = usize::try_from(world.begins_at).unwrap();
        let state = match &world.source {
            Source::Seed => Vec::new(),
            Source::Checkpoint => self.checkpoint.clone().unwrap(),
            Source::Peers(holders) => {
                let states: BTreeSet<_> = holders
                    .iter()
                    .map(|rank| world.arrived[&world.members[*rank as usize]].clone())
                    .collect();
                assert_eq!(states.len(), 1, "holders differ");
                states.into_iter().next().flatten().unwrap()
            }
        };
        assert_eq!(state.len(), begins_at);
        let process = self.processes.get_mut(worker).unwrap();
        process.held = Some(state);
        process.place = Place::Working { entered: false };
        let opening = world.opening;
        self.say(Event::Ready {
            worker: worker.clone(),
            generation: number,
        });
        self.at_a_place(worker, number, opening.evaluate, opening.snapshot);
        if opening.finish {
            self.leaves(worker, number);
        }
    }

    fn fails(&mut self, worker: &WorkerId, generation: u64) {
        self.say(Event::Fault {
            worker: worker.clone(),
            generation,
            step: 0,
            class: FaultClass::Collective,
            message: "connection closed by peer".to_owned(),
        });
        if self.processes.contains_key(worker) {
            self.stands_by(worker, generation);
        }
    }

    fn works(&mut self, worker: &WorkerId, entered: bool) {
        let process = self.processes.get_mut(worker).unwrap();
        let number = process.generation;
        let step = process.held.as_ref().unwrap().len() as u64;
        if process.pending.is_some() {
            let process = process.clone();
            if self.is_settled(&process) {
                self.checkpoint.clone_from(&process.pending);
                self.processes.get_mut(worker).unwrap().pending = None;
                let step = process.pending.map_or(0, |state| state.len() as u64);
                self.say(Event::CheckpointEnded {
                    step,
                    problem: None,
                });
                return;
            }
        }
        if step == 4 {
            self.leaves(worker, number);
            return;
        }
        let process = self.processes.get_mut(worker).unwrap();
        let world = self.worlds.get_mut(&number).unwrap();
        if !entered {
            process.place = Place::Working { entered: true };
            world
                .entered
                .entry(step)
                .or_default()
                .insert(worker.clone());
            *world.asked.entry(step).or_default() |= process.boundary;
            return;
        }
        if world.entered[&step].len() < world.members.len() {
            self.fails(worker, number);
            return;
        }
        let boundary = world.asked[&step];
        process.held.as_mut().unwrap().push(number);
        process.place = Place::Working { entered: false };
        self.say(Event::Progress {
            worker: worker.clone(),
            generation: number,
            report: report(step),
        });
        let plan = RunPlan::new(self.sim.state().config().shape, 1).unwrap();
        let (evaluate, snapshot) = (
            plan.evaluated_epoch(step + 1).is_some(),
            plan.has_snapshot(step + 1),
        );
        self.at_a_place(worker, number, evaluate, snapshot);
        if boundary {
            let process = self.processes.get_mut(worker).unwrap();
            process.place = Place::Apart;
            process.pending = None;
            self.say(Event::Standby {
                worker: worker.clone(),
                generation: number,
                step: Some(step + 1),
            });
        }
    }

    /// Evaluation and checkpoint, as far as rank 0 stands for all.
    fn at_a_place(&mut self, worker: &WorkerId, number: u64, evaluate: bool, snapshot: bool) {
        if self.worlds[&number].members.first() != Some(worker) {
            return;
        }
        let held = self.processes[worker].held.clone().unwrap();
        let step = held.len() as u64;
        if evaluate {
            self.say(Event::Scored {
                step,
                scored: VAL,
                samples: VAL,
            });
            self.say(Event::Evaluated {
                step,
                problem: None,
                map_bits: None,
            });
        }
        if snapshot {
            self.processes.get_mut(worker).unwrap().pending = Some(held);
        }
    }

    fn leaves(&mut self, worker: &WorkerId, generation: u64) {
        let process = self.processes.get_mut(worker).unwrap();
        process.place = Place::Left;
        let step = process.held.as_ref().unwrap().len() as u64;
        self.say(Event::Leaving {
            worker: worker.clone(),
            generation,
            step,
            reason: LeaveReason::Finished,
        });
    }

    /// Nothing moves any more: time passes, and those who live say so.
    fn wait(&mut self) {
        let beating: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| process.joined && !process.stopped)
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in beating {
            self.say(Event::Heartbeat {
                worker,
                collective: String::new(),
                in_collective: false,
            });
        }
        self.sim.now = self.sim.now.after(Millis(1000));
        self.say(Event::Tick);
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

#[derive(Debug, Clone)]
enum Move {
    Hear(WorkerId),
    Act(WorkerId),
    LoseStream(WorkerId),
    Exit(WorkerId),
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
