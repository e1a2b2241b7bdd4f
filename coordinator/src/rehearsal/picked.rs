//! The few samples that a probe trains on and scores: those a real run would begin with.

use data::coco::{Dataset, Sample, Split};
use domain::run_plan::RunPlan;

/// A data set of `train` training and `val` validation samples, classes and folders as they are.
///
/// Training samples are in the order in which the run meets them, and come again where the split has fewer. Validation
/// samples are spread evenly over theirs.
pub(crate) fn picked(dataset: &Dataset, plan: &RunPlan, train: usize, val: usize) -> Dataset {
    let of_split = |split: &Split, samples: Vec<Sample>| Split {
        samples,
        warnings: Vec::new(),
        name: split.name.clone(),
        annotation_file: split.annotation_file.clone(),
        image_dir: split.image_dir.clone(),
        num_classes: split.num_classes,
        unlabelled: split.unlabelled,
        dropped: split.dropped,
    };
    let order = (0..).flat_map(|epoch| {
        let epoch = plan.epoch_plan(epoch);
        (0..plan.steps_per_epoch())
            .flat_map(|step| epoch.samples_of_step(step).to_vec())
            .collect::<Vec<_>>()
    });
    let known = &dataset.train.samples;
    let chosen = order
        .take(train)
        .filter_map(|sample| known.get(sample as usize).cloned());
    let all = &dataset.val.samples;
    let spread = (0..val.min(all.len())).map(|n| all[n * all.len() / val.min(all.len())].clone());
    Dataset {
        classes: dataset.classes.clone(),
        groups: dataset.groups.clone(),
        train: of_split(&dataset.train, chosen.collect()),
        val: of_split(&dataset.val, spread.collect()),
    }
}

#[cfg(test)]
mod tests {
    use domain::run_plan::RunShape;

    use super::*;
    use crate::driver::smallest_config;

    fn split(samples: u64) -> Split {
        let sample = |image_id| Sample {
            image_id,
            file_name: format!("{image_id}.jpg"),
            labels: Box::default(),
        };
        Split {
            name: "any".into(),
            annotation_file: "/a".into(),
            image_dir: "/b".into(),
            num_classes: 0,
            samples: (0..samples).map(sample).collect(),
            unlabelled: 0,
            dropped: 0,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_probe_trains_on_what_the_run_begins_with_and_scores_an_even_spread() {
        let dataset = Dataset {
            classes: Vec::new(),
            groups: Vec::new(),
            train: split(10),
            val: split(9),
        };
        let shape = RunShape {
            seed: 3,
            samples: 10,
            val_samples: 9,
            ..smallest_config().shape
        };
        let plan = RunPlan::new(shape, 1).unwrap();
        let ids = |split: &Split| -> Vec<u64> {
            split.samples.iter().map(|sample| sample.image_id).collect()
        };

        let few = picked(&dataset, &plan, 8, 3);
        let first: Vec<u64> = [0, 1]
            .iter()
            .flat_map(|step| plan.epoch_plan(0).samples_of_step(*step).to_vec())
            .map(u64::from)
            .collect();
        assert_eq!(ids(&few.train), first);
        assert_eq!(ids(&few.val), [0, 3, 6]);

        // A split that is too small is gone through again
        let many = picked(&dataset, &plan, 25, 99);
        assert_eq!((many.train.samples.len(), many.val.samples.len()), (25, 9));
        let mut epoch = ids(&many.train)[10..20].to_vec();
        epoch.sort_unstable();
        assert_eq!(epoch, (0..10).collect::<Vec<_>>());
    }
}
