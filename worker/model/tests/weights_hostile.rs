//! Weight files made to do harm: each ends in an error, quickly and without much memory, and none in a crash.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use model::weights::{self, WeightError};
use tch::{Device, Kind, Tensor};
use zip::write::SimpleFileOptions;

const STATE_DICT: &[u8] = b"\x80\x02}";

#[test]
fn a_million_nested_lists_do_not_overflow_the_stack() {
    let folder = Folder::new();
    let pickle = [
        b"\x80\x02".as_slice(),
        &b"]".repeat(1_000_000),
        &b"a".repeat(999_999),
        b".",
    ]
    .concat();
    refused(folder.zip(&[("a/data.pkl", &pickle)]), "holds a list");
    let pickle = [b"\x80\x02)".as_slice(), &b"\x85".repeat(1_000_000), b"."].concat();
    refused(folder.zip(&[("a/data.pkl", &pickle)]), "holds a list");
}

#[test]
fn dictionaries_that_hold_themselves_or_each_other_many_times_end() {
    let folder = Folder::new();
    // {"state_dict": itself}
    let itself = b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.";
    refused(folder.zip(&[("a/data.pkl", itself)]), "no tensors by name");
    // Thirty levels, each holding the one below a hundred times.
    let mut pickle = b"\x80\x02}q\x00".to_vec();
    for level in 0u8..30 {
        pickle.extend(b"}(");
        for entry in 0u8..100 {
            pickle.extend([b'U', 2, b'a' + entry % 26, b'a' + entry / 26, b'h', level]);
        }
        pickle.extend([b'u', b'q', level + 1]);
    }
    pickle.push(b'.');
    refused(folder.zip(&[("a/data.pkl", &pickle)]), "no tensors by name");
}

#[test]
fn more_values_and_tensors_than_any_model_has_are_refused() {
    let folder = Folder::new();
    let pickle = [STATE_DICT, &b"N".repeat(3_000_000), b"."].concat();
    refused(
        folder.zip(&[("a/data.pkl", &pickle)]),
        "holds more than 2000000 values",
    );
    // The function and its arguments from the memo, called again and again.
    let mut pickle = tensor("0", 1, 0, &[1], &[1]);
    let call = pickle.iter().rposition(|&byte| byte == b'R').unwrap();
    pickle.splice(call..call, *b"q\x09");
    let head = [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x08".as_slice(),
        &pickle,
    ]
    .concat();
    let pickle = [&head, b"h\x08h\x09R".repeat(200_000).as_slice(), b"."].concat();
    refused(
        folder.zip(&[("a/data.pkl", &pickle)]),
        "holds more than 100000 tensors",
    );
}

#[test]
fn tensors_that_reach_out_of_their_storage_are_refused() {
    let folder = Folder::new();
    let data = [0u8; 64];
    let far = i64::from(i32::MAX);
    for (elements, offset, shape, stride, reason) in [
        (
            16,
            1,
            vec![16],
            vec![1],
            "reaches past its storage of 16 values",
        ),
        (16, 0, vec![4, 4], vec![5, 1], "reaches past its storage"),
        (16, far, vec![1], vec![1], "reaches past its storage"),
        (
            17,
            0,
            vec![16],
            vec![1],
            "has 64 bytes, too few for 17 values",
        ),
        (16, 0, vec![far; 4], vec![0; 4], "past all memory"),
        (
            16,
            0,
            vec![far, far],
            vec![far, far],
            "reaches past its storage",
        ),
        (16, 0, vec![far, 1000], vec![0, 0], "unfolds to more than"),
        (16, 0, vec![0, far, far, far], vec![1; 4], "past all memory"),
        (16, -1, vec![1], vec![1], "not of whole numbers"),
        (16, 0, vec![-1], vec![1], "not of whole numbers"),
        (16, 0, vec![4], vec![1, 1], "differ in length"),
        (16, 0, vec![1; 17], vec![1; 17], "not of whole numbers"),
    ] {
        let pickle = named(&tensor("0", elements, offset, &shape, &stride));
        let path = folder.zip(&[("a/data.pkl", &pickle), ("a/data/0", &data)]);
        refused(path, reason);
    }
    let good = named(&tensor("0", 16, 3, &[2, 2], &[4, 1]));
    let file = weights::read(&folder.zip(&[("a/data.pkl", &good), ("a/data/0", &data)])).unwrap();
    assert_eq!(file.tensors["x"].size(), [2, 2]);
}

#[test]
fn storages_outside_the_archives_data_are_never_looked_for() {
    let folder = Folder::new();
    for key in ["../secret", "/etc/passwd", "", "0\n1", &"1".repeat(40)] {
        let pickle = named(&tensor(key, 1, 0, &[1], &[1]));
        refused(
            folder.zip(&[("a/data.pkl", &pickle), ("secret", &[0; 8])]),
            "describes a storage in an unknown way",
        );
    }
    refused(
        folder.zip(&[("a/data.pkl", &named(&tensor("7", 1, 0, &[1], &[1])))]),
        "entry a/data/7 cannot be read",
    );
}

#[test]
fn a_small_archive_that_unfolds_to_gigabytes_is_refused() {
    let folder = Folder::new();
    let zeros = vec![0u8; 200 << 20];
    let pickle = named(&tensor("0", 50 << 20, 0, &[50 << 20], &[1]));
    refused(
        folder.zip(&[("a/data.pkl", &pickle), ("a/data/0", &zeros)]),
        "unfolds to more than",
    );
    let long = vec![b'N'; 17 << 20];
    refused(folder.zip(&[("a/data.pkl", &long)]), "entry a/data.pkl has");
}

#[test]
fn every_instruction_that_could_make_an_object_names_what_it_wants() {
    let folder = Folder::new();
    for (pickle, wanted) in [
        (b"\x80\x02cposix\nsystem\n.".as_slice(), "posix.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"(S'id'\niposix\nsystem\n.", "posix.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor\n.",
            "torch._utils._rebuild_tensor",
        ),
        (
            b"\x80\x02\x82\x01.",
            "an entry of Python's extension registry",
        ),
        (b"\x80\x02cevil\x1b[2J\nname\n.", "evil\\u{1b}[2J.name"),
    ] {
        match weights::read(&folder.zip(&[("a/data.pkl", pickle)])) {
            Err(WeightError::Global { global, .. }) => assert_eq!(global, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
    refused(
        folder.zip(&[("a/data.pkl", b"\x80\x02ccollections\nOrderedDict\n)\x81.")]),
        "instruction 0x81",
    );
    refused(
        folder.zip(&[("a/data.pkl", b"\x80\x02P7\n.")]),
        "instruction 0x50",
    );
}

#[test]
fn cut_and_turned_bytes_give_errors_or_weights_and_never_a_crash() {
    let folder = Folder::new();
    let pickle = named(&tensor("0", 16, 3, &[2, 2], &[4, 1]));
    let zip =
        std::fs::read(folder.zip(&[("a/data.pkl", &pickle), ("a/data/0", &[7; 64])])).unwrap();
    let named = [(
        "x".to_owned(),
        Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)),
    )];
    let plain = weights::to_safetensors(&named, &BTreeMap::new()).unwrap();
    for (bytes, name) in [(zip, "damaged.pth"), (plain, "damaged.safetensors")] {
        let path = folder.0.path().join(name);
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = weights::read(&path)
                .expect_err("a cut file is no file")
                .to_string();
            assert!(error.contains(name), "{error}");
        }
        for at in 0..bytes.len() {
            for turn in [0x01, 0x80, 0xff] {
                let mut turned = bytes.clone();
                turned[at] ^= turn;
                std::fs::write(&path, &turned).unwrap();
                if let Err(error) = weights::read(&path) {
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
    }
    // The pickle alone, so that no checksum stands before it.
    for at in 0..pickle.len() {
        for turn in 1..=255u8 {
            let mut turned = pickle.clone();
            turned[at] ^= turn;
            if at % 16 == usize::from(turn % 16) {
                let _ =
                    weights::read(&folder.zip(&[("a/data.pkl", &turned), ("a/data/0", &[7; 64])]));
            }
        }
    }
}

#[test]
fn safetensors_headers_of_every_lie_are_refused() {
    for (header, data, reason) in [
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#,
            4,
            "which cannot be",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}}"#,
            0,
            "which cannot be",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#,
            0,
            "but 0 bytes",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            4,
            "which cannot be",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
            "no tensor claims the bytes 0 to 4 before a",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            9,
            "5 bytes behind its last tensor",
        ),
        (
            r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#,
            1,
            "tensor a is of type F8_E4M3",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            4,
            "not the JSON",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
            4,
            "17 dimensions",
        ),
        (
            r#"{"a\n":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4,
            "tensor a\\n has a very long name or control",
        ),
        (r#"{"__metadata__":{"a":1}}"#, 0, "not the JSON"),
        (r#"[]"#, 0, "not the JSON"),
    ] {
        let bytes = [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            &vec![0; data],
        ]
        .concat();
        let error = weights::from_safetensors(&bytes, "lie.safetensors")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(reason) && error.contains("lie.safetensors"),
            "{header}: {error}"
        );
    }
    let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
    let bytes = [&(deep.len() as u64).to_le_bytes(), deep.as_bytes()].concat();
    assert!(weights::from_safetensors(&bytes, "deep").is_err());
}

// Below: how.

struct Folder(tempfile::TempDir, std::cell::Cell<u32>);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), std::cell::Cell::new(0))
    }

    /// Deflated where it is long, as a bomb would be.
    fn zip(&self, entries: &[(&str, &[u8])]) -> PathBuf {
        self.1.set(self.1.get() + 1);
        let path = self.0.path().join(format!("{}.pth", self.1.get()));
        let mut writer = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in entries {
            let method = if bytes.len() > 1 << 20 {
                zip::CompressionMethod::Deflated
            } else {
                zip::CompressionMethod::Stored
            };
            writer
                .start_file(
                    *name,
                    SimpleFileOptions::default().compression_method(method),
                )
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        path
    }
}

fn refused(path: PathBuf, reason: &str) {
    let error = weights::read(&path).expect_err(reason).to_string();
    assert!(error.contains(reason), "{error:?} lacks {reason:?}");
    assert!(error.contains(&path.display().to_string()), "{error}");
}

/// `{"x": tensor}` as a whole pickle.
fn named(tensor: &[u8]) -> Vec<u8> {
    [STATE_DICT, b"X\x01\x00\x00\x00x", tensor, b"s."].concat()
}

/// What pickles `_rebuild_tensor_v2(storage, offset, shape, stride, False, OrderedDict())`.
fn tensor(key: &str, elements: i64, offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let mut bytes =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
            .to_vec();
    bytes.extend(
        [
            b"X".as_slice(),
            &(key.len() as u32).to_le_bytes(),
            key.as_bytes(),
            b"X\x03\x00\x00\x00cpu",
        ]
        .concat(),
    );
    bytes.extend(int(elements));
    bytes.extend(b"tQ");
    bytes.extend(int(offset));
    for sides in [shape, stride] {
        bytes.push(b'(');
        bytes.extend(sides.iter().flat_map(|&side| int(side)));
        bytes.push(b't');
    }
    bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    bytes
}

/// BININT where it fits, as Python does.
fn int(number: i64) -> Vec<u8> {
    [
        b"J".as_slice(),
        &i32::try_from(number).unwrap().to_le_bytes(),
    ]
    .concat()
}
