//! What a rank has computed of a step outlives the group that was to sum it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use nccl_rs::{BucketSizes, KeptGradients, ProcessGroup, Reducer, ReducerOptions};
use tch::{Device, Kind, Tensor};

use support::{Rank, on_ranks, on_ranks_watched, shares_memory};

const SIDE: i64 = 64;

fn parameters() -> Vec<Tensor> {
    (0..4)
        .map(|_| Tensor::ones([SIDE, SIDE], (Kind::Float, Device::Cpu)).set_requires_grad(true))
        .collect()
}

/// Its gradient is `value` in every element of every parameter.
fn loss(parameters: &[Tensor], value: f64) -> Tensor {
    let one = |parameter: &Tensor| (parameter * value).sum(Kind::Float);
    parameters.iter().map(one).sum()
}

fn buckets() -> BucketSizes {
    BucketSizes {
        first_bytes: 1,
        cap_bytes: 20_000,
    }
}

/// The one value that all elements of all of this rank's own gradients have.
fn own(reducer: &Reducer) -> f64 {
    value(&reducer.gradients().unwrap())
}

/// The one value that all elements of all sums have.
fn sum(reducer: &Reducer) -> f64 {
    value(&reducer.flat_sums().unwrap())
}

fn value(gradients: &[Tensor]) -> f64 {
    let all: Vec<f64> = gradients
        .iter()
        .flat_map(|gradient| [gradient.min(), gradient.max()])
        .map(|value| value.double_value(&[]))
        .collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
    all[0]
}

fn again(group: &ProcessGroup, parameters: &[Tensor], kept: &KeptGradients) -> Reducer {
    let options = ReducerOptions {
        kept: Some(kept),
        beside: None,
    };
    Reducer::with_options(group, parameters, buckets(), options).unwrap()
}

/// Gradients of its last two parameters come at once, those of the first two after more than a second.
fn endless_loss(parameters: &[Tensor]) -> Tensor {
    let slow = (0..60_000).fold(&parameters[0] + &parameters[1], |product, _| {
        product.matmul(&Tensor::eye(SIDE, (Kind::Float, Device::Cpu)))
    });
    slow.sum(Kind::Float) + loss(&parameters[2..], 1.0)
}

#[test]
fn survivors_of_a_death_in_the_reduction_keep_their_own_gradients_where_memory_is_shared() {
    let name =
        "survivors_of_a_death_in_the_reduction_keep_their_own_gradients_where_memory_is_shared";
    on_ranks_watched(name, 3, survive, |ranks| ranks.lose_the_last(3));
}

#[test]
fn the_last_survivor_keeps_its_gradients_too() {
    let name = "the_last_survivor_keeps_its_gradients_too";
    on_ranks_watched(name, 2, survive, |ranks| ranks.lose_the_last(2));
}

fn survive(rank: Rank) {
    let left = rank.world_size - 1;
    let group = rank.group("g1");
    let parameters = parameters();
    let reducer = Reducer::new(&group, &parameters, buckets()).unwrap();
    let mine = 1.0 + rank.rank as f64;
    reducer.zero_gradients().unwrap();
    reducer.accumulate(&loss(&parameters, mine)).unwrap();
    let here = format!("rank {} is there", rank.rank);
    if rank.rank == left {
        let loss = endless_loss(&parameters);
        let early = reducer.gradients().unwrap().pop().unwrap();
        std::thread::spawn(move || reducer.backward(&loss));
        while early.max().double_value(&[]) == mine {
            std::thread::yield_now();
        }
        rank.tell(&here);
        rank.wait_to_be_killed();
    }
    rank.tell(&here);
    let second = loss(&parameters, 10.0 * mine);
    reducer.backward(&second).unwrap_err();

    let kept = reducer.keep().unwrap();

    drop(reducer);
    drop(group);
    let group = rank.group_as("g2", rank.rank, left);
    if !shares_memory() {
        assert!(kept.is_none(), "sums over sockets are made in place");
        return;
    }
    let reducer = again(&group, &parameters, &kept.unwrap());
    assert!(reducer.has_resumed());
    assert_eq!(own(&reducer), 11.0 * mine);
    // One of them does what the dead had not handed over.
    if rank.rank == 0 {
        reducer.backward(&loss(&parameters, 100.0)).unwrap();
    } else {
        reducer.backward_zero().unwrap();
    }
    let all: f64 = (1..=left).map(|rank| 11.0 * rank as f64).sum();
    assert_eq!(sum(&reducer), all + 100.0);
    assert!(reducer.keep().unwrap().is_none(), "these are sums");
}

#[test]
fn gradients_that_were_added_up_before_the_reduction_are_kept() {
    on_ranks(
        "gradients_that_were_added_up_before_the_reduction_are_kept",
        2,
        |rank| {
            let parameters = parameters();
            let group = rank.group("g1");
            let reducer = Reducer::new(&group, &parameters, buckets()).unwrap();
            let mine = 1.0 + rank.rank as f64;
            reducer.zero_gradients().unwrap();
            reducer.accumulate(&loss(&parameters, mine)).unwrap();
            group.abort().unwrap();
            // The group is over; the pass counts nevertheless.
            reducer
                .backward(&loss(&parameters, 10.0 * mine))
                .unwrap_err();
            let kept = reducer.keep().unwrap().unwrap();
            drop(reducer);
            drop(group);

            let group = rank.group("g2");
            let reducer = again(&group, &parameters, &kept);
            assert!(reducer.has_resumed());
            assert_eq!(own(&reducer), 11.0 * mine);
            reducer.backward_zero().unwrap();
            assert_eq!(sum(&reducer), 33.0);
        },
    );
}

#[test]
fn gradients_that_are_gone_are_not_resumed() {
    on_ranks("gradients_that_are_gone_are_not_resumed", 2, |rank| {
        let parameters = parameters();
        let group = rank.group("g1");
        let reducer = Reducer::new(&group, &parameters, buckets()).unwrap();
        reducer.accumulate(&loss(&parameters, 1.0)).unwrap();
        let kept = reducer.keep().unwrap().unwrap();
        drop(reducer);
        drop(group);
        // Another layout.
        let group = rank.group("g2");
        let reducer = again(&group, &parameters[..3], &kept);
        assert!(!reducer.has_resumed());
        reducer.accumulate(&loss(&parameters[..3], 2.0)).unwrap();
        assert_eq!(own(&reducer), 2.0);
        drop(reducer);
        // A reducer of the same layout has begun anew in the same memory.
        drop(Reducer::new(&group, &parameters, buckets()).unwrap());
        let reducer = again(&group, &parameters, &kept);
        assert_eq!(reducer.has_resumed(), !shares_memory());
        reducer.accumulate(&loss(&parameters, 2.0)).unwrap();
        let expected = if shares_memory() { 2.0 } else { 3.0 };
        assert_eq!(own(&reducer), expected);
    });
}

#[test]
fn what_is_beside_the_gradients_is_summed_with_them() {
    let name = "what_is_beside_the_gradients_is_summed_with_them";
    on_ranks(name, 3, summed_beside);
}

#[test]
fn what_is_beside_the_gradients_of_one_rank_is_its_sum() {
    let name = "what_is_beside_the_gradients_of_one_rank_is_its_sum";
    on_ranks(name, 1, summed_beside);
}

fn summed_beside(rank: Rank) {
    let parameters = parameters();
    let group = rank.group("g1");
    let beside = Tensor::zeros([100], (Kind::Double, Device::Cpu));
    let options = ReducerOptions {
        kept: None,
        beside: Some(&beside),
    };
    let reducer = Reducer::with_options(&group, &parameters, buckets(), options).unwrap();
    for step in 1..4 {
        let mine = f64::from(step) + rank.rank as f64;
        let _ = beside.shallow_clone().fill_(mine);
        reducer.zero_gradients().unwrap();
        if rank.rank == 0 && step == 2 {
            reducer.backward_zero().unwrap();
        } else {
            reducer.backward(&loss(&parameters, mine)).unwrap();
        }
        let ranks = rank.world_size as f64;
        let sum = ranks * f64::from(step) + ranks * (ranks - 1.0) / 2.0;
        let gradients = if step == 2 { sum - 2.0 } else { sum };
        assert_eq!(self::sum(&reducer), gradients);
        let found = [beside.min(), beside.max()].map(|one| one.double_value(&[]));
        assert_eq!(found, [sum, sum]);
    }
}

#[test]
fn a_pass_that_broke_off_leaves_nothing_to_keep() {
    on_ranks("a_pass_that_broke_off_leaves_nothing_to_keep", 2, |rank| {
        let parameters = parameters();
        let group = rank.group("g1");
        let reducer = Reducer::new(&group, &parameters, buckets()).unwrap();
        // Backward cannot go through what it needs of the same graph twice.
        let used_up: Tensor = parameters
            .iter()
            .map(|one| (one * one).sum(Kind::Float))
            .sum();
        used_up.backward();
        reducer.zero_gradients().unwrap();
        reducer.accumulate(&used_up).unwrap_err();
        assert!(reducer.keep().unwrap().is_none());
        rank.tell(&format!("rank {} is done", rank.rank));
        rank.hear(&format!("rank {} is done", 1 - rank.rank));
    });
}
