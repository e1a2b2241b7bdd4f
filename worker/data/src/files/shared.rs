//! Pictures that both splits have: a model that trained on them is not judged by them.
//!
//! The check is cheap: every file is asked for its size, and only files of both splits that are of one size are read, the
//! last bytes first (a JPEG's last bytes are coded pixels, which no two pictures have in common) and whole where those are
//! equal. Each is read so once and known by a digest from then on: a set of icons or of placeholders, all of one size, would
//! else cost as many reads as it has pairs. A picture that was coded anew is found only by its name: the same file name and
//! image id on both sides.

use crate::coco::{Sample, Split};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes at a file's end that are compared before the whole is.
const TAIL: u64 = 4096;
/// How many are named.
const NAMED: usize = 3;

/// What both splits have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedPictures {
    /// Files of the same bytes: (training, validation).
    pub same_bytes: Vec<(PathBuf, PathBuf)>,
    /// Others with the same file name and image id.
    pub same_name: Vec<String>,
}

impl SharedPictures {
    /// What people are told, if there is something to tell.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let count = self.same_bytes.len() + self.same_name.len();
        if count == 0 {
            return None;
        }
        let bytes = self
            .same_bytes
            .iter()
            .map(|(train, val)| format!("{} is {}", val.display(), train.display()));
        let names = self
            .same_name
            .iter()
            .map(|name| format!("{name} is listed in both with one image id"));
        let named: Vec<String> = bytes.chain(names).take(NAMED).collect();
        let more = if count > NAMED { ", …" } else { "" };
        Some(format!(
            "{count} validation pictures are training pictures too ({}{more}): validation mAP is too high by what the model \
             remembers of them; take them out of one annotation file",
            named.join(", ")
        ))
    }
}

/// Compares the files of two splits. Files that cannot be read are passed over: the check of the pictures tells of them.
#[must_use]
pub fn shared_pictures(train: &Split, val: &Split) -> SharedPictures {
    let size = |split: &Split, sample: &Sample| {
        let path = split.image_dir.join(&sample.file_name);
        let size = std::fs::metadata(&path).ok()?.len();
        (size > 0).then_some((size, path))
    };
    let mut found = SharedPictures::default();
    let mut twins = Twins::default();
    let mut names = BTreeMap::new();
    for sample in &val.samples {
        names.insert(sample.file_name.as_str(), sample.image_id);
        if let Some((size, path)) = size(val, sample) {
            twins.by_size.entry(size).or_default().push(path);
        }
    }
    for sample in &train.samples {
        let twin = size(train, sample)
            .and_then(|(size, path)| twins.of(size, &path).map(|twin| (path, twin)));
        if let Some(twin) = twin {
            found.same_bytes.push(twin);
        } else if names.get(sample.file_name.as_str()) == Some(&sample.image_id) {
            found.same_name.push(sample.file_name.clone());
        }
    }
    found
}

/// Files of one split by what is known of them: no more is read of them than another split's files ask for.
#[derive(Default)]
struct Twins {
    by_size: BTreeMap<u64, Vec<PathBuf>>,
    /// By size, then by the digest of the last bytes.
    by_tail: HashMap<u64, HashMap<u128, Vec<PathBuf>>>,
    /// By size and digest of the last bytes, then by that of all.
    by_whole: HashMap<(u64, u128), HashMap<u128, PathBuf>>,
}

impl Twins {
    /// A file of the same bytes.
    fn of(&mut self, size: u64, path: &Path) -> Option<PathBuf> {
        let candidates = self.by_size.get(&size)?;
        let tails = self.by_tail.entry(size).or_insert_with(|| {
            let mut tails: HashMap<u128, Vec<PathBuf>> = HashMap::new();
            for candidate in candidates {
                if let Ok(tail) = digest(candidate, TAIL) {
                    tails.entry(tail).or_default().push(candidate.clone());
                }
            }
            tails
        });
        let tail = digest(path, TAIL).ok()?;
        let candidates = tails.get(&tail)?;
        let wholes = self.by_whole.entry((size, tail)).or_insert_with(|| {
            let mut wholes = HashMap::new();
            for candidate in candidates {
                if let Ok(whole) = digest(candidate, size) {
                    wholes.entry(whole).or_insert_with(|| candidate.clone());
                }
            }
            wholes
        });
        let twin = wholes.get(&digest(path, size).ok()?)?;
        same_bytes(path, twin)
            .unwrap_or(false)
            .then(|| twin.clone())
    }
}

/// Digest of a file's last `length` bytes.
fn digest(path: &Path, length: u64) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(length)))?;
    Ok(xxh3_128(&read(&mut file)?))
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(read(&mut File::open(a)?)? == read(&mut File::open(b)?)?)
}

fn read(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn split(name: &str, dir: &Path, files: &[(&str, u64, &[u8])]) -> Split {
        let image_dir = dir.join(name);
        std::fs::create_dir_all(&image_dir).unwrap();
        let samples = files
            .iter()
            .map(|(file, image_id, bytes)| {
                std::fs::write(image_dir.join(file), bytes).unwrap();
                Sample {
                    image_id: *image_id,
                    file_name: (*file).to_owned(),
                    labels: Box::default(),
                }
            })
            .collect();
        Split {
            name: name.to_owned(),
            annotation_file: PathBuf::new(),
            image_dir,
            num_classes: 1,
            samples,
            unlabelled: 0,
            dropped: 0,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_same_bytes_under_another_name_are_found_and_the_same_size_alone_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let long = vec![7; 3 * TAIL as usize];
        let mut other = long.clone();
        other[0] = 8; // equal at the end only
        let train = split(
            "train",
            dir.path(),
            &[
                ("a.jpg", 1, b"abc"),
                ("b.jpg", 2, b"xyz"),
                ("c.jpg", 3, &long),
            ],
        );
        let val = split(
            "val",
            dir.path(),
            &[
                ("q.jpg", 9, b"xyz"),
                ("r.jpg", 8, b"abd"),
                ("s.jpg", 7, &other),
            ],
        );

        let found = shared_pictures(&train, &val);

        let pair = (train.image_dir.join("b.jpg"), val.image_dir.join("q.jpg"));
        assert_eq!(found.same_bytes, [pair]);
        assert!(found.same_name.is_empty());
        let warning = found.warning().unwrap();
        assert!(
            warning.starts_with("1 validation pictures are training"),
            "{warning}"
        );
    }

    #[test]
    fn each_of_many_files_of_one_size_finds_its_own_twin() {
        // given files that differ at the end, and files that differ only before their last bytes
        let dir = tempfile::tempdir().unwrap();
        let content = |n: u8, at: usize| {
            let mut bytes = vec![7; 2 * TAIL as usize];
            bytes[at] = n;
            bytes
        };
        let end = 2 * TAIL as usize - 1;
        let contents: Vec<Vec<u8>> = (20..40)
            .flat_map(|n| [content(n, 0), content(n, end)])
            .collect();
        let names: Vec<String> = (0..contents.len()).map(|n| format!("{n}.jpg")).collect();
        let files = |skipped: usize, id: u64| -> Vec<(&str, u64, &[u8])> {
            let all = names.iter().zip(&contents).zip(id..).skip(skipped);
            all.map(|((name, bytes), id)| (name.as_str(), id, bytes.as_slice()))
                .collect()
        };
        // when the training split lacks the first three
        let train = split("train", dir.path(), &files(3, 100));
        let val = split("val", dir.path(), &files(0, 0));
        let found = shared_pictures(&train, &val);
        // then all others are found, each with itself
        assert_eq!(found.same_bytes.len(), contents.len() - 3);
        for (train, val) in &found.same_bytes {
            assert_eq!(train.file_name(), val.file_name());
        }
    }

    #[test]
    fn a_picture_that_was_coded_anew_is_known_by_its_name_and_id() {
        let dir = tempfile::tempdir().unwrap();
        let train = split(
            "train",
            dir.path(),
            &[("1.jpg", 1, b"ab"), ("2.jpg", 2, b"cd")],
        );
        let val = split(
            "val",
            dir.path(),
            &[("1.jpg", 1, b"abc"), ("2.jpg", 5, b"cde")],
        );
        let found = shared_pictures(&train, &val);
        assert_eq!(found.same_name, ["1.jpg"]);
        assert!(found.same_bytes.is_empty());
    }

    #[test]
    fn splits_apart_and_files_that_are_missing_are_nothing_to_tell() {
        let dir = tempfile::tempdir().unwrap();
        let train = split("train", dir.path(), &[("1.jpg", 1, b"ab")]);
        let val = split("val", dir.path(), &[("2.jpg", 2, b"cd")]);
        std::fs::remove_file(val.image_dir.join("2.jpg")).unwrap();
        assert_eq!(shared_pictures(&train, &val).warning(), None);
    }
}
