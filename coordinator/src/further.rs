//! The figures beside the validation mAP: by averaged weights, and of training pictures (docs/train-vs-val-map.md).

use domain::average_precision::{MeanAveragePrecision, mean_average_precision};
use domain::labels::Labels;
use domain::run_plan::RunPlan;
use domain::score_table::Scored;
use domain::scores::ScoreError;
use domain::scoring::{Figure, Sheet, Way};
use domain::train_gap::{self, Gap};
use serde::{Deserialize, Serialize};

use crate::evaluation::Metrics;
use crate::online::{Collected, QUARTERS, quarters};

/// A figure beside the validation mAP, by the same definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Further {
    /// Which.
    pub figure: Figure,
    /// Of 1; `None` where no class is shown.
    pub map: Option<f64>,
    /// Over how many samples.
    pub samples: u32,
    /// `[classes]`; empty for a mean of several mAPs.
    pub per_class: Vec<Option<f64>>,
}

/// The training split, as far as its figures need it.
#[derive(Debug)]
pub struct TrainSide {
    /// Of every sample.
    pub labels: Labels,
    /// Which sample is trained on when.
    pub plan: RunPlan,
}

/// All further figures of an evaluation, in the order of [`Figure`].
///
/// # Errors
/// [`ScoreError`] naming the sample.
pub(crate) fn figures(
    sheet: &Sheet,
    scored: &Scored,
    train: Option<&TrainSide>,
    online: Option<(u32, Collected)>,
) -> Result<Vec<Further>, ScoreError> {
    let mut found = Vec::new();
    let mut still = None;
    for (way, rows) in sheet.ranges() {
        let figure = match way {
            Way::Val => continue,
            Way::ValAverage => Figure::ValAverage,
            Way::TrainClean => Figure::TrainClean,
            Way::TrainBatch => Figure::TrainBatch,
            Way::TrainCrops => Figure::TrainCrops,
            Way::TrainCropsBatch => Figure::TrainCropsBatch,
        };
        let part = scored.part(rows);
        found.push(one(figure, &part)?);
        if figure == Figure::TrainCropsBatch {
            still = Some(part);
        }
    }
    if let (Some(train), Some((epoch, collected))) = (train, online) {
        let labels = &train.labels;
        let all: Vec<u32> = (0..labels.samples()).collect();
        found.push(one(Figure::Online, &collected.of(&all, labels)?)?);
        if let Some(still) = still {
            let quarter_of = quarters(&train.plan, epoch);
            let last: Vec<u32> = all
                .into_iter()
                .filter(|sample| quarter_of[*sample as usize] + 1 == QUARTERS)
                .collect();
            let subset = sheet.train_samples();
            let moving = collected.of(subset, labels)?;
            found.push(one(
                Figure::OnlineLastQuarter,
                &collected.of(&last, labels)?,
            )?);
            found.push(one(Figure::OnlineSubset, &moving)?);
            // Row i of a part is the subset's i-th sample; online rows carry their sample ids.
            let quarter_of_row = |row: u32| quarter_of[subset[row as usize] as usize];
            let quarter_of_sample = |sample: u32| quarter_of[sample as usize];
            let figure = Figure::TrainCropsBatchQuarters;
            found.push(apart(figure, &still, quarter_of_row)?);
            let figure = Figure::OnlineSubsetQuarters;
            found.push(apart(figure, &moving, quarter_of_sample)?);
        }
    }
    found.sort_by_key(|further| further.figure);
    Ok(found)
}

/// How far clean training mAP is from validation mAP; `None` where it is not below, or was not taken: drawing again costs
/// time, and above is where it should be.
///
/// # Errors
/// [`ScoreError`] naming the sample.
pub(crate) fn gap(
    sheet: &Sheet,
    scored: &Scored,
    val: &Scored,
    metrics: &Metrics,
) -> Result<Option<Gap>, ScoreError> {
    let clean = metrics
        .further
        .iter()
        .find(|further| further.figure == Figure::TrainClean);
    let rows = sheet
        .ranges()
        .find_map(|(way, rows)| (way == Way::TrainClean).then_some(rows));
    let (Some(clean), Some(rows)) = (clean, rows) else {
        return Ok(None);
    };
    // Over the classes that both show: a rare one that only validation shows is no sign of anything.
    let pairs = clean
        .per_class
        .iter()
        .zip(&metrics.average_precision.per_class);
    let below: f64 = pairs
        .filter_map(|(train, val)| Some((*train)? - (*val)?))
        .sum();
    if below >= 0.0 {
        return Ok(None);
    }
    let part = scored.part(rows);
    train_gap::gap(
        (&part.matrix(), part.labels()),
        (&val.matrix(), val.labels()),
        0,
    )
}

fn one(figure: Figure, scored: &Scored) -> Result<Further, ScoreError> {
    let MeanAveragePrecision {
        map,
        per_class,
        samples,
        ..
    } = mean_average_precision(&scored.matrix(), scored.labels())?;
    Ok(Further {
        figure,
        map,
        samples,
        per_class,
    })
}

/// The mean of the mAPs of each quarter, ranked by itself.
fn apart(
    figure: Figure,
    scored: &Scored,
    quarter_of: impl Fn(u32) -> u32,
) -> Result<Further, ScoreError> {
    let classes = scored.labels().classes() as usize;
    let matrix = scored.matrix();
    let rows = || (0u32..).zip(scored.sample_ids());
    let (mut sum, mut count) = (0.0, 0u32);
    for quarter in 0..QUARTERS {
        let mine: Vec<u32> = rows()
            .filter(|(_, id)| quarter_of(**id) == quarter)
            .map(|(row, _)| row)
            .collect();
        let scores = mine
            .iter()
            .flat_map(|&row| &matrix.as_slice()[row as usize * classes..][..classes])
            .copied()
            .collect();
        let labels = scored
            .labels()
            .select(&mine)
            .expect("the rows are of this very matrix");
        if let Some(map) = one(figure, &Scored::new(mine, scores, labels)?)?.map {
            (sum, count) = (sum + map, count + 1);
        }
    }
    Ok(Further {
        figure,
        map: (count > 0).then(|| sum / f64::from(count)),
        samples: matrix.samples(),
        per_class: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
