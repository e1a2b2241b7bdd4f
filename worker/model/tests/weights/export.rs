//! Out again, as safetensors.

use std::collections::BTreeMap;

use model::weights;
use tch::{Device, Kind, Tensor};

use crate::{same_bits, same_tensors, written};

#[test]
fn safetensors_bytes_depend_on_names_and_values_only() {
    let named: Vec<(String, Tensor)> = weights::read(&written("forms.pth"))
        .unwrap()
        .tensors
        .into_iter()
        .collect();
    let mut turned: Vec<(String, Tensor)> = named
        .iter()
        .map(|(name, t)| (name.clone(), t.shallow_clone()))
        .collect();
    turned.reverse();
    let metadata: BTreeMap<String, String> = (0..20)
        .map(|k| (format!("key{k}"), format!("\"{k}\"\n")))
        .collect();

    let bytes = weights::to_safetensors(&named, &metadata).unwrap();
    let (tensors, read_metadata) = weights::from_safetensors(&bytes, "own").unwrap();

    assert_eq!(bytes, weights::to_safetensors(&turned, &metadata).unwrap());
    assert_eq!(read_metadata, metadata);
    same_tensors(&tensors, &named.into_iter().collect(), "own");
    // The library reads it, too, and every number lies where its type may be read in place.
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let start = bytes.as_ptr() as usize;
    for (name, view) in parsed.iter() {
        assert_eq!(
            (view.data().as_ptr() as usize - start) % (view.dtype().bitsize() / 8),
            0,
            "{name}"
        );
    }
}

#[test]
fn a_transposed_tensor_is_written_as_it_reads() {
    let turned = Tensor::arange(6, (Kind::Float, Device::Cpu))
        .reshape([2, 3])
        .tr();
    let bytes = weights::to_safetensors(
        &[("t".to_owned(), turned.shallow_clone())],
        &BTreeMap::new(),
    )
    .unwrap();
    let (read, _) = weights::from_safetensors(&bytes, "turned").unwrap();
    same_bits(&read["t"], &turned, "turned");
}

#[test]
fn a_name_given_twice_and_a_type_without_a_word_are_not_written() {
    let one = || {
        (
            "a".to_owned(),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        )
    };
    let complex = (
        "c".to_owned(),
        Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu)),
    );
    for (named, word) in [
        (vec![one(), one()], "twice"),
        (vec![complex], "ComplexFloat"),
    ] {
        let error = weights::to_safetensors(&named, &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
}
