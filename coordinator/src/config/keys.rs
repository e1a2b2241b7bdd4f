//! Every key there is: the one table from which checking, defaults, help and the reference page are made.

/// What a key's value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file or folder; a relative one is taken from the working directory and recorded absolute.
    Path,
    /// A whole number in this range, ends included.
    Whole(u64, u64),
    /// A number in this range, ends included.
    Number(f64, f64),
    /// `true` or `false`.
    Switch,
    /// Three numbers in this range, ends included: red, green, blue.
    Triple(f64, f64),
    /// A list of numbers, ascending.
    Ascending,
    /// A list of `{ name = "...", classes = ["...", ...] }`.
    Groups,
    /// An IP address and a port, e.g. `127.0.0.1:0`.
    Address,
}

impl Kind {
    /// In words, for errors and the reference page.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Path => "a path".into(),
            Self::Whole(min, max) if *max >= UNBOUNDED => format!("a whole number from {min}"),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Number(min, max) if max.is_infinite() => format!("a number from {}", show(*min)),
            Self::Number(min, max) => format!("a number from {} to {}", show(*min), show(*max)),
            Self::Switch => "true or false".into(),
            Self::Triple(min, max) => format!(
                "three numbers from {} to {}, e.g. [0.5, 0.5, 0.5]",
                show(*min),
                show(*max)
            ),
            Self::Ascending => "a list of ascending numbers, e.g. [10, 16]".into(),
            Self::Groups => {
                r#"a list of groups, e.g. [{ name = "animal", classes = ["cat", "dog"] }]"#.into()
            }
            Self::Address => "an IP address and a port, e.g. 127.0.0.1:0".into(),
        }
    }

    /// Whether a value from a command line or the environment is taken as it stands instead of as TOML.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Choice(_) | Self::Path | Self::Address)
    }
}

fn show(number: f64) -> String {
    let far = number != 0.0 && !(1e-3..1e6).contains(&number.abs());
    if far {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

/// Whole numbers from here on have no upper limit worth telling.
const UNBOUNDED: u64 = u32::MAX as u64;

/// One key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its default as TOML; empty: not set.
    pub default: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// Whether `--resume` may change it without changing what the run computes.
    pub may_change: bool,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        doc,
        may_change: false,
    }
}

/// A key that says where or how fast, not what.
const fn free(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        doc,
        may_change: true,
    }
}

/// Workers of one run. The control plane was measured at 10,000 (docs/reliability.md); a run far beyond has not been seen.
const WORKERS: Kind = Kind::Whole(1, 16_384);
const COUNT: Kind = Kind::Whole(1, UNBOUNDED);
/// The least value of what must be above 0.
const POSITIVE: f64 = 1e-16;
const FRACTION: Kind = Kind::Number(0.0, 1.0);
const RATE: Kind = Kind::Number(0.0, f64::INFINITY);

/// The sections, with what they are about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("model", "which variant of HGAT_FC, and how wide"),
    ("data", "where the pictures are and what is done to them"),
    ("train", "the recipe"),
    ("run", "how the run is carried out"),
    ("fault", "when something counts as failed"),
];

/// Every key, by section. The defaults are the published recipe for COCO 2014: ResNet-101 at 448 pixels, SGD.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("model.backbone", Kind::Choice(&["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]), "'resnet101'", "trunk"),
    key("model.graph", Kind::Choice(&["gat", "none", "fc"]), "'gat'", "how heads exchange what they see: graph attention (experiment 1), not at all (2), or fully connected layers (3)"),
    key("model.residual", Kind::Choice(&["sum", "resnet"]), "'sum'", "the head's residual blocks: x + relu(…) as the author's later code, or relu(x + …) as in ResNet"),
    key("model.bn_momentum", FRACTION, "0.1", "momentum of the heads' batch norms"),
    key("model.hidden", COUNT, "1024", "width inside reduce_fc"),
    key("model.group_channels", COUNT, "512", "channels of a group's node"),
    key("model.class_channels", COUNT, "256", "channels of a class's node"),
    key("model.last_bias", Kind::Number(-100.0, 100.0), "", "initial bias of the last layers; not set: PyTorch's default; -3.2 starts every class at 4 %"),

    free("data.root", Kind::Path, "", "folder in COCO's layout: annotations/instances_{train,val}YEAR.json and {train,val}YEAR/"),
    key("data.year", Kind::Whole(0, 9999), "", "2014 or 2017; needed only when the root holds both"),
    free("data.train_annotations", Kind::Path, "", "annotation file of the training split, instead of the root's"),
    free("data.train_images", Kind::Path, "", "picture folder of the training split, instead of the root's"),
    free("data.val_annotations", Kind::Path, "", "annotation file of the validation split, instead of the root's"),
    free("data.val_images", Kind::Path, "", "picture folder of the validation split, instead of the root's"),
    key("data.size", Kind::Whole(32, 4096), "448", "side of the square the model sees, in pixels"),
    key("data.transform", Kind::Choice(&["random_resized_crop", "multi_scale_crop", "squash_crop", "squash"]), "'multi_scale_crop'", "how a training picture becomes that square"),
    key("data.resize", Kind::Whole(32, 8192), "512", "side before the crop in pixels, for multi_scale_crop and squash_crop"),
    key("data.flip", Kind::Switch, "true", "mirror half of the training samples"),
    key("data.rand_augment_operations", Kind::Whole(0, 14), "0", "operations of RandAugment on each training sample; 0: none"),
    key("data.rand_augment_magnitude", Kind::Number(0.0, 10.0), "9.0", "their strength, 10 being the strongest"),
    key("data.cutout_side", FRACTION, "0.0", "side of the square that is blotted out of each training sample, as a share of data.size; 0: none"),
    key("data.mean", Kind::Triple(0.0, 1.0), "[0.485, 0.456, 0.406]", "subtracted from red, green and blue in 0..1"),
    key("data.std", Kind::Triple(1e-6, 1e6), "[0.229, 0.224, 0.225]", "what the difference is divided by"),
    free("data.loader_threads", Kind::Whole(0, 1024), "", "decoding threads of each worker; 0: pictures are decoded between passes; not set: what compute threads leave of its share of the processors"),
    free("data.prefetch", Kind::Whole(1, 1024), "4", "batches each worker decodes ahead, each as many pictures as go through the model at once"),
    free("data.cache", Kind::Path, "", "folder in which decoded pictures are kept, shared between workers and runs; not set: every picture is decoded every time"),
    free("data.cache_gib", Kind::Whole(1, 1_000_000), "128", "most GiB of pictures in data.cache; COCO 2014 takes about 100"),
    key("data.on_bad_image", Kind::Choice(&["error", "skip"]), "'error'", "an unreadable picture ends the run, or is left out, counted and listed"),
    key("data.drop_unlabelled", Kind::Switch, "false", "leave out pictures that show no class"),
    key("data.groups", Kind::Groups, "", "groups of classes, instead of the annotation file's supercategories"),

    key("train.epochs", COUNT, "20", "passes over the training split"),
    key("train.global_batch", COUNT, "64", "samples in a step, whatever the number of workers"),
    key("train.micro_batch", COUNT, "8", "samples that batch normalisation sees; each rank is handed whole micro-batches"),
    key("train.micro_batches_per_pass", COUNT, "", "micro-batches that go through the model side by side, each normalised by itself: a matter of speed and memory; not set: as many small ones as a CPU is quickest with, one on a GPU"),
    key("train.threads", Kind::Whole(1, 4096), "", "compute threads of each worker; not set: what the machine has, shared out; then recorded, unless someone else starts the workers, each of which shares out its own machine's"),
    key("train.precision", Kind::Choice(&["float32", "bf16", "float64"]), "'float32'", "of parameters and arithmetic (products of float32 on CUDA: TF32); bf16: convolutions and matrix products in bfloat16, parameters, statistics and updates in float32"),
    key("train.optimizer", Kind::Choice(&["sgd", "adamw"]), "'sgd'", "update rule"),
    key("train.learning_rate_trunk", RATE, "0.01", "of the trunk, absolute"),
    key("train.learning_rate_head", RATE, "0.1", "of the heads, absolute"),
    key("train.momentum", FRACTION, "0.9", "of sgd"),
    key("train.weight_decay", RATE, "1e-4", "of all parameters"),
    key("train.clip_norm", RATE, "10.0", "longest gradient over all parameters; 0: no clipping"),
    key("train.schedule", Kind::Choice(&["constant", "step", "cosine", "one_cycle"]), "'step'", "how the rates move; one_cycle spans the run's own length"),
    key("train.milestones", Kind::Ascending, "[10, 16]", "epochs at which schedule step multiplies the rates by gamma"),
    key("train.gamma", Kind::Number(POSITIVE, 1.0), "0.1", "factor of schedule step"),
    key("train.one_cycle_rise", FRACTION, "0.3", "fraction of all steps before the peak of schedule one_cycle"),
    key("train.one_cycle_start", Kind::Number(1.0, f64::INFINITY), "25.0", "one_cycle begins at the rates divided by this"),
    key("train.one_cycle_end", Kind::Number(1.0, f64::INFINITY), "1e4", "and ends at that divided by this"),
    key("train.warmup", FRACTION, "0.0", "fraction of all steps over which the rates rise from 0"),
    key("train.init", Kind::Path, "", "weight file to start from: safetensors, or a .pth that holds a state_dict"),
    key("train.init_mode", Kind::Choice(&["trunk", "whole"]), "'trunk'", "what to take from it"),
    key("train.freeze_trunk", Kind::Switch, "false", "train the heads only"),
    key("train.freeze_trunk_epochs", Kind::Whole(0, UNBOUNDED), "0", "train the heads only for the first so many epochs"),
    key("train.loss", Kind::Choice(&["multilabel_soft_margin", "bce", "deepmar", "asl"]), "'multilabel_soft_margin'", "docs/training.md has the formulas and how each is scaled"),
    key("train.asl_gamma_positive", Kind::Number(0.0, 20.0), "0.0", "focusing of the asymmetric loss where a class is shown"),
    key("train.asl_gamma_negative", Kind::Number(0.0, 20.0), "4.0", "and where it is not"),
    key("train.asl_clip", Kind::Number(0.0, 0.999), "0.05", "probability that the asymmetric loss takes off every negative"),
    key("train.asl_weight_gradient", Kind::Switch, "false", "differentiate the focusing weights too, as the formula says; the authors' program does not"),
    key("train.ema_decay", Kind::Number(0.0, 0.999_999), "", "keep an average of the weights, of which an epoch leaves this share, and evaluate it beside them; not set: none"),
    key("train.early_stopping", COUNT, "", "stop after so many evaluations in a row without a better mAP; not set: never"),
    key("train.first_bucket_mb", Kind::Number(POSITIVE, 1e4), "1.0", "MiB of gradients in the first all-reduce, which starts earliest"),
    key("train.bucket_mb", Kind::Number(POSITIVE, 1e4), "25.0", "MiB of gradients in each further all-reduce"),
    key("train.compress_gradients", Kind::Switch, "false", "send gradients as bfloat16, half the bytes: sums are then rounded to 8 bits of mantissa; nothing is sent between workers that share memory"),
    key("train.shared_memory", Kind::Switch, "true", "CPU workers that this coordinator starts sum gradients through memory they share, not through sockets"),
    key("train.adam_beta1", Kind::Number(0.0, 0.999_999), "0.9", "of adamw"),
    key("train.adam_beta2", Kind::Number(0.0, 0.999_999), "0.999", "of adamw"),
    key("train.adam_epsilon", Kind::Number(POSITIVE, 1.0), "1e-8", "of adamw"),
    key("train.world", Kind::Choice(&["elastic", "fixed"]), "'elastic'", "with fewer workers than wanted: go on, or wait for the replacement, which repeats to the bit"),
    free("train.balance", Kind::Choice(&["even", "speed"]), "'even'", "how micro-batches are shared out: alike, or more to faster ranks (not with train.world = \"fixed\")"),
    free("train.on_not_finite", Kind::Choice(&["stop", "skip"]), "'stop'", "a step whose loss or gradient is not finite ends the run, or is passed over and recorded with its samples"),
    free("train.on_out_of_memory", Kind::Choice(&["stop", "halve"]), "'stop'", "end the run and say what would fit, or halve the micro-batches of its passes, which is what batch normalisation then sees"),

    key("run.seed", Kind::Whole(0, i64::MAX as u64), "0", "of initial weights, sample order and augmentation"),
    free("run.workers", WORKERS, "", "worker processes; not set: one per CUDA device, or one"),
    free("run.launch", Kind::Choice(&["local", "external"]), "'local'", "who starts them: this coordinator on its machine, or someone else with `worker join` wherever they like"),
    free("run.min_workers", WORKERS, "1", "an elastic run goes on with no fewer workers than this"),
    free("run.device", Kind::Choice(&["auto", "cpu", "cuda"]), "'auto'", "what workers compute on; auto: CUDA if there is a device for each, else cpu"),
    free("run.keep_checkpoints", Kind::Whole(1, UNBOUNDED), "3", "how many of the newest checkpoints stay, beside the best"),
    key("run.snapshot_every_steps", COUNT, "", "a checkpoint whenever this many more steps are done"),
    key("run.snapshot_every_epochs", COUNT, "1", "a checkpoint at the end of every so many epochs; the last always"),
    key("run.evaluate_every_epochs", COUNT, "1", "validation mAP at the end of every so many epochs; the last always"),
    key("run.train_figures", Kind::Choice(&["off", "on", "decomposed"]), "'off'", "mAP of training pictures beside validation's: online, clean, clean with batch statistics; decomposed: every cause apart"),
    key("run.train_figures_samples", Kind::Whole(1, 100_000), "2000", "training pictures that the clean figures are taken over, drawn from the seed"),
    free("run.listen", Kind::Address, "'127.0.0.1:0'", "where gRPC is served; port 0: any free one"),

    free("fault.timeout", Kind::Number(0.1, 86_400.0), "5.0", "seconds without a sign of life after which a worker counts as lost; every other timeout follows from it"),
    free("fault.grace", Kind::Number(0.1, 86_400.0), "25.0", "seconds that a worker that was told to end (SIGTERM) has to come to a boundary and leave; keep it below the time after which it would be killed (Kubernetes: 30)"),
    free("fault.crashes", Kind::Whole(0, UNBOUNDED), "20", "workers that may be lost within an hour, each replaced; one more ends the run with a checkpoint"),
    free("fault.hangs", Kind::Whole(0, UNBOUNDED), "10", "the same for workers that live and do nothing"),
    free("fault.preemptions", Kind::Whole(0, UNBOUNDED), "1000", "the same for workers that were told to end from outside"),
    free("fault.out_of_memory", Kind::Whole(0, UNBOUNDED), "0", "the same for workers that ran out of memory; with 0 the run stops and says what would fit"),
    free("fault.sentinel_steps", Kind::Whole(0, UNBOUNDED), "50", "replicas are compared every so many steps; 0: never"),
];

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that was probably meant: the same word in another section, or the closest spelling.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let names = || KEYS.iter().map(|key| key.name);
    if let Some(same_word) = names().find(|known| last(known) == last(name)) {
        return Some(same_word);
    }
    let far = name.chars().count() / 3 + 1;
    let distance = |known: &'static str| (strsim::damerau_levenshtein(known, name), known);
    let by_word = |known: &'static str| {
        (
            strsim::damerau_levenshtein(&last(known), &last(name)) + 1,
            known,
        )
    };
    names()
        .map(|known| distance(known).min(by_word(known)))
        .min()
        .filter(|(d, _)| *d <= far)
        .map(|(_, known)| known)
}
