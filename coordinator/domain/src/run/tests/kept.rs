//! What survivors have done of the step in flight is theirs in the next generation too.

use super::degraded::wide;
use super::*;
use crate::assignment::Assignment;

fn handed_out(effects: &[Effect]) -> Assignment {
    let of = |effect: &Effect| match effect {
        Effect::BeginGeneration(beginning) => Some(beginning.assignment.clone()),
        _ => None,
    };
    effects.iter().rev().find_map(of).unwrap()
}

fn by_rank(assignment: &Assignment, step: u64) -> Vec<Vec<u32>> {
    (0..assignment.world_size())
        .map(|rank| assignment.micro_batches(step, 6, rank))
        .collect()
}

#[test]
fn survivors_do_again_only_what_the_dead_had_not_handed_over() {
    // Three ranks with two micro-batches each, in step 3
    let mut sim = Sim::training_as(wide());
    for step in 0..3 {
        sim.all_do(3, step);
    }
    // When the second dies, the others have done one each
    sim.stream_lost(1);
    sim.standby_with(0, 3, &[0]);
    let effects = sim.standby_with(2, 3, &[4]);
    // Then they share the four that are left
    let assignment = handed_out(&effects);
    assert_eq!(by_rank(&assignment, 3), [vec![0, 1, 3], vec![4, 2, 5]]);
    assert_eq!(by_rank(&assignment, 4), [vec![0, 1, 2], vec![3, 4, 5]]);
}

#[test]
fn a_second_death_before_the_step_is_done_costs_only_the_second_ones_part() {
    let mut sim = Sim::training_as(wide());
    sim.stream_lost(1);
    sim.standby_with(0, 0, &[0, 1]);
    sim.standby_with(2, 0, &[4, 5]);
    sim.ready(0);
    sim.stream_lost(2);
    let effects = sim.standby_with(0, 0, &[0, 1, 2]);
    let assignment = handed_out(&effects);
    assert_eq!(by_rank(&assignment, 0), [vec![0, 1, 2, 3, 4, 5]]);
}

#[test]
fn what_was_done_before_the_state_changed_counts_for_nothing() {
    // Rank 2 has committed step 0 and is in the next; rank 0 was still in step 0.
    let mut sim = Sim::training_as(wide());
    sim.progress(2, 0);
    sim.stream_lost(1);
    sim.standby_with(0, 0, &[0, 1]);
    let effects = sim.standby_with(2, 1, &[4]);
    let assignment = handed_out(&effects);
    assert_eq!(by_rank(&assignment, 1), [vec![0, 2, 5], vec![4, 1, 3]]);
}

#[test]
fn a_fixed_world_hands_out_as_ever() {
    let mut sim = Sim::training_as(Config {
        world: World::Fixed,
        ..wide()
    });
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    sim.standby_with(0, 0, &[0]);
    sim.standby_with(2, 0, &[4]);
    sim.now = sim.now.after(Millis(10_000));
    sim.happen(Event::Tick);
    sim.join(1);
    let assignment = handed_out(&sim.effects);
    assert_eq!(assignment, Assignment::even(3));
}

#[test]
fn who_is_in_a_long_micro_batch_is_given_the_time_of_a_step_to_leave() {
    // Given steps of ten seconds, twice `fault.timeout`
    let mut sim = Sim::training_as(wide());
    let second = |sim: &mut Sim, beating: &[u32]| {
        sim.now = sim.now.after(Millis(1000));
        beating.iter().for_each(|&n| drop(sim.beat(n, "", false)));
        sim.happen(Event::Tick);
    };
    for step in 0..3 {
        (0..10).for_each(|_| second(&mut sim, &[0, 1, 2]));
        sim.all_do(3, step);
    }
    // When a rank dies and the others, who are heard of, are in the midst of one
    sim.stream_lost(1);
    sim.exited(1, ProcessEnd::Signal(9));
    let mut waited = Vec::new();
    for seconds in 1..20 {
        second(&mut sim, &[0, 2]);
        let warnings = sim.warnings();
        if warnings.iter().any(|text| text.contains("did not leave")) {
            waited.push(seconds);
        }
    }
    // Then they are not given up before such a step is over
    assert_eq!(waited.first(), Some(&15));
}

#[test]
fn a_beginning_reads_as_it_did_before_anything_could_be_kept() {
    let sim = Sim::training_as(wide());
    let begins = |effect: &&Effect| matches!(effect, Effect::BeginGeneration(_));
    let effect = sim.effects.iter().find(begins).unwrap();
    assert_eq!(
        serde_json::to_string(effect).unwrap(),
        r#"{"effect":"begin_generation","number":7,"members":["worker-0","worker-1","worker-2"],"begins_at_step":0,"source":"seed","opening":{"evaluate":false,"snapshot":false,"finish":false},"shares":[1,1,1],"forward_parts":1}"#
    );
}
