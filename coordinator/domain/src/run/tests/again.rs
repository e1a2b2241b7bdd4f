//! A process that executes itself again.

use super::*;

#[test]
fn a_process_that_executes_itself_again_is_let_go_and_taken_in_and_counts_as_a_crash() {
    let why = "the training thread did not leave generation 7 within 3 s";
    let told = format!("worker-1 (rank 1) after 1 step: {why}; its process executes itself again");
    // Given a rank that cannot leave a generation that is over
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    sim.stream_lost(2);
    sim.standby(0, 1);
    let effects = sim.fault(1, FaultClass::Restart, why);

    // Then nobody waits for it any longer, nor is another process started beside it
    assert_eq!(sim.warnings(), [told.as_str()]);
    let charged = Effect::Loss {
        class: LossClass::Crash,
    };
    assert!(!effects.contains(&charged), "{effects:?}");
    let next = begun(&effects).unwrap();
    assert_eq!((next.1, next.2), (1, Source::Peers(vec![0])));
    sim.ready(0);
    let effects = sim.progress(0, 1);
    assert!(!launched(&effects).contains(&"worker-1"), "{effects:?}");

    // and it comes in as a new one, which counts as a crash
    let effects = sim.join(1);
    assert!(effects.contains(&charged), "{effects:?}");
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Regroup {
            at_boundary: true,
            ..
        }
    )));
    let next = begun(&sim.standby(0, 2)).unwrap();
    assert_eq!((next.1, next.2), (2, Source::Peers(vec![0])));

    // One that does not come is ended like any other that does not set up.
    let mut sim = Sim::training_as(elastic(2));
    sim.all_do(2, 0);
    sim.fault(1, FaultClass::Restart, why);
    sim.standby(0, 1);
    sim.ready(0);
    let arrival = Deadline::Arrival(WorkerId::local(1));
    while sim.reach_next_deadline() != Some(arrival.clone()) {
        sim.beat(0, "", false);
    }
    assert!(sim.warnings().last().unwrap().contains("did not set up"));
    assert!(!sim.effects.contains(&charged), "not yet");
    let effects = sim.exited(1, ProcessEnd::Signal(9));
    assert!(effects.contains(&charged), "{effects:?}");
}
