//! Scores of the validation split by (step, sample id) of the lineage, and the figures made of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::average_precision::MeanAveragePrecision;
use domain::calibration::Calibration;
use domain::labels::Labels;
use domain::multilabel::MultilabelFigures;
use domain::other_definitions::OtherDefinitions;
use domain::score_table::{ScoreTable, Scored};
use domain::scores::ScoreError;
use domain::scoring::{Sheet, Way};
use domain::thresholds::BestThresholds;
use domain::train_gap::Gap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::further::{self, Further, TrainSide};
use crate::online::Online;

pub mod json;
pub mod kept;
mod resumed;
pub(crate) mod scores_folder;

/// Labels predicted per picture for the second set of figures.
const TOP: u32 = 3;

/// The figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Per-class average precision and its mean.
    pub average_precision: MeanAveragePrecision,
    /// A label is predicted at p >= 0.5.
    pub at_threshold: MultilabelFigures,
    /// A label is predicted among the three highest of its picture.
    pub top3: MultilabelFigures,
    /// Samples left out because they could not be read, ascending.
    pub skipped: Vec<u32>,
    /// A label is predicted among the three highest of its picture where also p >= 0.5. This and what follows is `None` in
    /// the record of an older version.
    #[serde(default)]
    pub top3_at_threshold: Option<MultilabelFigures>,
    /// Whether probabilities mean what they say.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// The thresholds of highest F1, chosen on this split.
    #[serde(default)]
    pub best_thresholds: Option<BestThresholds>,
    /// mAP by definitions that are not ours.
    #[serde(default)]
    pub other_definitions: Option<OtherDefinitions>,
    /// Figures beside the validation mAP.
    #[serde(default)]
    pub further: Vec<Further>,
    /// How far clean training mAP is below validation mAP, where it is below.
    #[serde(default)]
    pub train_gap: Option<Gap>,
}

/// What computing the figures of an evaluation gave.
#[derive(Debug)]
pub struct Computed {
    /// Since the first score.
    pub took: Duration,
    /// The figures and the scores they are of, or why there are none.
    pub outcome: Result<(Metrics, Scored), ScoreError>,
}

/// One evaluation as the run's history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Steps committed before it.
    pub step: u64,
    /// The epoch that had ended, from 0.
    pub epoch: u32,
    /// The generation that scored it.
    pub generation: u64,
    /// From its step's commit to the figures, seconds; from the first scores where a coordinator before this one saw that.
    pub seconds: f64,
    /// The figures.
    pub metrics: Metrics,
}

/// What became of a batch of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Samples of this evaluation that are scored or skipped now.
    pub received: u32,
    /// Samples of the split.
    pub samples: u32,
    /// Whether these were the first.
    pub began: bool,
    /// Whether these completed the split: the figures are to be computed now, by whoever gets this.
    pub completed: bool,
    /// Whether it was complete before, so that nothing came of these.
    pub too_late: bool,
}

/// The evaluations of this process. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Evaluations {
    tables: Arc<Mutex<BTreeMap<u64, Table>>>,
    labels: Arc<Labels>,
    sheet: Arc<Sheet>,
    /// Of the training split, where its pictures are scored too.
    train: Option<Arc<TrainSide>>,
    online: Arc<Mutex<Online>>,
}

#[derive(Debug)]
struct Table {
    began: Instant,
    stage: Stage,
    done: watch::Sender<bool>,
}

#[derive(Debug)]
enum Stage {
    Gathering(ScoreTable),
    Computing,
    Done(Option<f64>),
}

impl Evaluations {
    /// For a split with these labels.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        Self {
            tables: Arc::default(),
            sheet: Arc::new(crate::scoring::sheet(None, labels.samples())),
            labels: Arc::new(labels),
            train: None,
            online: Arc::default(),
        }
    }

    /// For a run that scores more than its validation split, whose labels these are.
    ///
    /// # Errors
    /// [`domain::labels::NoSuchLabel`] if the sheet names a training sample that there is not.
    pub fn of_sheet(
        sheet: Sheet,
        val: Labels,
        train: TrainSide,
    ) -> Result<Self, domain::labels::NoSuchLabel> {
        let subset = train.labels.select(sheet.train_samples())?;
        let parts: Vec<&Labels> = sheet
            .parts()
            .iter()
            .map(|(way, _)| if way.is_of_training() { &subset } else { &val })
            .collect();
        Ok(Self {
            labels: Arc::new(Labels::stack(val.classes(), &parts)),
            train: sheet.online().then(|| Arc::new(train)),
            sheet: Arc::new(sheet),
            ..Self::new(Labels::new(0, 0))
        })
    }

    /// How a row is scored, and which sample of its split it is.
    #[must_use]
    pub fn place(&self, row: u32) -> Option<(Way, u32)> {
        self.sheet.place(row)
    }

    /// Takes scores of training steps of `epoch`; a run that does not want them drops them.
    ///
    /// # Errors
    /// [`ScoreError`] naming the sample.
    pub fn submit_online(
        &self,
        epoch: u32,
        sample_ids: &[u32],
        logits: &[f32],
    ) -> Result<(), ScoreError> {
        let Some(train) = &self.train else {
            return Ok(());
        };
        // A panic while holding the lock leaves rows that are still whole.
        let mut online = self.online.lock().unwrap_or_else(PoisonError::into_inner);
        online.submit(epoch, sample_ids, logits, &train.labels)
    }

    /// Takes scores `[sample_ids, classes]` and samples to leave out. What is known already stays as it is.
    ///
    /// # Errors
    /// [`ScoreError`] naming the sample; what came before it in this batch is kept, which a retry does not change.
    pub fn submit(
        &self,
        step: u64,
        sample_ids: &[u32],
        logits: &[f32],
        skipped: &[u32],
    ) -> Result<Receipt, ScoreError> {
        let (samples, classes) = (self.labels.samples(), self.labels.classes());
        if logits.len() as u64 != sample_ids.len() as u64 * u64::from(classes) {
            let (found, samples) = (
                logits.len(),
                u32::try_from(sample_ids.len()).unwrap_or(u32::MAX),
            );
            return Err(ScoreError::WrongShape {
                found,
                samples,
                classes,
            });
        }
        let mut tables = self.lock();
        let began = !tables.contains_key(&step);
        let table = tables.entry(step).or_insert_with(|| Table {
            began: Instant::now(),
            stage: Stage::Gathering(ScoreTable::new(samples, classes)),
            done: watch::Sender::new(false),
        });
        let Stage::Gathering(scores) = &mut table.stage else {
            return Ok(Receipt {
                received: samples,
                samples,
                began: false,
                completed: false,
                too_late: true,
            });
        };
        for (&sample, row) in sample_ids
            .iter()
            .zip(logits.chunks_exact((classes as usize).max(1)))
        {
            scores.insert(sample, row)?;
        }
        for &sample in skipped {
            scores.skip(sample)?;
        }
        let received = scores.scored_count() + scores.skipped_count();
        Ok(Receipt {
            received,
            samples,
            began,
            completed: received == samples,
            too_late: false,
        })
    }

    /// The first evaluation that is complete and whose figures nobody computes yet.
    #[must_use]
    pub fn first_complete(&self) -> Option<u64> {
        let tables = self.lock();
        let complete = |table: &Table| matches!(&table.stage, Stage::Gathering(scores) if scores.is_complete());
        let mut found = tables.iter().filter(|(_, table)| complete(table));
        found.next().map(|(step, _)| *step)
    }

    /// Computes the figures of a complete evaluation; `None` if someone else does or did. Takes a while: call it from
    /// a blocking task, and [`Evaluations::conclude`] with what came out.
    #[must_use]
    pub fn compute(&self, step: u64) -> Option<Computed> {
        let (began, scores) = {
            let mut tables = self.lock();
            let table = tables.get_mut(&step)?;
            match std::mem::replace(&mut table.stage, Stage::Computing) {
                Stage::Gathering(scores) if scores.is_complete() => (table.began, scores),
                other => {
                    table.stage = other;
                    return None;
                }
            }
        };
        let outcome = scores.finish(&self.labels).and_then(|scored| {
            let metrics = self.all_figures(step, &scored, &scores.skipped())?;
            Ok((metrics, scored.part(0..self.val_rows())))
        });
        Some(Computed {
            took: began.elapsed(),
            outcome,
        })
    }

    /// The first rows of the scores: those of the validation split.
    fn val_rows(&self) -> u32 {
        self.sheet.parts().first().map_or(0, |(_, rows)| *rows)
    }

    /// The figures of the validation split, and what else there is.
    fn all_figures(
        &self,
        step: u64,
        scored: &Scored,
        skipped: &[u32],
    ) -> Result<Metrics, ScoreError> {
        let val_rows = self.val_rows();
        let of_val = skipped.iter().copied().filter(|row| *row < val_rows);
        let val = scored.part(0..val_rows);
        let mut metrics = figures(&val, of_val.collect())?;
        let online = self.train.as_ref().and_then(|train| {
            let epoch = train.plan.ended_epoch(step)?;
            let mut online = self.online.lock().unwrap_or_else(PoisonError::into_inner);
            Some((epoch, online.take(epoch)?))
        });
        metrics.further = further::figures(&self.sheet, scored, self.train.as_deref(), online)?;
        metrics.train_gap = further::gap(&self.sheet, scored, &val, &metrics)?;
        Ok(metrics)
    }

    /// Marks an evaluation as done and wakes those who wait for its mAP.
    pub fn conclude(&self, step: u64, map: Option<f64>) {
        if let Some(table) = self.lock().get_mut(&step) {
            table.stage = Stage::Done(map);
            table.done.send_replace(true);
        }
    }

    /// The mAP of the state after `step` steps: waits for it if all its scores are here, and is `None` if they are not.
    pub async fn map_of(&self, step: u64) -> Option<f64> {
        let mut done = {
            let tables = self.lock();
            let table = tables.get(&step)?;
            match &table.stage {
                Stage::Gathering(scores) if !scores.is_complete() => return None,
                Stage::Done(map) => return *map,
                Stage::Gathering(_) | Stage::Computing => table.done.subscribe(),
            }
        };
        // An error means that the table is gone: a new generation voided it.
        let _ = done.wait_for(|done| *done).await;
        match &self.lock().get(&step)?.stage {
            Stage::Done(map) => *map,
            _ => None,
        }
    }

    /// A generation begins with the state after `steps_done` steps: scores of states beyond are void. What survivors of
    /// older generations scored up to there is of the same lineage, and stays.
    pub fn begin_generation(&self, steps_done: u64) {
        self.lock().retain(|step, _| *step <= steps_done);
    }

    /// The samples that lack a score of the state after `step` steps, ascending.
    #[must_use]
    pub fn unscored(&self, step: u64) -> Vec<u32> {
        match self.lock().get(&step).map(|table| &table.stage) {
            None => (0..self.labels.samples()).collect(),
            Some(Stage::Gathering(scores)) => scores.unscored(),
            Some(Stage::Computing | Stage::Done(_)) => Vec::new(),
        }
    }

    /// Samples of the split.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.labels.samples()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Table>> {
        // A panic while holding the lock leaves a table that is still whole: rows are written one by one.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All figures of finished scores.
///
/// # Errors
/// [`ScoreError::NotANumber`] naming the sample.
pub fn figures(scored: &Scored, skipped: Vec<u32>) -> Result<Metrics, ScoreError> {
    let all = domain::figures::figures(&scored.matrix(), scored.labels(), TOP)?;
    Ok(Metrics {
        average_precision: all.average_precision,
        at_threshold: all.multilabel.at_threshold,
        top3: all.multilabel.top_k,
        skipped,
        top3_at_threshold: Some(all.multilabel.top_k_at_threshold),
        calibration: Some(all.calibration),
        best_thresholds: Some(all.best_thresholds),
        other_definitions: Some(all.other_definitions),
        further: Vec::new(),
        train_gap: None,
    })
}

/// The labels of a split as bits.
///
/// # Errors
/// [`domain::labels::NoSuchLabel`] if the split contradicts its own number of classes.
pub fn labels_of(split: &data::coco::Split) -> Result<Labels, domain::labels::NoSuchLabel> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut labels = Labels::new(count(split.samples.len()), count(split.num_classes));
    for (sample, picture) in (0u32..).zip(&split.samples) {
        for &class in &picture.labels {
            labels.insert(sample, u32::from(class))?;
        }
    }
    Ok(labels)
}
