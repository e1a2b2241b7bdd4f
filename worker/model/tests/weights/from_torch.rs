//! What PyTorch writes.

use std::collections::BTreeMap;

use model::Graph;
use model::weights::{self, FileKind, Foreign, Scope, WeightError, plan_match};
use tch::Kind;

use crate::{same_bits, same_tensors, small, written};

#[test]
fn every_form_of_tensor_that_torch_saves_is_read_bit_for_bit() {
    let expected = weights::read(&written("forms.safetensors")).unwrap();
    assert_eq!(
        (expected.tensors.len(), expected.kind),
        (13, FileKind::Safetensors)
    );
    assert_eq!(
        expected.metadata,
        [("a", "1"), ("b", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    );
    for name in ["forms.pth", "forms-protocol-4.pth", "forms-deflated.pth"] {
        let file = weights::read(&written(name)).unwrap();
        assert_eq!(file.kind, FileKind::TorchZip);
        same_tensors(&file.tensors, &expected.tensors, name);
    }
}

#[test]
fn a_data_parallel_checkpoint_with_an_optimizer_fits_the_trunk() {
    let expected = weights::read(&written("trunk.safetensors")).unwrap();
    let model = small(Graph::None);

    let file = weights::read(&written("trunk.pth.tar")).unwrap();
    let report = plan_match(&model.shapes().unwrap(), &file, Scope::Trunk).unwrap();

    same_tensors(&file.tensors, &expected.tensors, "trunk.pth.tar");
    assert_eq!(report.matched.len(), 120);
    assert_eq!(report.left_out, ["fc.bias", "fc.weight"]);
    assert!(report.unused.is_empty() && report.defaulted.is_empty());
    assert_eq!(
        report.to_string(),
        "120 tensors matched, 2 left out (fc.bias, fc.weight)"
    );
    let notes = [
        "found under state_dict",
        "prefix module. taken off",
        "120 names of torchvision's trunk translated to features.*",
    ];
    assert_eq!(file.notes, notes);
}

#[test]
fn what_timm_writes_fits_the_trunk_and_another_stem_is_refused_with_its_names() {
    let wanted = small(Graph::None).shapes().unwrap();

    let file = weights::read(&written("timm.safetensors")).unwrap();
    let report = plan_match(&wanted, &file, Scope::Trunk).unwrap();
    assert_eq!(
        report.to_string(),
        "120 tensors matched, 2 left out (fc.bias, fc.weight)"
    );

    let file = weights::read(&written("timm-deep-stem.safetensors")).unwrap();
    let refused = plan_match(&wanted, &file, Scope::Trunk).unwrap_err();
    assert!(
        refused.to_string().contains("features.0.weight"),
        "{refused}"
    );
}

#[test]
fn a_file_without_counts_starts_them_at_0_and_they_are_exported_again() {
    let mut model = small(Graph::None);

    let file = weights::read(&written("trunk-deep.pth")).unwrap();
    let report = plan_match(&model.shapes().unwrap(), &file, Scope::Trunk).unwrap();
    model.import(&file.tensors).unwrap();
    let bytes = weights::to_safetensors(&model.export().unwrap(), &BTreeMap::new()).unwrap();
    let (exported, _) = weights::from_safetensors(&bytes, "exported").unwrap();

    assert_eq!((report.matched.len(), report.defaulted.len()), (100, 20));
    let count = &exported["features.1.num_batches_tracked"];
    assert_eq!(
        (count.kind(), count.size(), count.int64_value(&[])),
        (Kind::Int64, vec![], 0)
    );
    same_bits(
        &exported["features.7.1.conv2.weight"],
        &file.tensors["features.7.1.conv2.weight"],
        "imported",
    );
}

#[test]
fn what_torch_saves_that_is_no_weights_is_refused_with_its_name() {
    for (name, global) in [
        ("namespace.pth", "argparse.Namespace"),
        ("numpy.pth", "numpy._core.multiarray.scalar"),
        ("module.pth", "torch.nn.modules.linear.Linear"),
        ("module-legacy.pth", "torch.nn.modules.linear.Linear"),
    ] {
        match weights::read(&written(name)) {
            Err(WeightError::Global { global: wanted, .. }) => assert_eq!(wanted, global, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, what) in [
        ("forms-legacy.pth", Foreign::LegacyPickle),
        ("script.pt", Foreign::TorchScript),
    ] {
        match weights::read(&written(name)) {
            Err(WeightError::Foreign { what: found, .. }) => assert_eq!(found, what, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, reason) in [
        ("list.pth", "it holds a list without names"),
        ("nothing.pth", "it holds no tensors by name"),
        (
            "two.pth",
            "several dictionaries of tensors (student, teacher)",
        ),
    ] {
        let error = weights::read(&written(name)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
}
