//! What a used-up budget ends a run with: the first cause, in its own words, and a run that can be resumed.

use super::*;

fn allowing(budgets: Budgets) -> Sim {
    Sim::training_as(Config {
        budgets,
        ..elastic(2)
    })
}

/// The survivor, rank 0, hands over what it holds after one step and leaves.
fn survivor_hands_over(sim: &mut Sim) {
    sim.standby(0, 1);
    sim.ready(0);
    sim.checkpointed(1);
    sim.leave(0, 1, LeaveReason::Finished);
}

#[test]
fn a_run_over_its_budget_of_hangs_says_who_hung_and_where_and_is_stopped() {
    let mut sim = allowing(Budgets {
        hang: 0,
        ..elastic(2).budgets
    });
    sim.all_do(2, 0);
    sim.beat(1, "all-reduce of gradients after 1 step", true);
    sim.beat(0, "all-reduce of gradients after 1 step", true);
    sim.pass(4000);
    sim.beat(0, "all-reduce of gradients after 1 step", true);
    // When it is given up, and its process is ended for it
    sim.pass(1000);
    sim.exited(1, ProcessEnd::Signal(9));
    survivor_hands_over(&mut sim);

    let hung = "worker-1 (rank 1) hangs: nothing was heard from it for 5 s; it was last seen in all-reduce of gradients \
                after 1 step, entered 5 s ago, on host here; worker-0 waits in all-reduce of gradients after 1 step";
    assert_eq!(sim.warnings(), [hung], "what came of it is no news");
    assert_eq!(
        sim.ending().reason,
        format!(
            "{hung}; fault.hangs allows none of this kind: look for the cause, then resume with --resume; the state after \
             1 step was handed over"
        )
    );
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Stopped, 75)
    );
}

#[test]
fn a_run_without_a_budget_of_preemptions_says_that_a_worker_was_told_to_end() {
    let mut sim = allowing(Budgets {
        preemption: 0,
        ..elastic(2).budgets
    });
    sim.all_do(2, 0);
    sim.leave(1, 1, LeaveReason::Signalled);
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Code(0));
    survivor_hands_over(&mut sim);

    let told = "worker-1 (rank 1) was told to end by a signal from outside after 1 step";
    assert_eq!(sim.warnings(), [told]);
    let reason = &sim.ending().reason;
    let said = format!("{told}; fault.preemptions allows none of this kind: ");
    assert!(reason.starts_with(&said), "{reason}");
}

#[test]
fn with_nobody_left_a_used_up_budget_stops_the_run() {
    let mut sim = Sim::training_as(Config {
        budgets: Budgets {
            crash: 0,
            ..elastic(1).budgets
        },
        ..elastic(1)
    });
    sim.exited(0, ProcessEnd::Signal(11));
    assert_eq!(
        (sim.ending().kind, sim.ending().exit_code),
        (EndKind::Stopped, 75)
    );
}

#[test]
fn what_a_lost_coordinator_saw_counts_for_the_one_in_its_place() {
    // Given a run that survives two crashes, of which one is told to be kept
    let mut sim = Sim::training_as(elastic(2));
    sim.stream_lost(1);
    let effects = sim.exited(1, ProcessEnd::Signal(9));
    let loss = Effect::Loss {
        class: LossClass::Crash,
    };
    assert!(effects.contains(&loss), "{effects:?}");

    // When its coordinator is lost half an hour later, after one more
    let losses = [20, 30].map(|minutes| (LossClass::Crash, Millis(minutes * 60_000)));
    let mut sim = Sim::training_as(Config {
        losses: losses.to_vec(),
        ..elastic(2)
    });
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));

    // Then the next one is one too many, unless those before are an hour ago by then
    assert!(sim.state().stop.is_some(), "{}", sim.reason);
    let mut later = Sim::training_as(Config {
        losses: losses.to_vec(),
        ..elastic(2)
    });
    for _ in 0..45 {
        later.pass(60_000 - 4000);
        (0..2).for_each(|n| drop(later.beat(n, "", false)));
        later.pass(4000);
        (0..2).for_each(|n| drop(later.beat(n, "", false)));
    }
    later.stream_lost(1);
    later.exited(1, ProcessEnd::Signal(9));
    assert!(later.state().stop.is_none(), "{}", later.reason);
}

#[test]
fn micro_batches_that_were_halved_stay_so_for_a_coordinator_in_the_place_of_a_lost_one() {
    let mut sim = Sim::new(Config {
        forward_parts: 2,
        ..elastic(1)
    });
    let effects = sim.join(0);
    let parts = effects.iter().find_map(|effect| match effect {
        Effect::BeginGeneration(beginning) => Some(beginning.forward_parts),
        _ => None,
    });
    assert_eq!(parts, Some(2));
}
