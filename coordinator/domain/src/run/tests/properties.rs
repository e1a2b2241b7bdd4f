use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::assignment::FirstStep;

const WORKERS: u32 = 3;

/// Something that someone says or that happens, whether it makes sense or not.
fn any_event() -> impl Strategy<Value = Event> {
    let worker = || (0..WORKERS + 1).prop_map(WorkerId::local);
    let generation = || prop_oneof![4 => Just(7u64), 3 => 0u64..12];
    let class = prop_oneof![
        3 => Just(FaultClass::Collective),
        1 => Just(FaultClass::Data),
        1 => Just(FaultClass::Internal),
        1 => Just(FaultClass::Memory),
        1 => Just(FaultClass::MemoryOfPass),
        1 => Just(FaultClass::Restart),
    ];
    let left = prop_oneof![
        Just(LeaveReason::Finished),
        Just(LeaveReason::Stopped),
        Just(LeaveReason::Signalled),
    ];
    let end = prop_oneof![
        Just(ProcessEnd::Code(0)),
        Just(ProcessEnd::Code(75)),
        Just(ProcessEnd::Signal(9)),
        Just(ProcessEnd::Known),
        Just(ProcessEnd::Unseen)
    ];
    prop_oneof![
        8 => (worker(), prop_oneof![6 => Just(0u64), 1 => generation()]).prop_map(|(worker, generation)| Event::Joined {
            worker,
            host: String::new(),
            pid: 1,
            device: String::new(),
            generation,
        }),
        6 => (worker(), generation()).prop_map(|(worker, generation)| Event::Ready { worker, generation }),
        4 => (worker(), any::<bool>(), any::<bool>()).prop_map(|(worker, in_collective, draining)| Event::Heartbeat {
            worker,
            collective: "all-reduce".to_owned(),
            in_collective,
            draining,
        }),
        12 => (worker(), generation(), proptest::option::of(0u64..5), proptest::collection::vec(0u32..3, 0..3))
            .prop_map(|(worker, generation, step, micro_batches)| Event::Standby { worker, generation, step, micro_batches }),
        16 => (worker(), generation(), 0u64..5)
            .prop_map(|(worker, generation, step)| Event::Progress { worker, generation, report: report(step) }),
        2 => (0u64..5, 0..=VAL).prop_map(|(step, scored)| Event::Scored { step, scored, samples: VAL }),
        2 => (0u64..5).prop_map(|step| Event::Evaluated { step, problem: None, map_bits: None }),
        1 => (0u64..5).prop_map(|step| Event::CheckpointBegan { step }),
        1 => (0u64..5).prop_map(|step| Event::CheckpointEnded { step, problem: None }),
        1 => (worker(), generation(), class).prop_map(|(worker, generation, class)| Event::Fault {
            worker,
            generation,
            step: 0,
            class,
            message: String::new(),
        }),
        2 => (worker(), generation(), 0u64..5, left)
            .prop_map(|(worker, generation, step, reason)| Event::Leaving { worker, generation, step, reason }),
        1 => worker().prop_map(|worker| Event::StreamLost { worker, detail: String::new() }),
        1 => (worker(), end).prop_map(|(worker, end)| Event::Exited { worker, end, log: Vec::new() }),
        1 => Just(Event::StopAsked { by: "someone".to_owned() }),
        1 => Just(Event::SnapshotAsked),
        1 => Just(Event::BadData { problem: "two pictures are missing".to_owned() }),
        1 => Just(Event::Broken { problem: "the disk is full".to_owned() }),
        1 => worker().prop_map(|worker| Event::LaunchFailed { worker, problem: String::new() }),
        2 => Just(Event::Tick),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let pause = prop_oneof![8 => 0u64..500, 1 => 0u64..200_000];
    proptest::collection::vec((any_event(), pause), 0..80)
}

/// What must hold after every event, whatever came before.
fn check(sim: &Sim) -> Result<(), TestCaseError> {
    prop_assert!(sim.state().roster().groups_are_right());
    let config = sim.state().config();
    let fewest = match config.world {
        World::Fixed => config.workers as usize,
        World::Elastic => 1,
    };
    let mut newest = config.last_generation;
    let known = config
        .adopted
        .as_ref()
        .map_or(0, |adopted| adopted.steps_done);
    let (mut ends, mut next_commit) = (0, known);
    for effect in &sim.effects {
        match effect {
            Effect::BeginGeneration(Beginning {
                number,
                members,
                begins_at_step,
                source,
                opening,
                assignment,
                ..
            }) => {
                let whole = |first: &FirstStep| first.step == *begins_at_step && first.is_whole(2);
                prop_assert!(assignment.first().is_none_or(whole), "{assignment:?}");
                prop_assert!(*number > newest, "generation {number} after {newest}");
                let distinct: BTreeSet<_> = members.iter().collect();
                prop_assert_eq!(distinct.len(), members.len());
                prop_assert!(members.len() <= config.workers as usize);
                prop_assert!(members.len() >= fewest || opening.finish);
                prop_assert!(*begins_at_step <= next_commit, "steps that nobody did");
                if let Source::Peers(holders) = source {
                    prop_assert!(!holders.is_empty());
                    prop_assert!(holders.iter().all(|rank| (*rank as usize) < members.len()));
                }
                newest = *number;
                next_commit = *begins_at_step;
            }
            Effect::Commit {
                generation, step, ..
            } => {
                prop_assert_eq!(*generation, newest, "a stale generation commits nothing");
                // What a lost coordinator had heard of is told again, or known from what its workers hold.
                let told = config.adopted.is_some() && *generation == config.last_generation;
                prop_assert!(
                    *step == next_commit || (told && *step > next_commit),
                    "steps are committed once and in order"
                );
                next_commit = *step + 1;
            }
            Effect::End(_) => ends += 1,
            _ => prop_assert_eq!(ends, 0, "nothing but refusals is done after the end"),
        }
    }
    prop_assert!(ends <= 1);
    prop_assert_eq!(ends == 1, sim.is_over());
    let ranks: Vec<_> = sim
        .state()
        .roster()
        .iter()
        .filter_map(|(_, member)| member.rank)
        .collect();
    let distinct: BTreeSet<_> = ranks.iter().collect();
    prop_assert_eq!(distinct.len(), ranks.len(), "no rank twice");
    prop_assert!(
        sim.state()
            .next_deadline()
            .is_none_or(|(_, at)| at > sim.now),
        "no deadline lies in the past"
    );
    if sim.is_over() {
        prop_assert!(sim.state().next_deadline().is_none());
    }
    prop_assert!(!sim.reason.is_empty());
    Ok(())
}

/// What an operating system and a transport do about the last effects.
fn follow(sim: &mut Sim, from: usize) {
    let new: Vec<_> = sim.effects.drain(from..).collect();
    sim.effects.extend(new.iter().cloned());
    for effect in new {
        match effect {
            Effect::Kill { worker } => {
                sim.happen(Event::StreamLost {
                    worker: worker.clone(),
                    detail: String::new(),
                });
                sim.happen(Event::Exited {
                    worker,
                    end: ProcessEnd::Signal(9),
                    log: Vec::new(),
                });
            }
            Effect::Close { worker } => {
                sim.happen(Event::StreamLost {
                    worker,
                    detail: String::new(),
                });
            }
            _ => {}
        }
    }
}

/// A driver that gets a refusal after the end does nothing else.
fn without_refusals(effects: Vec<Effect>) -> Vec<Effect> {
    effects
        .into_iter()
        .filter(|effect| !matches!(effect, Effect::Refuse { .. }))
        .collect()
}

fn any_config(local: bool, fixed: bool, adopted: bool) -> Config {
    let left_behind = Adopted {
        members: (0..2).map(WorkerId::local).collect(),
        previous: 5,
        since: Vec::new(),
        steps_done: 1,
        evaluated: Vec::new(),
        usual_step: Millis(0),
    };
    Config {
        world: if fixed { World::Fixed } else { World::Elastic },
        adopted: adopted.then_some(left_behind),
        ..config(WORKERS, local)
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold_and_the_end_stays_the_end(
        history in any_history(), local: bool, begun: bool, fixed: bool, adopted: bool,
    ) {
        let mut sim = Sim::new(any_config(local, fixed, adopted));
        // Chance alone seldom brings three workers together.
        for n in (0..WORKERS).filter(|_| begun) {
            sim.join(n);
        }
        for n in (0..WORKERS).filter(|_| begun) {
            sim.ready(n);
        }
        for (event, pause) in history {
            sim.now = sim.now.after(Millis(pause));
            let decided = sim.decided();
            let over = sim.is_over();
            let effects = sim.happen(event);
            if decided.is_some() {
                prop_assert_eq!(sim.decided(), decided, "how the run ends was decided");
            }
            if over {
                prop_assert_eq!(without_refusals(effects.clone()), []);
                sim.effects.truncate(sim.effects.len() - effects.len());
            }
            check(&sim)?;
        }
    }

    #[test]
    fn a_stop_always_ends_even_if_no_worker_listens_any_more(
        history in any_history(), local: bool, begun: bool, fixed: bool, adopted: bool,
    ) {
        // Given a run in whatever state
        let mut sim = Sim::new(any_config(local, fixed, adopted));
        for n in (0..WORKERS).filter(|_| begun) {
            sim.join(n);
        }
        for (event, pause) in history {
            sim.now = sim.now.after(Millis(pause));
            sim.happen(event);
        }
        // When it is to stop and only the operating system and the transport still answer
        sim.happen(Event::StopAsked { by: "someone".to_owned() });
        for _ in 0..40 {
            if sim.is_over() {
                break;
            }
            let from = sim.effects.len();
            prop_assert!(sim.reach_next_deadline().is_some(), "nothing is waited for: {}", sim.reason);
            follow(&mut sim, from);
        }
        // Then it ends
        prop_assert!(sim.is_over(), "still {}", sim.reason);
    }

    #[test]
    fn a_run_whose_workers_do_their_plan_finishes_in_whatever_order_they_speak(
        order in proptest::collection::vec(0..WORKERS, 0..200), local: bool,
    ) {
        // Given workers that each have their say in order, and a loom that picks who speaks
        let mut sim = Sim::new(config(WORKERS, local));
        let mut turn = [0usize; WORKERS as usize];
        let script = |n: u32| -> Vec<Event> {
            let worker = WorkerId::local(n);
            let joined = Event::Joined {
                worker: worker.clone(), host: String::new(), pid: 1, device: String::new(), generation: 0,
            };
            let set_up =
                Event::Standby { worker: worker.clone(), generation: 0, step: None, micro_batches: Vec::new() };
            let ready = Event::Ready { worker: worker.clone(), generation: 7 };
            let steps = (0..4).map(|step| {
                Event::Progress { worker: WorkerId::local(n), generation: 7, report: report(step) }
            });
            let in_place = Event::CheckpointEnded { step: 4, problem: None };
            let leaving = Event::Leaving { worker, generation: 7, step: 4, reason: LeaveReason::Finished };
            [joined, set_up, ready].into_iter().chain(steps).chain([in_place, leaving]).collect()
        };
        // A worker speaks of a generation only once there is one: when all have joined.
        let rest = (0..WORKERS).cycle().take(40);
        for n in (0..WORKERS).chain(0..WORKERS).chain(order).chain(rest) {
            if let Some(event) = script(n).get(turn[n as usize]) {
                sim.happen(event.clone());
                turn[n as usize] += 1;
                check(&sim)?;
            }
        }
        for step in [2, 4] {
            sim.happen(Event::Scored { step, scored: VAL, samples: VAL });
            sim.happen(Event::Evaluated { step, problem: None, map_bits: None });
        }
        // When they follow their release
        sim.all_go(WORKERS);
        // Then the run is finished
        prop_assert!(sim.is_over(), "still {}", sim.reason);
        prop_assert_eq!(sim.ending().kind, EndKind::Finished);
    }
}
