//! Peers that die, hang or leave: every survivor is told at once, and goes on in the same process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::thread;
use std::time::Instant;

use nccl_rs::{BucketSizes, Error, ProcessGroup, ReduceOp, Reducer, Work};
use tch::{Device, Kind, Tensor};

use support::{KILLED, PROMPTLY, Rank, Ranks, on_ranks, on_ranks_watched, summed};

#[test]
fn a_killed_peer_fails_a_waiting_all_reduce_within_a_second() {
    let name = "a_killed_peer_fails_a_waiting_all_reduce_within_a_second";
    on_ranks_watched(name, 3, survive_in_all_reduce, |ranks| {
        ranks.lose_the_last(3)
    });
}

/// In a ring of five, two survivors have no connection in use with the dead one.
#[test]
fn a_killed_peer_fails_those_who_do_not_talk_to_it_too() {
    let name = "a_killed_peer_fails_those_who_do_not_talk_to_it_too";
    on_ranks_watched(name, 5, survive_in_all_reduce, |ranks| {
        ranks.lose_the_last(5)
    });
}

fn survive_in_all_reduce(rank: Rank) {
    let group = rank.group("g1");
    let tensor = Tensor::ones([100_000], (Kind::Float, Device::Cpu));
    if rank.rank + 1 == rank.world_size {
        rank.tell(&format!("rank {} is there", rank.rank));
        rank.wait_to_be_killed();
    }
    let work = group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
    rank.tell(&format!("rank {} is there", rank.rank));

    let error = work.wait().unwrap_err();

    told_promptly(&rank, &error);
    drop(group);
    survivors_go_on(&rank);
}

#[test]
fn a_killed_peer_fails_a_backward_pass_within_a_second() {
    on_ranks_watched(
        "a_killed_peer_fails_a_backward_pass_within_a_second",
        3,
        |rank| {
            let group = rank.group("g1");
            let parameters = parameters();
            let reducer = Reducer::new(&group, &parameters, small_buckets()).unwrap();
            // The peer dies between two steps, when all of the group's connections are in use.
            reducer.backward(&loss(&parameters)).unwrap();
            rank.tell(&format!("rank {} is there", rank.rank));
            if rank.rank == 2 {
                rank.wait_to_be_killed();
            }

            let error = reducer.backward(&loss(&parameters)).unwrap_err();

            told_promptly(&rank, &error);
            drop(reducer);
            drop(group);
            let group = survivors_go_on(&rank);
            let reducer = Reducer::new(&group, &parameters, small_buckets()).unwrap();
            reducer.backward(&loss(&parameters)).unwrap();
            let gradient = summed(&reducer, &parameters)[0]
                .sum(Kind::Float)
                .double_value(&[]);
            assert_eq!(
                gradient,
                2.0 * 64.0 * 64.0,
                "one from each survivor and element"
            );
        },
        |ranks| ranks.lose_the_last(3),
    );
}

/// So much takes longer to go over sockets than a process to be killed.
const MUCH: i64 = 64 << 20;

/// Gloo does not wake who waits for a message of which a part has gone.
#[test]
fn a_peer_killed_in_the_middle_of_a_broadcast_costs_nobody_more_than_a_moment() {
    on_ranks_watched(
        "a_peer_killed_in_the_middle_of_a_broadcast_costs_nobody_more_than_a_moment",
        3,
        |rank| survive_in_the_middle(&rank, |group, tensor| group.broadcast(tensor, 0)),
        |ranks| ranks.lose_the_last(3),
    );
}

#[test]
fn a_peer_killed_in_the_middle_of_an_all_reduce_costs_nobody_more_than_a_moment() {
    on_ranks_watched(
        "a_peer_killed_in_the_middle_of_an_all_reduce_costs_nobody_more_than_a_moment",
        3,
        |rank| {
            survive_in_the_middle(&rank, |group, tensor| {
                group.all_reduce(tensor, ReduceOp::Sum)
            });
        },
        |ranks| ranks.lose_the_last(3),
    );
}

/// The last rank is killed when a part of the collective's result is there; the others leave it when they are told.
fn survive_in_the_middle(
    rank: &Rank,
    collective: impl Fn(&ProcessGroup, &Tensor) -> Result<Work, Error>,
) {
    let group = rank.group("g1");
    let there = format!("rank {} is there", rank.rank);
    let tensor = Tensor::full([MUCH], rank.rank as f64, (Kind::Float, Device::Cpu));
    if rank.rank + 1 == rank.world_size {
        let _work = collective(&group, &tensor).unwrap();
        while tensor.narrow(0, 0, 1).double_value(&[0]) == rank.rank as f64 {
            thread::yield_now();
        }
        rank.tell(&there);
        rank.wait_to_be_killed();
    }
    rank.tell(&there);
    thread::scope(|scope| {
        scope.spawn(|| {
            rank.hear(KILLED);
            group.abort().unwrap();
        });
        // Who needs nothing of the dead one has its result.
        let _ = collective(&group, &tensor).and_then(Work::wait);
    });
    drop(group);
    let after = rank.since(KILLED);
    assert!(after < PROMPTLY, "rank {} left after {after:?}", rank.rank);
    survivors_go_on(rank);
}

fn told_promptly(rank: &Rank, error: &Error) {
    let after = rank.since(KILLED);
    assert!(matches!(error, Error::Collective { .. }), "{error}");
    assert!(
        after < PROMPTLY,
        "rank {} was told after {after:?}: {error}",
        rank.rank
    );
}

/// All but the last form a new group in their old processes and use it.
fn survivors_go_on(rank: &Rank) -> ProcessGroup {
    let left = rank.world_size - 1;
    let group = rank.group_as("g2", rank.rank, left);
    let tensor = Tensor::ones([1], (Kind::Float, Device::Cpu));
    group
        .all_reduce(&tensor, ReduceOp::Sum)
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(tensor.double_value(&[0]), left as f64);
    group
}

/// Rank 1 stands still; rank 0, which waits for it, is freed by another of its threads.
fn stop_the_second(mut ranks: Ranks) {
    ranks.hear("rank 1 is there");
    ranks.stop(1);
    ranks.store_stopped();
    ranks.succeeds(0);
    ranks.kill(1);
    ranks.was_killed(1);
}

impl Ranks {
    fn store_stopped(&self) {
        self.tell_the_time("stopped");
    }
}

#[test]
fn abort_from_another_thread_frees_a_wait_for_a_stopped_peer() {
    on_ranks_watched(
        "abort_from_another_thread_frees_a_wait_for_a_stopped_peer",
        2,
        |rank| {
            let group = rank.group("g1");
            if rank.rank == 1 {
                rank.tell("rank 1 is there");
                rank.wait_to_be_killed();
            }
            rank.hear("stopped");
            let tensor = Tensor::ones([100_000], (Kind::Float, Device::Cpu));
            let work = group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
            let error = aborted_while(&group, || work.wait().unwrap_err());

            assert!(matches!(error, Error::Aborted { .. }), "{error}");
        },
        stop_the_second,
    );
}

#[test]
fn abort_from_another_thread_frees_a_backward_pass_with_a_stopped_peer() {
    on_ranks_watched(
        "abort_from_another_thread_frees_a_backward_pass_with_a_stopped_peer",
        2,
        |rank| {
            let group = rank.group("g1");
            let parameters = parameters();
            let reducer = Reducer::new(&group, &parameters, small_buckets()).unwrap();
            reducer.backward(&loss(&parameters)).unwrap();
            if rank.rank == 1 {
                rank.tell("rank 1 is there");
                rank.wait_to_be_killed();
            }
            rank.hear("stopped");
            let error = aborted_while(&group, || reducer.backward(&loss(&parameters)).unwrap_err());

            assert!(matches!(error, Error::Aborted { .. }), "{error}");
        },
        stop_the_second,
    );
}

/// Runs `wait` while another thread aborts the group, and checks that it ends soon after.
fn aborted_while(group: &ProcessGroup, wait: impl FnOnce() -> Error) -> Error {
    thread::scope(|scope| {
        let abort = scope.spawn(|| {
            let at = Instant::now();
            group.abort().unwrap();
            at
        });
        let error = wait();
        let ended = Instant::now();
        let after = ended.saturating_duration_since(abort.join().unwrap());
        assert!(after < PROMPTLY, "freed {after:?} after the abort");
        error
    })
}

#[test]
fn dropping_a_group_in_a_collective_takes_bounded_time_and_tells_the_peer() {
    on_ranks(
        "dropping_a_group_in_a_collective_takes_bounded_time_and_tells_the_peer",
        2,
        |rank| {
            let group = rank.group("g1");
            let tensor = Tensor::ones([100_000], (Kind::Float, Device::Cpu));
            if rank.rank == 0 {
                // The peer starts its half only when this one is gone.
                let work = group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
                let began = Instant::now();
                drop(group);
                drop(work);
                assert!(
                    began.elapsed() < PROMPTLY,
                    "dropping took {:?}",
                    began.elapsed()
                );
                rank.tell("dropped");
            } else {
                rank.hear("dropped");
                let outcome = group
                    .all_reduce(&tensor, ReduceOp::Sum)
                    .and_then(nccl_rs::Work::wait);
                assert!(
                    matches!(outcome, Err(Error::Collective { .. })),
                    "{outcome:?}"
                );
            }
        },
    );
}

#[test]
fn dropping_a_group_before_its_reducer_ends_the_reducers_work() {
    on_ranks(
        "dropping_a_group_before_its_reducer_ends_the_reducers_work",
        2,
        |rank| {
            let group = rank.group("g1");
            let parameters = parameters();
            let reducer = Reducer::new(&group, &parameters, small_buckets()).unwrap();

            drop(group);

            let error = reducer.backward(&loss(&parameters)).unwrap_err();
            assert!(matches!(error, Error::Aborted { .. }), "{error}");
        },
    );
}

#[test]
fn after_a_failure_the_group_refuses_and_names_the_first_cause() {
    on_ranks_watched(
        "after_a_failure_the_group_refuses_and_names_the_first_cause",
        2,
        |rank| {
            let group = rank.group("g1");
            let tensor = Tensor::ones([1], (Kind::Float, Device::Cpu));
            rank.tell(&format!("rank {} is there", rank.rank));
            if rank.rank == 1 {
                rank.wait_to_be_killed();
            }
            let first = group
                .all_reduce(&tensor, ReduceOp::Sum)
                .and_then(nccl_rs::Work::wait);
            let Err(Error::Collective { message, .. }) = first else {
                panic!("expected a failed collective, got {first:?}")
            };

            let later = group.barrier().unwrap_err();

            assert!(
                matches!(&later, Error::Aborted { reason, .. } if *reason == message),
                "{later}"
            );
        },
        |ranks| ranks.lose_the_last(2),
    );
}

#[test]
fn a_backward_pass_that_fails_on_one_rank_ends_it_on_the_other() {
    on_ranks(
        "a_backward_pass_that_fails_on_one_rank_ends_it_on_the_other",
        2,
        |rank| {
            let group = rank.group("g1");
            let parameters = parameters();
            let reducer = Reducer::new(&group, &parameters, small_buckets()).unwrap();
            let mut loss = loss(&parameters);
            if rank.rank == 0 {
                // Backward cannot go through the same graph twice.
                loss.backward();
            }
            let error = reducer.backward(&loss).unwrap_err();
            loss = Tensor::new();
            drop(loss);
            if rank.rank == 0 {
                assert!(matches!(error, Error::Torch { .. }), "{error}");
            } else {
                assert!(matches!(error, Error::Collective { .. }), "{error}");
            }
        },
    );
}

fn parameters() -> Vec<Tensor> {
    (0..4)
        .map(|_| Tensor::ones([64, 64], (Kind::Float, Device::Cpu)).set_requires_grad(true))
        .collect()
}

/// Its gradient is 1 in every element of every parameter.
fn loss(parameters: &[Tensor]) -> Tensor {
    parameters
        .iter()
        .map(|one| (one * one.detach()).sum(Kind::Float))
        .sum()
}

fn small_buckets() -> BucketSizes {
    BucketSizes {
        first_bytes: 1,
        cap_bytes: 20_000,
    }
}
