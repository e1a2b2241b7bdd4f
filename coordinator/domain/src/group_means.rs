//! Average precision by group (COCO's supercategories): the mean over each group's classes, so that it shows where a model
//! is good or bad without reading a figure per class.

use serde::{Deserialize, Serialize};

use crate::average_precision::{MeanAveragePrecision, mean};

/// What the figures mean, to be printed beside them.
pub const DEFINITION: &str = "mAP of a group: mean over its classes with at least one positive; the mean over groups is not mAP, since groups differ in size";

/// One group's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupMean {
    /// The mean of its classes' average precision, a fraction of 1; `None` if none of them has a positive.
    pub map: Option<f64>,
    /// Classes that entered the mean.
    pub classes: u32,
    /// Labels of the group over all samples: a sample that shows two of its classes counts twice.
    pub support: u64,
}

/// The mean of each group; `groups` are class indices, and one beyond the figures is passed over.
#[must_use]
pub fn group_means<G: AsRef<[usize]>>(
    figures: &MeanAveragePrecision,
    groups: &[G],
) -> Vec<GroupMean> {
    groups
        .iter()
        .map(|group| {
            let classes = group.as_ref().iter();
            let known: Vec<f64> = classes
                .clone()
                .filter_map(|&class| figures.per_class.get(class).copied().flatten())
                .collect();
            GroupMean {
                map: mean(known.iter().copied()),
                // No more than there are classes, which are counted in u32.
                classes: known.len() as u32,
                support: classes
                    .filter_map(|&class| figures.support.get(class))
                    .map(|support| u64::from(*support))
                    .sum(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_mean_of_its_classes_that_anybody_shows() {
        let figures = MeanAveragePrecision {
            map: Some(0.5),
            per_class: vec![Some(0.2), None, Some(0.6), None],
            support: vec![3, 0, 5, 0],
            classes_without_positive: vec![1, 3],
            samples: 9,
            chance_map: None,
        };
        let means = group_means(&figures, &[vec![0, 1, 2], vec![3]]);
        assert_eq!(means[0].map, Some(0.4));
        assert_eq!((means[0].classes, means[0].support), (2, 8));
        assert_eq!((means[1].map, means[1].classes), (None, 0));
    }
}
