//! Writing the scores of every validation image into the run directory, for the last and the best evaluation; the files'
//! format and reading are in [`super::kept`].

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data::coco::Dataset;
use domain::retention::{Checkpoint, Retention, retain};
use domain::score_table::Scored;
use safetensors::tensor::{Dtype, TensorView};

use super::kept::{ABOUT, About, BEST, KeptError, LAST, VERSION};
use crate::run_dir::{is_half_written, write_whole};

/// The folder `scores/` of a run that is being served. Its functions block.
#[derive(Debug)]
pub(crate) struct ScoresFolder {
    path: PathBuf,
    run_id: String,
    dataset: Arc<Dataset>,
    /// One at a time changes what is in it.
    changing: Mutex<()>,
}

impl ScoresFolder {
    pub(crate) fn new(run_dir: &Path, run_id: &str, dataset: Arc<Dataset>) -> Self {
        Self {
            path: run_dir.join("scores"),
            run_id: run_id.to_owned(),
            dataset,
            changing: Mutex::new(()),
        }
    }

    /// Writes the scores of the state after `step` steps; durable when this returns. No link leads to it yet.
    pub(crate) fn write(
        &self,
        step: u64,
        epoch: u32,
        scored: &Scored,
        skipped: &[u32],
    ) -> Result<(), KeptError> {
        let bytes = self.bytes(step, epoch, scored, skipped);
        let path = self.path.join(file_name(step));
        let failed = |action| {
            let path = path.clone();
            move |source| KeptError::Io {
                action,
                path,
                source,
            }
        };
        let bytes = bytes.map_err(|problem| KeptError::Content {
            path: path.clone(),
            problem,
        })?;
        fs::create_dir_all(&self.path).map_err(failed("make the folder of"))?;
        {
            let _one_at_a_time = self.one_at_a_time();
            write_whole(&path, &bytes).map_err(failed("write"))?;
        }
        let folder = File::open(&self.path).map_err(failed("open the folder of"))?;
        folder.sync_all().map_err(failed("flush the folder of"))
    }

    fn one_at_a_time(&self) -> MutexGuard<'_, ()> {
        // Nothing is held across a panic that could be half done: each file and link moves in one step.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Points `last` and `best` to where the (step, mAP) that `evaluations` returns say, and removes older files that
    /// neither needs, and half-written ones. Newer ones are of an evaluation that is not recorded yet.
    pub(crate) fn settle(
        &self,
        evaluations: impl FnOnce() -> Vec<(u64, Option<f64>)>,
    ) -> io::Result<()> {
        let _one_at_a_time = self.one_at_a_time();
        let known: Vec<_> = evaluations()
            .into_iter()
            .map(|(steps_done, map)| Checkpoint {
                steps_done,
                map,
                named: false,
            })
            .collect();
        let Retention {
            last, best, keep, ..
        } = retain(&known, NonZeroU32::MIN);
        for (link, step) in [(LAST, last), (BEST, best)] {
            let target = step
                .map(file_name)
                .filter(|name| self.path.join(name).exists());
            self.point(link, target.as_deref())?;
        }
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Ok(());
        };
        for entry in entries {
            let path = entry?.path();
            let old = step_of(&path)
                .is_some_and(|step| !keep.contains(&step) && last.is_some_and(|last| step < last));
            // What a coordinator that was killed was writing.
            let half = path
                .file_name()
                .is_some_and(|name| is_half_written(&name.to_string_lossy()));
            if old || half {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn point(&self, link: &str, target: Option<&str>) -> io::Result<()> {
        let (link, new) = (self.path.join(link), self.path.join(format!(".{link}.new")));
        match target {
            Some(target) if fs::read_link(&link).is_ok_and(|now| now == Path::new(target)) => {
                Ok(())
            }
            Some(target) => {
                gone(fs::remove_file(&new))?;
                symlink(target, &new)?;
                fs::rename(&new, &link)
            }
            None => gone(fs::remove_file(&link)),
        }
    }

    fn bytes(
        &self,
        step: u64,
        epoch: u32,
        scored: &Scored,
        skipped: &[u32],
    ) -> Result<Vec<u8>, String> {
        let (matrix, labels) = (scored.matrix(), scored.labels());
        let (images, classes) = (labels.samples() as usize, labels.classes() as usize);
        let split = &self.dataset.val;
        let image_id = |sample: &u32| {
            let image = split.samples.get(*sample as usize);
            image.map_or(-1, |image| i64::try_from(image.image_id).unwrap_or(-1))
        };
        let whole = |ids: &mut dyn Iterator<Item = i64>| -> Vec<u8> {
            ids.flat_map(i64::to_le_bytes).collect()
        };
        let ids = scored.sample_ids();
        let sample_ids = whole(&mut ids.iter().map(|id| i64::from(*id)));
        let image_ids = whole(&mut ids.iter().map(image_id));
        let left_out = whole(&mut skipped.iter().map(|id| i64::from(*id)));
        let logits: Vec<u8> = matrix
            .as_slice()
            .iter()
            .flat_map(|logit| logit.to_le_bytes())
            .collect();
        let mut shown = vec![0u8; images * classes];
        for (sample, row) in (0u32..).zip(shown.chunks_mut(classes.max(1))) {
            labels.of(sample).for_each(|class| row[class as usize] = 1);
        }
        let about = About {
            version: VERSION,
            run_id: self.run_id.clone(),
            step,
            epoch: epoch + 1,
            annotations: split.annotation_file.display().to_string(),
            classes: class_names(&self.dataset),
            groups: groups_of(&self.dataset),
        };
        let about = serde_json::to_string(&about).map_err(|error| error.to_string())?;
        let tensor = |dtype, shape: Vec<usize>, bytes| {
            TensorView::new(dtype, shape, bytes).map_err(|error| error.to_string())
        };
        let tensors = [
            (
                "logits",
                tensor(Dtype::F32, vec![images, classes], &logits)?,
            ),
            ("labels", tensor(Dtype::U8, vec![images, classes], &shown)?),
            ("sample_ids", tensor(Dtype::I64, vec![images], &sample_ids)?),
            ("image_ids", tensor(Dtype::I64, vec![images], &image_ids)?),
            (
                "skipped",
                tensor(Dtype::I64, vec![skipped.len()], &left_out)?,
            ),
        ];
        let header = HashMap::from([(ABOUT.to_owned(), about)]);
        safetensors::serialize(tensors, Some(header)).map_err(|error| error.to_string())
    }
}

/// Class names in class order.
pub(crate) fn class_names(dataset: &Dataset) -> Vec<String> {
    let classes = dataset.classes.iter();
    classes.map(|class| class.name.clone()).collect()
}

/// (name, class indices) of each group.
pub(crate) fn groups_of(dataset: &Dataset) -> Vec<(String, Vec<usize>)> {
    let groups = dataset.groups.iter();
    groups
        .map(|group| (group.name.clone(), group.classes.clone()))
        .collect()
}

fn file_name(step: u64) -> String {
    format!("step-{step:08}.safetensors")
}

fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("step-")?
        .strip_suffix(".safetensors")?
        .parse()
        .ok()
}

/// That something to be removed is not there is fine.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use domain::labels::Labels;
    use domain::score_table::ScoreTable;

    use super::*;
    use crate::evaluation::kept::{KeptScores, best_scores, last_scores};

    fn dataset() -> Arc<Dataset> {
        use data::coco::{Class, Group, Sample, Split};
        let split = Split {
            name: "val".into(),
            annotation_file: "/data/val.json".into(),
            image_dir: "/data/val".into(),
            num_classes: 2,
            samples: (0..3u64)
                .map(|n| Sample {
                    image_id: 100 + n,
                    file_name: format!("{n}.jpg"),
                    labels: Box::default(),
                })
                .collect(),
            unlabelled: 0,
            dropped: 0,
            warnings: Vec::new(),
        };
        let class = |name: &str| Class {
            name: name.into(),
            coco_id: 1,
            group: 0,
        };
        Arc::new(Dataset {
            classes: vec![class("cat"), class("dog")],
            groups: vec![Group {
                name: "animal".into(),
                classes: vec![0, 1],
            }],
            train: split.clone(),
            val: split,
        })
    }

    fn folder(run_dir: &Path) -> ScoresFolder {
        ScoresFolder::new(run_dir, "abc", dataset())
    }

    /// The second of three images was left out.
    fn scored(first: f32) -> Scored {
        let labels = Labels::from_lists(2, &[vec![1], vec![], vec![0, 1]]).unwrap();
        let mut table = ScoreTable::new(3, 2);
        table.insert(0, &[first, -0.25]).unwrap();
        table.skip(1).unwrap();
        table.insert(2, &[f32::NEG_INFINITY, 7.5]).unwrap();
        table.finish(&labels).unwrap()
    }

    #[test]
    fn what_was_kept_is_read_back_to_the_bit() {
        let run_dir = tempfile::tempdir().unwrap();
        let folder = folder(run_dir.path());
        folder.write(7, 0, &scored(1.5), &[1]).unwrap();
        folder.settle(|| vec![(7, Some(0.5))]).unwrap();

        let kept = KeptScores::read(&last_scores(run_dir.path())).unwrap();
        assert_eq!((kept.about.step, kept.about.epoch), (7, 1));
        assert_eq!(kept.about.classes, ["cat", "dog"]);
        assert_eq!(kept.about.groups, [("animal".to_owned(), vec![0, 1])]);
        assert_eq!(kept.sample_ids, [0, 2]);
        assert_eq!(kept.image_ids, [100, 102]);
        assert_eq!(kept.skipped, [1]);
        assert_eq!(kept.logits, [1.5, -0.25, f32::NEG_INFINITY, 7.5]);
        assert_eq!(&kept.labels, scored(1.5).labels());
        assert_eq!(
            kept,
            KeptScores::read(&best_scores(run_dir.path())).unwrap()
        );
    }

    #[test]
    fn the_last_and_the_best_stay_and_nothing_that_is_not_recorded_yet_goes() {
        let run_dir = tempfile::tempdir().unwrap();
        let folder = folder(run_dir.path());
        let mut recorded = Vec::new();
        for (step, map) in [(1, 0.2), (2, 0.6), (3, 0.4), (4, 0.5)] {
            folder
                .write(step, step as u32, &scored(step as f32), &[1])
                .unwrap();
            recorded.push((step, Some(map)));
            if step == 3 {
                // The next one's scores are there before its figures are recorded
                folder.write(4, 4, &scored(4.0), &[1]).unwrap();
            }
            let now = recorded.clone();
            folder.settle(|| now).unwrap();
        }
        let step = |path: &Path| KeptScores::read(path).unwrap().about.step;
        assert_eq!(step(&last_scores(run_dir.path())), 4);
        assert_eq!(step(&best_scores(run_dir.path())), 2);
        let files = fs::read_dir(run_dir.path().join("scores")).unwrap();
        assert_eq!(files.count(), 4, "two files, two links");

        // When the run goes on from before the best, whose evaluation is void
        folder.settle(|| vec![(1, Some(0.2))]).unwrap();
        assert!(matches!(
            KeptScores::read(&best_scores(run_dir.path())),
            Err(KeptError::Missing { .. })
        ));
    }

    #[test]
    fn nothing_half_written_stays() {
        let run_dir = tempfile::tempdir().unwrap();
        let scores = run_dir.path().join("scores");
        let folder = folder(run_dir.path());
        let files = || -> Vec<_> {
            let entries = fs::read_dir(&scores).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        // Given a place where no file can be put
        fs::create_dir_all(scores.join("step-00000007.safetensors/in-the-way")).unwrap();
        let refused = folder.write(7, 0, &scored(1.5), &[1]).unwrap_err();
        assert!(matches!(refused, KeptError::Io { .. }), "{refused}");
        assert_eq!(files(), ["step-00000007.safetensors"]);

        // And what a coordinator was writing when it was killed
        fs::write(scores.join(".step-00000008.safetensors.new"), "half").unwrap();
        folder.settle(|| vec![(7, Some(0.5))]).unwrap();
        let half = |name: &std::ffi::OsString| is_half_written(&name.to_string_lossy());
        assert!(!files().iter().any(half), "{:?}", files());
    }

    #[test]
    fn a_file_that_is_cut_off_or_of_another_version_is_refused_with_its_name() {
        let run_dir = tempfile::tempdir().unwrap();
        let folder = folder(run_dir.path());
        folder.write(7, 0, &scored(1.5), &[1]).unwrap();
        let path = run_dir.path().join("scores/step-00000007.safetensors");
        let whole = fs::read(&path).unwrap();
        for cut in [0, 7, 8, 100, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            let problem = KeptScores::read(&path).unwrap_err().to_string();
            assert!(
                problem.contains("step-00000007.safetensors: is no file of scores"),
                "{problem}"
            );
        }
        let other = String::from_utf8_lossy(&whole).find("version").unwrap();
        let mut newer = whole.clone();
        // `version\":1` in the header's JSON text.
        let digit = other
            + newer[other..]
                .iter()
                .position(|byte| *byte == b'1')
                .unwrap();
        newer[digit] = b'9';
        fs::write(&path, &newer).unwrap();
        let problem = KeptScores::read(&path).unwrap_err().to_string();
        assert!(problem.contains("of version 9"), "{problem}");
    }
}
