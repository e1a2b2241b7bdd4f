//! What a config means once it is checked: each part of the system reads its own section and trusts it.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use data::files::OnBadImage;
use domain::run::World;
use domain::scoring::TrainFigures;

use super::Config;
use super::settings::Settings;

mod fault;

pub use fault::Fault;

/// `model.*`: which variant of HGAT_FC, and how wide.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `model.backbone`: the trunk, `"resnet18"` to `"resnet152"`.
    pub backbone: String,
    /// `model.graph`: `"gat"`, `"none"` or `"fc"`.
    pub graph: String,
    /// `model.residual`: `"sum"` or `"resnet"`.
    pub residual: String,
    /// `model.bn_momentum`: of the heads' batch norms.
    pub bn_momentum: f64,
    /// `model.hidden`: width inside `reduce_fc`.
    pub hidden: u32,
    /// `model.group_channels`.
    pub group_channels: u32,
    /// `model.class_channels`.
    pub class_channels: u32,
    /// `model.last_bias`: initial bias of the last layers; `None`: PyTorch's default.
    pub last_bias: Option<f64>,
}

/// `data.*`: where the pictures are and what is done to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// `data.root`, absolute.
    pub root: Option<PathBuf>,
    /// `data.year`.
    pub year: Option<u16>,
    /// `data.train_annotations`, absolute.
    pub train_annotations: Option<PathBuf>,
    /// `data.train_images`, absolute.
    pub train_images: Option<PathBuf>,
    /// `data.val_annotations`, absolute.
    pub val_annotations: Option<PathBuf>,
    /// `data.val_images`, absolute.
    pub val_images: Option<PathBuf>,
    /// `data.size`: side of the square the model sees, in pixels.
    pub size: u32,
    /// `data.transform`: the training transform.
    pub transform: String,
    /// `data.resize`: side before the crop, in pixels.
    pub resize: u32,
    /// `data.flip`: mirror half of the training samples.
    pub flip: bool,
    /// `data.rand_augment_operations`: 0 for none.
    pub rand_augment_operations: u32,
    /// `data.rand_augment_magnitude`, 0 to 10.
    pub rand_augment_magnitude: f64,
    /// `data.cutout_side`: side of the square as a share of `size`; 0 for none.
    pub cutout: f64,
    /// `data.mean`: of red, green and blue in 0..1.
    pub mean: [f64; 3],
    /// `data.std`.
    pub std: [f64; 3],
    /// `data.loader_threads`: decoding threads of each worker; once [`Config::record_placement`] has fixed it, `None` only
    /// for workers that someone else starts, who share out the processors of their machine.
    pub loader_threads: Option<u32>,
    /// `data.prefetch`: batches decoded ahead.
    pub prefetch: u32,
    /// `data.cache`: folder of decoded pictures, absolute.
    pub cache: Option<PathBuf>,
    /// `data.cache_gib`: most GiB in it.
    pub cache_gib: u32,
    /// `data.on_bad_image`.
    pub on_bad_image: OnBadImage,
    /// `data.drop_unlabelled`.
    pub drop_unlabelled: bool,
    /// `data.groups`: (name, class names) in group order; `None`: the annotation file's supercategories.
    pub groups: Option<Vec<(String, Vec<String>)>>,
}

/// `train.*`: the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// `train.epochs`.
    pub epochs: u32,
    /// `train.global_batch`: samples in a step, over all workers.
    pub global_batch: u32,
    /// `train.micro_batch`: samples that are normalised together.
    pub micro_batch: u32,
    /// `train.micro_batches_per_pass`; `None`: the worker chooses.
    pub micro_batches_per_pass: Option<u32>,
    /// `train.threads`: compute threads of each worker; `None` as for [`Data::loader_threads`].
    pub threads: Option<u32>,
    /// `train.precision`: `"float32"`, `"bf16"` or `"float64"`.
    pub precision: String,
    /// `train.optimizer`: `"sgd"` or `"adamw"`.
    pub optimizer: String,
    /// `train.learning_rate_trunk`, absolute.
    pub learning_rate_trunk: f64,
    /// `train.learning_rate_head`, absolute.
    pub learning_rate_head: f64,
    /// `train.momentum`, of SGD.
    pub momentum: f64,
    /// `train.weight_decay`.
    pub weight_decay: f64,
    /// `train.clip_norm`: 0 for none.
    pub clip_norm: f64,
    /// `train.schedule`: `"constant"`, `"step"`, `"cosine"` or `"one_cycle"`.
    pub schedule: String,
    /// `train.milestones`: epochs at which `"step"` multiplies the rates by `gamma`.
    pub milestones: Vec<f64>,
    /// `train.gamma`.
    pub gamma: f64,
    /// `train.one_cycle_rise`: fraction of all steps before the peak.
    pub one_cycle_rise: f64,
    /// `train.one_cycle_start`: what the peak is divided by for the first rate.
    pub one_cycle_start: f64,
    /// `train.one_cycle_end`: what the first rate is divided by for the last.
    pub one_cycle_end: f64,
    /// `train.warmup`: fraction of all steps.
    pub warmup: f64,
    /// `train.init`: weight file to start from, absolute.
    pub init: Option<PathBuf>,
    /// `train.init_mode`: `"trunk"` or `"whole"`.
    pub init_mode: String,
    /// `train.freeze_trunk`.
    pub freeze_trunk: bool,
    /// `train.freeze_trunk_epochs`: the heads alone are trained for so many epochs.
    pub freeze_trunk_epochs: u32,
    /// `train.loss`.
    pub loss: String,
    /// `train.asl_gamma_positive`.
    pub asl_gamma_positive: f64,
    /// `train.asl_gamma_negative`.
    pub asl_gamma_negative: f64,
    /// `train.asl_clip`.
    pub asl_clip: f64,
    /// `train.asl_weight_gradient`.
    pub asl_weight_gradient: bool,
    /// `train.ema_decay`: what an epoch leaves of the average of the weights; `None`: no average is kept.
    pub ema_decay: Option<f64>,
    /// `train.early_stopping`: evaluations in a row without a better mAP after which the run stops; `None`: never.
    pub early_stopping: Option<u32>,
    /// `train.first_bucket_mb`, in MiB.
    pub first_bucket_mb: f64,
    /// `train.bucket_mb`, in MiB.
    pub bucket_mb: f64,
    /// `train.compress_gradients`: whether gradients travel as bfloat16.
    pub compress_gradients: bool,
    /// `train.shared_memory`: whether CPU workers of one machine may sum through shared memory.
    pub shared_memory: bool,
    /// `train.adam_beta1`.
    pub adam_beta1: f64,
    /// `train.adam_beta2`.
    pub adam_beta2: f64,
    /// `train.adam_epsilon`.
    pub adam_epsilon: f64,
    /// `train.world`: what the run does while it has fewer workers than it wants.
    pub world: World,
    /// `train.balance = "speed"`: faster ranks are given more micro-batches.
    pub balance: bool,
    /// `train.on_not_finite`: `"stop"` or `"skip"`.
    pub on_not_finite: String,
    /// `train.on_out_of_memory = "halve"`.
    pub halve_when_out_of_memory: bool,
}

/// What `run.device` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where there are enough devices, else CPU.
    Auto,
    /// CPU processes.
    Cpu,
    /// One CUDA device a worker.
    Cuda,
}

impl DeviceChoice {
    /// As it is written in a config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// `run.launch`: who starts the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchChoice {
    /// This coordinator, on its own machine.
    Local,
    /// Someone else: they are waited for, wherever they come from.
    External,
}

/// `run.*`: how the run is carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// `run.seed`.
    pub seed: u64,
    /// `run.workers`; `None` until [`Config::record_placement`] has fixed it.
    pub workers: Option<u32>,
    /// `run.launch`: whether this coordinator starts its workers itself.
    pub launch: LaunchChoice,
    /// `run.min_workers`: an elastic run goes on with no fewer.
    pub min_workers: u32,
    /// `run.device`; once [`Config::record_placement`] has fixed it, `Auto` only for workers that someone else starts.
    pub device: DeviceChoice,
    /// `run.keep_checkpoints`: how many of the newest stay, beside the best.
    pub keep_checkpoints: NonZeroU32,
    /// `run.snapshot_every_steps`.
    pub snapshot_every_steps: Option<u64>,
    /// `run.snapshot_every_epochs`.
    pub snapshot_every_epochs: Option<u32>,
    /// `run.evaluate_every_epochs`.
    pub evaluate_every_epochs: u32,
    /// `run.train_figures`: which figures of training pictures are taken at each evaluation.
    pub train_figures: TrainFigures,
    /// `run.train_figures_samples`: over how many training pictures.
    pub train_figures_samples: u32,
    /// `run.listen`: port 0 takes any free one.
    pub listen: SocketAddr,
}

impl Config {
    /// Reads checked settings; their kinds make every conversion here succeed.
    pub(super) fn from_settings(settings: Settings) -> Self {
        Self {
            model: Model::read(&settings),
            data: Data::read(&settings),
            train: Train::read(&settings),
            run: Run::read(&settings),
            fault: Fault::read(&settings),
            settings,
        }
    }
}

impl Model {
    fn read(settings: &Settings) -> Self {
        Self {
            backbone: settings.text("model.backbone"),
            graph: settings.text("model.graph"),
            residual: settings.text("model.residual"),
            bn_momentum: settings.number("model.bn_momentum"),
            hidden: settings.whole("model.hidden"),
            group_channels: settings.whole("model.group_channels"),
            class_channels: settings.whole("model.class_channels"),
            last_bias: settings.optional_number("model.last_bias"),
        }
    }
}

impl Data {
    fn read(settings: &Settings) -> Self {
        Self {
            root: settings.optional_path("data.root"),
            year: settings.optional_whole("data.year"),
            train_annotations: settings.optional_path("data.train_annotations"),
            train_images: settings.optional_path("data.train_images"),
            val_annotations: settings.optional_path("data.val_annotations"),
            val_images: settings.optional_path("data.val_images"),
            size: settings.whole("data.size"),
            transform: settings.text("data.transform"),
            resize: settings.whole("data.resize"),
            flip: settings.switch("data.flip"),
            rand_augment_operations: settings.whole("data.rand_augment_operations"),
            rand_augment_magnitude: settings.number("data.rand_augment_magnitude"),
            cutout: settings.number("data.cutout_side"),
            mean: settings.triple("data.mean"),
            std: settings.triple("data.std"),
            loader_threads: settings.optional_whole("data.loader_threads"),
            prefetch: settings.whole("data.prefetch"),
            cache: settings.optional_path("data.cache"),
            cache_gib: settings.whole("data.cache_gib"),
            on_bad_image: match settings.text("data.on_bad_image").as_str() {
                "skip" => OnBadImage::Skip,
                _ => OnBadImage::Error,
            },
            drop_unlabelled: settings.switch("data.drop_unlabelled"),
            groups: settings.groups("data.groups"),
        }
    }
}

impl Train {
    fn read(settings: &Settings) -> Self {
        Self {
            epochs: settings.whole("train.epochs"),
            global_batch: settings.whole("train.global_batch"),
            micro_batch: settings.whole("train.micro_batch"),
            micro_batches_per_pass: settings.optional_whole("train.micro_batches_per_pass"),
            threads: settings.optional_whole("train.threads"),
            precision: settings.text("train.precision"),
            optimizer: settings.text("train.optimizer"),
            learning_rate_trunk: settings.number("train.learning_rate_trunk"),
            learning_rate_head: settings.number("train.learning_rate_head"),
            momentum: settings.number("train.momentum"),
            weight_decay: settings.number("train.weight_decay"),
            clip_norm: settings.number("train.clip_norm"),
            schedule: settings.text("train.schedule"),
            milestones: settings.numbers("train.milestones"),
            gamma: settings.number("train.gamma"),
            one_cycle_rise: settings.number("train.one_cycle_rise"),
            one_cycle_start: settings.number("train.one_cycle_start"),
            one_cycle_end: settings.number("train.one_cycle_end"),
            warmup: settings.number("train.warmup"),
            init: settings.optional_path("train.init"),
            init_mode: settings.text("train.init_mode"),
            freeze_trunk: settings.switch("train.freeze_trunk"),
            freeze_trunk_epochs: settings.whole("train.freeze_trunk_epochs"),
            loss: settings.text("train.loss"),
            asl_gamma_positive: settings.number("train.asl_gamma_positive"),
            asl_gamma_negative: settings.number("train.asl_gamma_negative"),
            asl_clip: settings.number("train.asl_clip"),
            asl_weight_gradient: settings.switch("train.asl_weight_gradient"),
            ema_decay: settings.optional_number("train.ema_decay"),
            early_stopping: settings.optional_whole("train.early_stopping"),
            first_bucket_mb: settings.number("train.first_bucket_mb"),
            bucket_mb: settings.number("train.bucket_mb"),
            compress_gradients: settings.switch("train.compress_gradients"),
            shared_memory: settings.switch("train.shared_memory"),
            adam_beta1: settings.number("train.adam_beta1"),
            adam_beta2: settings.number("train.adam_beta2"),
            adam_epsilon: settings.number("train.adam_epsilon"),
            world: match settings.text("train.world").as_str() {
                "fixed" => World::Fixed,
                _ => World::Elastic,
            },
            balance: settings.text("train.balance") == "speed",
            on_not_finite: settings.text("train.on_not_finite"),
            halve_when_out_of_memory: settings.text("train.on_out_of_memory") == "halve",
        }
    }
}

impl Run {
    fn read(settings: &Settings) -> Self {
        Self {
            seed: settings.whole("run.seed"),
            workers: settings.optional_whole("run.workers"),
            launch: match settings.text("run.launch").as_str() {
                "external" => LaunchChoice::External,
                _ => LaunchChoice::Local,
            },
            min_workers: settings.whole("run.min_workers"),
            device: match settings.text("run.device").as_str() {
                "cpu" => DeviceChoice::Cpu,
                "cuda" => DeviceChoice::Cuda,
                _ => DeviceChoice::Auto,
            },
            keep_checkpoints: NonZeroU32::new(settings.whole("run.keep_checkpoints"))
                .unwrap_or(NonZeroU32::MIN),
            snapshot_every_steps: settings.optional_whole("run.snapshot_every_steps"),
            snapshot_every_epochs: settings.optional_whole("run.snapshot_every_epochs"),
            evaluate_every_epochs: settings.whole("run.evaluate_every_epochs"),
            train_figures: match settings.text("run.train_figures").as_str() {
                "on" => TrainFigures::On,
                "decomposed" => TrainFigures::Decomposed,
                _ => TrainFigures::Off,
            },
            train_figures_samples: settings.whole("run.train_figures_samples"),
            listen: settings
                .text("run.listen")
                .parse()
                .expect("the check of an address lets only addresses pass"),
        }
    }
}
