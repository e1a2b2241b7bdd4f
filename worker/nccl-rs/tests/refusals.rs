//! What is refused before any peer notices, and what a store's failure becomes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nccl_rs::{
    Error, GlooOptions, NcclOptions, ProcessGroup, ReduceOp, Store, StoreError,
    nccl_unavailable_reason,
};
use tch::{Device, Kind, Tensor};

use support::options;

fn alone() -> ProcessGroup {
    ProcessGroup::gloo(Arc::new(Memory::default()), 0, 1, options()).unwrap()
}

#[test]
fn tensors_that_no_collective_can_take_are_refused_by_name() {
    let group = alone();
    let refusal = |tensor: &Tensor| group.all_reduce(tensor, ReduceOp::Sum).unwrap_err();
    let floats = || Tensor::ones([4, 4], (Kind::Float, Device::Cpu));

    assert!(matches!(
        refusal(&Tensor::new()),
        Error::UndefinedTensor { .. }
    ));
    assert!(matches!(
        refusal(&floats().to_sparse_sparse_dim(2)),
        Error::NotDense { .. }
    ));
    assert!(matches!(
        refusal(&floats().transpose(0, 1).slice(0, 0, 3, 2)),
        Error::NotContiguous { .. }
    ));
    assert!(matches!(
        refusal(&floats().to_kind(Kind::ComplexFloat)),
        Error::UnsupportedKind {
            kind: Kind::ComplexFloat,
            ..
        }
    ));
    assert!(matches!(
        refusal(&floats().to_kind(Kind::Bool)),
        Error::UnsupportedKind {
            kind: Kind::Bool,
            ..
        }
    ));
    group
        .all_reduce(&floats(), ReduceOp::Sum)
        .unwrap()
        .wait()
        .unwrap();
}

#[test]
fn a_group_of_one_keeps_its_values() {
    let group = alone();
    let tensor = Tensor::from_slice(&[1.5f64, -2.0]);

    group
        .all_reduce(&tensor, ReduceOp::Sum)
        .unwrap()
        .wait()
        .unwrap();
    group.broadcast(&tensor, 0).unwrap().wait().unwrap();
    let all = group.all_gather(&tensor).unwrap().wait().unwrap();
    group.barrier().unwrap().wait().unwrap();

    assert_eq!(Vec::<f64>::try_from(all.view([-1])).unwrap(), [1.5, -2.0]);
}

#[test]
fn empty_tensors_pass() {
    let group = alone();
    let empty = Tensor::zeros([0], (Kind::Float, Device::Cpu));

    group
        .all_reduce(&empty, ReduceOp::Sum)
        .unwrap()
        .wait()
        .unwrap();
    group.broadcast(&empty, 0).unwrap().wait().unwrap();
    assert_eq!(
        group.all_gather(&empty).unwrap().wait().unwrap().size(),
        [1, 0]
    );
}

#[test]
fn impossible_ranks_and_timeouts_are_refused() {
    let create = |rank, world_size, timeout| {
        let options = GlooOptions {
            timeout,
            ..options()
        };
        ProcessGroup::gloo(Arc::new(Memory::default()), rank, world_size, options).unwrap_err()
    };
    let second = Duration::from_secs(1);

    assert!(matches!(
        create(0, 0, second),
        Error::NoSuchRank {
            rank: 0,
            world_size: 0
        }
    ));
    assert!(matches!(
        create(3, 3, second),
        Error::NoSuchRank {
            rank: 3,
            world_size: 3
        }
    ));
    assert!(matches!(
        create(0, 1, Duration::ZERO),
        Error::InvalidTimeout { .. }
    ));
}

#[test]
fn an_address_that_is_not_this_machines_is_an_error() {
    // Reserved for documentation, so no machine has it.
    let options = GlooOptions {
        bind: [192, 0, 2, 1].into(),
        ..options()
    };

    let error = ProcessGroup::gloo(Arc::new(Memory::default()), 0, 1, options).unwrap_err();

    assert!(matches!(error, Error::Creation { .. }), "{error}");
}

#[test]
fn nccl_without_cuda_says_so() {
    let Some(reason) = nccl_unavailable_reason() else {
        println!("skipped: this machine has cuda");
        return;
    };
    let options = NcclOptions {
        compress_gradients: false,
        timeout: Duration::from_secs(1),
        device: 0,
    };

    let error = ProcessGroup::nccl(Arc::new(Memory::default()), 0, 1, options).unwrap_err();

    assert!(matches!(error, Error::NcclUnavailable { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!("the nccl backend is not available: {reason}; use gloo, which trains on cpu")
    );
}

#[test]
fn an_error_of_the_store_comes_back_as_it_was() {
    let store = Broken(|| {
        Err(StoreError::Failed {
            operation: "get",
            key: "k".into(),
            source: "the coordinator is away".into(),
        })
    });

    let error = ProcessGroup::gloo(Arc::new(store), 0, 2, options()).unwrap_err();

    let Error::Rendezvous {
        source: StoreError::Failed { source, .. },
        ..
    } = &error
    else {
        panic!("expected the store's error, got {error}")
    };
    assert_eq!(source.to_string(), "the coordinator is away");
    assert!(
        error
            .to_string()
            .starts_with("rank 0 of 2 could not form a gloo process group")
    );
}

#[test]
fn a_panic_of_the_store_is_caught_and_told() {
    let store = Broken(|| panic!("index 7 is out of bounds"));

    let error = ProcessGroup::gloo(Arc::new(store), 0, 2, options()).unwrap_err();

    let Error::Rendezvous {
        source: StoreError::Panicked { message, .. },
        ..
    } = &error
    else {
        panic!("expected the panic, got {error}")
    };
    assert_eq!(message, "index 7 is out of bounds");
}

#[test]
fn a_peer_that_never_arrives_is_a_timeout() {
    let store = Memory::default();
    let options = GlooOptions {
        timeout: Duration::from_millis(200),
        ..options()
    };

    let error = ProcessGroup::gloo(Arc::new(store), 0, 2, options).unwrap_err();

    assert!(
        matches!(
            &error,
            Error::Rendezvous {
                source: StoreError::Timeout { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn every_refusal_is_a_lowercase_sentence_without_a_full_stop() {
    let group = alone();
    let errors = [
        group.all_reduce(&Tensor::new(), ReduceOp::Sum).unwrap_err(),
        group.broadcast(&Tensor::from(1.0), 5).unwrap_err(),
        Error::NoParameters,
        Error::NotAParameter { index: 3 },
        Error::ParameterWithoutGradient { index: 3 },
        Error::UnfinishedReduction {
            rank: 0,
            world_size: 2,
        },
    ];
    for error in errors {
        let text = error.to_string();
        assert!(
            text.starts_with(|c: char| c.is_lowercase()) && !text.ends_with('.'),
            "{text}"
        );
    }
}

/// A store of this process alone.
#[derive(Default)]
struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl Store for Memory {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.0.lock().unwrap().insert(key.into(), value.into());
        Ok(())
    }

    /// What is not there now never comes: there is nobody else.
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        let absent = || StoreError::Timeout {
            key: key.into(),
            waited: timeout,
        };
        self.0.lock().unwrap().get(key).cloned().ok_or_else(absent)
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        let mut table = self.0.lock().unwrap();
        let value = table.entry(key.into()).or_default();
        let sum = String::from_utf8_lossy(value).parse().unwrap_or(0) + amount;
        *value = sum.to_string().into_bytes();
        Ok(sum)
    }

    fn check(&self, keys: &[&str]) -> Result<bool, StoreError> {
        let table = self.0.lock().unwrap();
        Ok(keys.iter().all(|key| table.contains_key(*key)))
    }

    fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), StoreError> {
        keys.iter()
            .try_for_each(|key| self.get(key, timeout).map(drop))
    }

    fn compare_set(&self, key: &str, _: &[u8], desired: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.set(key, desired)?;
        Ok(desired.into())
    }

    fn delete_key(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().remove(key).is_some())
    }

    fn num_keys(&self) -> Result<i64, StoreError> {
        Ok(self.0.lock().unwrap().len() as i64)
    }
}

/// A store that takes everything and gives nothing back but what its function says.
struct Broken(fn() -> Result<Vec<u8>, StoreError>);

impl Store for Broken {
    fn set(&self, _: &str, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn get(&self, _: &str, _: Duration) -> Result<Vec<u8>, StoreError> {
        (self.0)()
    }

    fn add(&self, _: &str, amount: i64) -> Result<i64, StoreError> {
        Ok(amount)
    }

    fn check(&self, _: &[&str]) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn wait(&self, _: &[&str], _: Duration) -> Result<(), StoreError> {
        (self.0)().map(drop)
    }

    fn compare_set(&self, _: &str, _: &[u8], _: &[u8]) -> Result<Vec<u8>, StoreError> {
        (self.0)()
    }

    fn delete_key(&self, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn num_keys(&self) -> Result<i64, StoreError> {
        Ok(0)
    }
}
