//! Each collective between real processes, against what it is defined to give.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use nccl_rs::{Error, ReduceOp};
use tch::{Device, Kind, Tensor};

use support::on_ranks;

#[test]
fn all_reduce_of_two_ranks_gives_the_exact_sum() {
    on_ranks("all_reduce_of_two_ranks_gives_the_exact_sum", 2, exact_sum);
}

#[test]
fn all_reduce_of_three_ranks_gives_the_exact_sum() {
    on_ranks(
        "all_reduce_of_three_ranks_gives_the_exact_sum",
        3,
        exact_sum,
    );
}

fn exact_sum(rank: support::Rank) {
    support::exact_sums(&rank.group("g1"), &rank, Device::Cpu);
}

#[test]
fn all_reduce_knows_product_least_and_greatest() {
    on_ranks("all_reduce_knows_product_least_and_greatest", 3, |rank| {
        let group = rank.group("g1");
        for (op, expected) in [
            (ReduceOp::Product, 24.0),
            (ReduceOp::Min, 2.0),
            (ReduceOp::Max, 4.0),
        ] {
            let own = Tensor::full([3], rank.rank as f64 + 2.0, (Kind::Double, Device::Cpu));

            group.all_reduce(&own, op).unwrap().wait().unwrap();

            assert_eq!(Vec::<f64>::try_from(&own).unwrap(), [expected; 3], "{op:?}");
        }
    });
}

#[test]
fn collectives_may_be_under_way_together_and_waited_for_in_any_order() {
    on_ranks(
        "collectives_may_be_under_way_together_and_waited_for_in_any_order",
        3,
        |rank| {
            let group = rank.group("g1");
            let tensors: Vec<Tensor> = (0..8)
                .map(|i| Tensor::full([5_000], i + rank.rank as i64, (Kind::Int64, Device::Cpu)))
                .collect();

            let works: Vec<_> = tensors
                .iter()
                .map(|one| group.all_reduce(one, ReduceOp::Sum).unwrap())
                .collect();
            for work in works.into_iter().rev() {
                work.wait().unwrap();
            }

            for (i, tensor) in tensors.iter().enumerate() {
                assert_eq!(tensor.min().int64_value(&[]), 3 * i as i64 + 3);
                assert_eq!(tensor.max().int64_value(&[]), 3 * i as i64 + 3);
            }
        },
    );
}

#[test]
fn broadcast_gives_everybody_what_the_root_had() {
    on_ranks("broadcast_gives_everybody_what_the_root_had", 3, |rank| {
        let group = rank.group("g1");
        for root in 0..3 {
            let own = Tensor::full([2, 513], rank.rank as f64, (Kind::Float, Device::Cpu));

            group.broadcast(&own, root).unwrap().wait().unwrap();

            assert_eq!(own.min().double_value(&[]), root as f64);
            assert_eq!(own.max().double_value(&[]), root as f64);
        }
    });
}

#[test]
fn all_gather_gives_one_entry_a_rank_in_order() {
    on_ranks("all_gather_gives_one_entry_a_rank_in_order", 3, |rank| {
        let group = rank.group("g1");
        let own = Tensor::from_slice(&[rank.rank as i64, 10]).view([1, 2]);

        let all = group.all_gather(&own).unwrap().wait().unwrap();

        assert_eq!(all.size(), [3, 1, 2]);
        assert_eq!(
            Vec::<i64>::try_from(all.view([-1])).unwrap(),
            [0, 10, 1, 10, 2, 10]
        );
    });
}

#[test]
fn all_gather_of_single_numbers() {
    on_ranks("all_gather_of_single_numbers", 2, |rank| {
        let group = rank.group("g1");

        let all = group
            .all_gather(&Tensor::from(rank.rank as i64))
            .unwrap()
            .wait()
            .unwrap();

        assert_eq!(Vec::<i64>::try_from(all).unwrap(), [0, 1]);
    });
}

#[test]
fn nobody_leaves_a_barrier_before_everybody_has_entered_it() {
    on_ranks(
        "nobody_leaves_a_barrier_before_everybody_has_entered_it",
        3,
        |rank| {
            let group = rank.group("g1");
            for round in 0..5 {
                rank.store_entered(round);

                group.barrier().unwrap().wait().unwrap();

                assert_eq!(rank.store_count(round), 3);
            }
        },
    );
}

trait Entered {
    fn store_entered(&self, round: usize);
    fn store_count(&self, round: usize) -> i64;
}

impl Entered for support::Rank {
    fn store_entered(&self, round: usize) {
        use nccl_rs::Store;
        self.store.add(&format!("entered {round}"), 1).unwrap();
    }

    fn store_count(&self, round: usize) -> i64 {
        use nccl_rs::Store;
        self.store.add(&format!("entered {round}"), 0).unwrap()
    }
}

#[test]
fn groups_may_follow_each_other_in_one_process() {
    on_ranks("groups_may_follow_each_other_in_one_process", 2, |rank| {
        for generation in ["g1", "g2", "g3"] {
            let group = rank.group(generation);
            let one = Tensor::ones([10], (Kind::Float, Device::Cpu));

            group
                .all_reduce(&one, ReduceOp::Sum)
                .unwrap()
                .wait()
                .unwrap();

            assert_eq!(one.sum(Kind::Float).double_value(&[]), 20.0);
            group.barrier().unwrap().wait().unwrap();
        }
    });
}

#[test]
fn a_group_says_who_it_is() {
    on_ranks("a_group_says_who_it_is", 2, |rank| {
        let group = rank.group("g1");

        assert_eq!(group.rank(), rank.rank);
        assert_eq!(group.world_size(), 2);
        assert_eq!(group.device(), Device::Cpu);
    });
}

#[test]
fn a_root_beyond_the_group_is_refused_and_the_group_lives_on() {
    on_ranks(
        "a_root_beyond_the_group_is_refused_and_the_group_lives_on",
        2,
        |rank| {
            let group = rank.group("g1");
            let tensor = Tensor::ones([1], (Kind::Float, Device::Cpu));

            let refusal = group.broadcast(&tensor, 2).unwrap_err();

            assert!(
                matches!(
                    refusal,
                    Error::NoSuchRank {
                        rank: 2,
                        world_size: 2
                    }
                ),
                "{refusal}"
            );
            group
                .all_reduce(&tensor, ReduceOp::Sum)
                .unwrap()
                .wait()
                .unwrap();
            assert_eq!(tensor.double_value(&[0]), 2.0);
        },
    );
}
