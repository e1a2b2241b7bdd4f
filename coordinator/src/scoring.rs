//! What an evaluation scores, on the wire.

use domain::scoring::{Sheet, Way};
use proto::v1::scoring::Way as WireWay;
use proto::v1::{Scoring, ScoringSpec};

/// The sheet as workers are told of it.
#[must_use]
pub fn spec(sheet: &Sheet) -> ScoringSpec {
    let part = |&(way, rows): &(Way, u32)| Scoring {
        way: match way {
            Way::Val => WireWay::Val,
            Way::ValAverage => WireWay::ValAverage,
            Way::TrainClean => WireWay::TrainClean,
            Way::TrainBatch => WireWay::TrainBatch,
            Way::TrainCrops => WireWay::TrainCrops,
            Way::TrainCropsBatch => WireWay::TrainCropsBatch,
        }
        .into(),
        rows,
    };
    ScoringSpec {
        parts: sheet.parts().iter().map(part).collect(),
        train_samples: sheet.train_samples().to_vec(),
        online: sheet.online(),
    }
}

/// The sheet that workers were told of; a spec without one means the validation split of `val_samples` alone.
#[must_use]
pub fn sheet(spec: Option<&ScoringSpec>, val_samples: u32) -> Sheet {
    let Some(spec) = spec.filter(|spec| !spec.parts.is_empty()) else {
        return Sheet::from_parts(vec![(Way::Val, val_samples)], Vec::new(), false);
    };
    let part = |part: &Scoring| {
        let way = match part.way() {
            WireWay::ValAverage => Way::ValAverage,
            WireWay::TrainClean => Way::TrainClean,
            WireWay::TrainBatch => Way::TrainBatch,
            WireWay::TrainCrops => Way::TrainCrops,
            WireWay::TrainCropsBatch => Way::TrainCropsBatch,
            WireWay::Val | WireWay::Unspecified => Way::Val,
        };
        (way, part.rows)
    };
    Sheet::from_parts(
        spec.parts.iter().map(part).collect(),
        spec.train_samples.clone(),
        spec.online,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::scoring::TrainFigures;

    #[test]
    fn a_sheet_comes_back_from_the_wire_as_it_was() {
        for figures in [
            TrainFigures::Off,
            TrainFigures::On,
            TrainFigures::Decomposed,
        ] {
            let told = Sheet::new(3, 7, true, figures, (20, 5));
            assert_eq!(sheet(Some(&spec(&told)), 7), told);
        }
        assert_eq!(sheet(None, 9).rows(), 9);
    }
}
