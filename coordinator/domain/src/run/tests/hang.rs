//! Workers that live and do nothing, and those who are slow for a reason.

use super::*;

#[test]
fn a_silent_worker_hangs_unless_steps_that_need_it_are_committed() {
    let mut sim = Sim::training_as(elastic(2));
    sim.beat(1, "all-reduce of gradients, step 0", false);
    sim.beat(0, "all-reduce of gradients, step 0", true);
    sim.pass(4000);
    sim.beat(0, "all-reduce of gradients, step 0", true);
    sim.pass(1000);
    assert_eq!(
        sim.warnings(),
        [
            "worker-1 (rank 1) hangs: nothing was heard from it for 5 s; it was last seen after \
          all-reduce of gradients, step 0, left 5 s ago, on host here; worker-0 waits in all-reduce of gradients, step 0"
        ]
    );
    assert!(sim.effects.contains(&Effect::Kill {
        worker: WorkerId::local(1)
    }));
    let next = begun(&sim.standby(0, 0)).unwrap();
    assert_eq!(next.0, 8);

    // Given one whose words are lost while it works
    let mut sim = Sim::training_as(elastic(2));
    for step in 0..3 {
        sim.pass(2000);
        sim.progress(0, step);
    }
    assert_eq!(
        sim.warnings(),
        [
            "nothing is heard from worker-1 for 5 s, but it takes part in the steps that are done: going on"
        ]
    );
    assert_eq!(sim.state().generation(), 7);
}

#[test]
fn who_is_gone_is_not_said_to_wait_for_who_hangs() {
    let mut sim = Sim::training_as(elastic(3));
    sim.beat(0, "all-reduce of gradients, step 0", true);
    sim.stream_lost(0);
    sim.exited(0, ProcessEnd::Signal(9));
    sim.standby(1, 0);
    for _ in 0..5 {
        sim.pass(1000);
        sim.beat(1, "", false);
    }
    let said = sim.warnings().pop().unwrap();
    assert_eq!(
        said,
        "worker-2 (rank 2) hangs: nothing was heard from it for 5 s; it had entered no collective, on host here"
    );
}

#[test]
fn whoever_stands_outside_while_the_others_wait_is_who_hangs() {
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    let mut waited = 0;
    while waited < 60_000 {
        sim.pass(1000);
        waited += 1000;
        sim.beat(0, "all-reduce of gradients, step 1", true);
        sim.beat(1, "all-reduce of the tally, step 0", false);
        sim.beat(2, "all-reduce of gradients, step 1", true);
    }
    sim.pass(1);
    assert!(
        sim.warnings()[0].starts_with(
            "worker-1 (rank 1) hangs: no step was committed for 60 s; it was last seen after all-reduce of the tally, \
             step 0, left 59 s ago, on host here; worker-0 and worker-2 wait in all-reduce of gradients, step 1"
        ),
        "{:?}",
        sim.warnings()
    );
}

#[test]
fn where_nobody_waits_for_anybody_steps_may_be_slow_but_not_for_ever() {
    for (workers, done, minutes) in [(1, 3, 10), (1, 0, 30), (3, 3, 10)] {
        // Given ranks of which none waits in a collective
        let mut sim = Sim::training_as(elastic(workers));
        for step in 0..done {
            sim.pass(100);
            sim.all_do(workers, step);
            if step == 1 {
                super::evaluation::evaluate(&mut sim, 2);
            }
        }
        let asked = Effect::Regroup {
            workers: (0..workers).map(WorkerId::local).collect(),
            at_boundary: false,
            reason: format!(
                "no step was committed for 60 s; no worker stands out, {minutes} times in a row: all are to leave the generation"
            ),
        };
        let pass = |sim: &mut Sim, seconds: u32| {
            for _ in 0..seconds {
                sim.pass(1000);
                for n in 0..workers {
                    sim.beat(n, "", false);
                }
            }
            sim.pass(1);
        };
        // Then all are asked to leave when it has been so for several times as long as a step may take
        pass(&mut sim, 60 * (minutes - 1) + 30);
        assert!(!sim.effects.contains(&asked), "{:?}", sim.warnings());
        pass(&mut sim, 31);
        assert!(sim.effects.contains(&asked), "{:?}", sim.warnings());
    }
}

#[test]
fn whoever_is_in_no_collective_keeps_the_others_from_being_ready() {
    for (inside, lost) in [
        ([true, false, true], vec!["worker-1"]),
        // Where all wait for each other nobody stands out.
        ([true, true, true], vec!["worker-0", "worker-1", "worker-2"]),
    ] {
        let mut sim = Sim::forming_as(elastic(3));
        for _ in 0..121 {
            for (n, inside) in (0..).zip(inside) {
                sim.beat(n, "broadcast of the state, step 0", inside);
            }
            sim.pass(1000);
        }
        let said = sim.warnings();
        let named = |worker: &&str| {
            said.iter()
                .any(|text| text.starts_with(*worker) && text.contains("did not become ready"))
        };
        let named: Vec<_> = ["worker-0", "worker-1", "worker-2"]
            .into_iter()
            .filter(named)
            .collect();
        assert_eq!(named, lost, "{said:?}");
    }
}

/// A minute in which heartbeats go on, and after each second of it what `say` says.
fn a_minute(sim: &mut Sim, in_collective: [bool; 3], mut say: impl FnMut(&mut Sim, u32)) {
    for second in 0..60 {
        sim.pass(1000);
        for (n, inside) in (0..).zip(in_collective) {
            sim.beat(n, "all-reduce after evaluation, step 2", inside);
        }
        say(sim, second);
    }
    sim.pass(1);
}

#[test]
fn whoever_scores_nothing_while_the_others_have_is_who_hangs_and_who_scores_is_not() {
    // Given an evaluation in which two ranks have done their part
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    sim.all_do(3, 1);
    assert!(matches!(sim.state().phase(), Phase::Evaluating { .. }));

    // When the third goes on to score for longer than a step may take, nobody is blamed
    a_minute(&mut sim, [true, false, true], |sim, second| {
        let scored = second % VAL;
        sim.happen(Event::Scored {
            step: 2,
            scored,
            samples: VAL,
        });
    });
    assert_eq!(sim.warnings(), Vec::<&str>::new());

    // And when it scores nothing more, it is
    a_minute(&mut sim, [true, false, true], |_, _| {});
    assert!(
        sim.warnings()[0].starts_with(
            "worker-1 (rank 1) hangs: no sample was scored for 60 s; it was last seen after all-reduce after evaluation, \
             step 2, left 119.0 s ago, on host here; worker-0 and worker-2 wait in all-reduce after evaluation"
        ),
        "{:?}",
        sim.warnings()
    );
}

#[test]
fn whoever_does_not_leave_when_all_others_have_is_who_hangs() {
    // Given ranks that have agreed to stop, two of which have left
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    sim.happen(Event::StopAsked {
        by: "test".to_owned(),
    });
    sim.all_do(3, 1);
    sim.checkpointed(2);
    sim.leave(0, 2, LeaveReason::Stopped);
    sim.leave(2, 2, LeaveReason::Stopped);

    // When the third does nothing
    a_minute(&mut sim, [false; 3], |_, _| {});

    // Then it is given up, and the others hand over what they hold
    assert!(
        sim.warnings()[0].starts_with("worker-1 (rank 1) hangs: no rank came to its end for 60 s"),
        "{:?}",
        sim.warnings()
    );
    assert!(
        sim.warnings()[0].ends_with("; worker-0 and worker-2 waited for it to leave"),
        "{:?}",
        sim.warnings()
    );
    sim.exited(1, ProcessEnd::Signal(9));
    for n in [0, 2] {
        sim.standby(n, 2);
    }
    for n in [0, 2] {
        sim.ready(n);
        sim.leave(n, 2, LeaveReason::Stopped);
    }
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Stopped, 0)
    );
}

#[test]
fn who_waits_for_a_slow_disk_does_not_hang() {
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    sim.happen(Event::CheckpointBegan { step: 1 });
    for _ in 0..5 {
        // More of it comes in; the others wait for rank 0 in the next step.
        sim.happen(Event::CheckpointBegan { step: 1 });
        a_minute(&mut sim, [false, true, true], |_, _| {});
    }
    assert_eq!(sim.warnings(), Vec::<&str>::new());
    // From when nothing more comes it is waited for that, and then for a step.
    for _ in 0..3 {
        a_minute(&mut sim, [false, true, true], |_, _| {});
    }
    let warnings = sim.warnings();
    assert!(
        warnings[0].starts_with("nothing more of the checkpoint of step 1"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("worker-0 (rank 0) hangs"),
        "{warnings:?}"
    );
}

#[test]
fn who_waits_for_a_slow_disk_at_a_boundary_does_not_hang() {
    let mut sim = Sim::training_as(elastic(3));
    sim.all_do(3, 0);
    // Rank 0 waits for the answer to its checkpoint before it leaves; the others stand by.
    sim.happen(Event::CheckpointBegan { step: 1 });
    sim.stream_lost(2);
    sim.exited(2, ProcessEnd::Signal(9));
    sim.standby(1, 1);
    for _ in 0..5 {
        sim.happen(Event::CheckpointBegan { step: 1 });
        a_minute(&mut sim, [true, true, false], |_, _| {});
    }
    let hanging = |sim: &Sim| {
        sim.warnings()
            .iter()
            .any(|text| text.contains("did not leave"))
    };
    assert!(!hanging(&sim), "{:?}", sim.warnings());
    // Once nothing more of it comes, it is in the way like anyone.
    for _ in 0..3 {
        a_minute(&mut sim, [true, true, false], |_, _| {});
    }
    assert!(hanging(&sim), "{:?}", sim.warnings());
}

#[test]
fn the_machine_of_whoever_is_refused_is_not_taken_for_that_of_its_namesake() {
    let mut sim = Sim::training_as(elastic(3));
    let host = |sim: &Sim| {
        let roster = sim.state().roster();
        roster.get(&WorkerId::local(1)).unwrap().host.clone()
    };
    assert_eq!(host(&sim), "here");
    sim.happen(Event::Joined {
        worker: WorkerId::local(1),
        host: "elsewhere".to_owned(),
        pid: 9,
        device: "cpu".to_owned(),
        generation: 0,
    });
    assert_eq!(host(&sim), "here");
}
