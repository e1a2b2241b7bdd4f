//! A world so large that work proportional to it at every event would show.

use super::*;

const WORKERS: u32 = 10_000;

#[test]
fn ten_thousand_workers_change_their_generation_and_are_heard_in_it() {
    // Given a run of 10,000 workers that someone else has started
    let mut given = config(WORKERS, false);
    given.world = World::Elastic;
    let mut sim = Sim::training_as(given);
    assert_eq!(sim.state().phase(), &Phase::Training);
    let first = sim.state().generation();

    // When one is lost
    let lost = sim.happen(Event::StreamLost {
        worker: WorkerId::local(5000),
        detail: "its stream broke".to_owned(),
    });
    let told = lost.iter().find_map(|effect| match effect {
        Effect::Regroup { workers, .. } => Some(workers.len()),
        _ => None,
    });
    assert_eq!(told, Some(9999));
    let others = || (0..WORKERS).filter(|n| *n != 5000);
    others().for_each(|n| drop(sim.standby(n, 0)));

    // Then all others are in the next generation, and hold its state
    let Some(Effect::BeginGeneration(Beginning {
        number,
        members,
        source: Source::Peers(holders),
        ..
    })) = sim.effects.last()
    else {
        panic!("a generation begins with the last who leaves the old one")
    };
    assert_eq!((*number, members.len()), (first + 1, 9999));
    assert_eq!(holders, &(0..9999).collect::<Vec<_>>());
    others().for_each(|n| drop(sim.ready(n)));
    assert_eq!(sim.state().phase(), &Phase::Training);
    assert_eq!(sim.state().steps_held_by_all(), 0);
    assert!(sim.state().roster().groups_are_right());

    // And whoever is quiet is named, however many are waiting for it
    sim.now = sim.now.after(Millis(4000));
    others().filter(|n| *n != 77).for_each(|n| {
        sim.beat(n, "all-reduce, step 0", true);
    });
    let quiet = sim.pass(1500);
    let warned = quiet.iter().find_map(|effect| match effect {
        Effect::Warn { text } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(
        warned.unwrap_or_default(),
        "worker-77 (rank 77) hangs: nothing was heard from it for 5 s; it had entered no collective, on host here; worker-0, worker-1, \
         worker-2, worker-3, worker-4, worker-5, worker-6, worker-7, and 9990 more wait in all-reduce, step 0"
    );
}
