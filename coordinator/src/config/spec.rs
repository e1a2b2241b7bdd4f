//! From a config and a data set to what the domain and the workers need.

use std::path::PathBuf;

use data::coco::{DataPaths, Dataset, Options, Split};
use data::files::OnBadImage;
use domain::class_weights;
use domain::run_plan::{RunPlan, RunShape};
use domain::scoring::Sheet;
use proto::v1::{DataSpec, Group, ModelSpec, RunSpec, TrainSpec};

use super::{Config, LaunchChoice};
use crate::run::Membership;
use crate::scoring;

impl Config {
    /// Where the data set lies.
    #[must_use]
    pub fn data_paths(&self) -> DataPaths {
        let data = &self.data;
        DataPaths {
            root: data.root.clone(),
            year: data.year,
            train_annotations: data.train_annotations.clone(),
            train_images: data.train_images.clone(),
            val_annotations: data.val_annotations.clone(),
            val_images: data.val_images.clone(),
        }
    }

    /// How to read its annotations.
    #[must_use]
    pub fn data_options(&self) -> Options {
        Options {
            drop_unlabelled: self.data.drop_unlabelled,
            groups: self.data.groups.clone(),
        }
    }

    /// How the run takes the loss of workers.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership {
            world: self.train.world,
            balance: self.train.balance,
            halve_when_out_of_memory: self.train.halve_when_out_of_memory,
            min_workers: self.run.min_workers,
            budgets: self.fault.budgets,
        }
    }

    /// What the domain needs to lay out the run.
    #[must_use]
    pub fn run_shape(&self, dataset: &Dataset) -> RunShape {
        RunShape {
            seed: self.run.seed,
            samples: count(dataset.train.samples.len()),
            val_samples: count(dataset.val.samples.len()),
            further_rows: self.sheet(dataset).further_rows(),
            early_stopping: self.train.early_stopping,
            global_batch: self.train.global_batch,
            micro_batch: self.train.micro_batch,
            epochs: self.train.epochs,
            evaluate_every_epochs: self.run.evaluate_every_epochs,
            snapshot_every_steps: self.run.snapshot_every_steps,
            snapshot_every_epochs: self.run.snapshot_every_epochs,
        }
    }

    /// What workers need to know; `plan` gives the schedule its length. Call it after
    /// [`Config::record_placement`], which fixes the threads.
    #[must_use]
    pub fn run_spec(&self, dataset: &Dataset, plan: &RunPlan) -> RunSpec {
        RunSpec {
            seed: self.run.seed,
            model: Some(self.model_spec(dataset)),
            data: Some(self.data_spec(dataset)),
            train: Some(self.train_spec(dataset, plan)),
            scoring: Some(scoring::spec(&self.sheet(dataset))),
        }
    }

    /// What an evaluation scores.
    fn sheet(&self, dataset: &Dataset) -> Sheet {
        Sheet::new(
            self.run.seed,
            count(dataset.val.samples.len()),
            self.train.ema_decay.is_some_and(|decay| decay > 0.0),
            self.run.train_figures,
            (
                count(dataset.train.samples.len()),
                self.run.train_figures_samples,
            ),
        )
    }

    /// About how many bytes a checkpoint takes: weights and optimizer state.
    #[must_use]
    pub fn checkpoint_estimate(&self, dataset: &Dataset) -> u64 {
        let model = &self.model;
        let (trunk, features) = match model.backbone.as_str() {
            "resnet18" => (11_200_000, 512),
            "resnet34" => (21_300_000, 512),
            "resnet50" => (23_500_000, 2048),
            "resnet101" => (42_500_000, 2048),
            _ => (58_100_000, 2048),
        };
        let (groups, classes) = (dataset.groups.len() as u64, dataset.classes.len() as u64);
        let (hidden, group, class) = (
            u64::from(model.hidden),
            u64::from(model.group_channels),
            u64::from(model.class_channels),
        );
        let graph = match model.graph.as_str() {
            "none" => 0,
            "fc" => (groups * group).pow(2) + groups * class * class,
            _ => group * group + groups * class * class,
        };
        let heads = features * hidden
            + hidden * group
            + groups * group * group
            + classes * (group + class) * class;
        let copies = if self.train.optimizer == "adamw" {
            3
        } else {
            2
        } + u64::from(self.train.ema_decay.is_some());
        let bytes = if self.train.precision == "float64" {
            8
        } else {
            4
        };
        (trunk + heads + graph) * copies * bytes
    }

    fn model_spec(&self, dataset: &Dataset) -> ModelSpec {
        let model = &self.model;
        let group = |group: &data::coco::Group| Group {
            name: group.name.clone(),
            classes: group.classes.iter().map(|class| count(*class)).collect(),
        };
        ModelSpec {
            backbone: model.backbone.clone(),
            graph: model.graph.clone(),
            residual: model.residual.clone(),
            bn_momentum: model.bn_momentum,
            hidden: model.hidden,
            group_channels: model.group_channels,
            class_channels: model.class_channels,
            last_bias: model.last_bias,
            classes: dataset
                .classes
                .iter()
                .map(|class| class.name.clone())
                .collect(),
            groups: dataset.groups.iter().map(group).collect(),
        }
    }

    fn data_spec(&self, dataset: &Dataset) -> DataSpec {
        let data = &self.data;
        let folder = |path: &PathBuf| path.to_string_lossy().into_owned();
        DataSpec {
            size: data.size,
            train_images: folder(&dataset.train.image_dir),
            val_images: folder(&dataset.val.image_dir),
            transform: data.transform.clone(),
            resize: data.resize,
            mean: data.mean.to_vec(),
            std: data.std.to_vec(),
            loader_threads: data.loader_threads,
            prefetch_batches: data.prefetch,
            on_bad_image: match data.on_bad_image {
                OnBadImage::Error => "error".into(),
                OnBadImage::Skip => "skip".into(),
            },
            flip: data.flip,
            cache: data.cache.as_ref().map(folder).unwrap_or_default(),
            cache_bytes: u64::from(data.cache_gib) << 30,
            rand_augment_operations: data.rand_augment_operations,
            rand_augment_magnitude: data.rand_augment_magnitude,
            cutout: data.cutout,
        }
    }

    fn train_spec(&self, dataset: &Dataset, plan: &RunPlan) -> TrainSpec {
        let train = &self.train;
        let (positive_weights, negative_weights) = if train.loss == "deepmar" {
            let (support, samples) = support(&dataset.train);
            class_weights::deepmar(&support, samples)
        } else {
            Default::default()
        };
        TrainSpec {
            epochs: train.epochs,
            global_batch: train.global_batch,
            micro_batch: train.micro_batch,
            micro_batches_per_pass: train.micro_batches_per_pass,
            threads: train.threads,
            precision: train.precision.clone(),
            optimizer: train.optimizer.clone(),
            learning_rate_trunk: train.learning_rate_trunk,
            learning_rate_head: train.learning_rate_head,
            momentum: train.momentum,
            weight_decay: train.weight_decay,
            clip_norm: train.clip_norm,
            schedule: train.schedule.clone(),
            milestones: train.milestones.clone(),
            gamma: train.gamma,
            warmup: train.warmup,
            init: train
                .init
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            init_mode: train.init_mode.clone(),
            total_steps: plan.total_steps(),
            steps_per_epoch: u64::from(plan.steps_per_epoch()),
            first_bucket_bytes: bytes(train.first_bucket_mb),
            bucket_bytes: bytes(train.bucket_mb),
            sentinel_steps: self.fault.sentinel_steps,
            freeze_trunk: train.freeze_trunk,
            adam_beta1: train.adam_beta1,
            adam_beta2: train.adam_beta2,
            adam_epsilon: train.adam_epsilon,
            on_not_finite: train.on_not_finite.clone(),
            compress_gradients: train.compress_gradients,
            // Workers that come from anywhere may share memory in one generation and not in the next, and sums would
            // differ in their last bits.
            shared_memory: train.shared_memory && self.run.launch == LaunchChoice::Local,
            loss: train.loss.clone(),
            positive_weights,
            negative_weights,
            asl_gamma_positive: train.asl_gamma_positive,
            asl_gamma_negative: train.asl_gamma_negative,
            asl_clip: train.asl_clip,
            asl_weight_gradient: train.asl_weight_gradient,
            ema_decay: train.ema_decay.unwrap_or(0.0),
            freeze_trunk_epochs: train.freeze_trunk_epochs,
            one_cycle_rise: train.one_cycle_rise,
            one_cycle_start: train.one_cycle_start,
            one_cycle_end: train.one_cycle_end,
        }
    }
}

/// How many pictures of a split show each class, and how many pictures it has.
fn support(split: &Split) -> (Vec<u32>, u32) {
    let mut support = vec![0; split.num_classes];
    for class in split.samples.iter().flat_map(|sample| &*sample.labels) {
        if let Some(shown) = support.get_mut(usize::from(*class)) {
            *shown += 1;
        }
    }
    (support, count(split.samples.len()))
}

/// MiB to bytes, at least one; the key's range keeps it far below the largest integer.
fn bytes(mebibytes: f64) -> u64 {
    ((mebibytes * f64::from(1 << 20)) as u64).max(1)
}

/// Samples, classes and groups are counted in u32 everywhere; an annotation file cannot hold more.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
