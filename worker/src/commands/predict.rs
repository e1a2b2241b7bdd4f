//! `worker predict`: what a trained model sees in a folder of pictures.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use data::augment::Placement;
use data::transform::Resampler;
use data::{files, jpeg};
use model::{HgatFc, weights};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::describe::{Description, Foreign};
use crate::device;
use crate::error::WorkerError;
use crate::load::load;
use crate::train::batch::Normaliser;

/// Score the pictures of a folder with a checkpoint.
///
/// Prints one JSON object a picture, in name order: `file`, `logits` in class order, `labels` with the probability of
/// every class at 0.5 or more. A picture that cannot be read has `error` instead, and the exit code is 65. Folders inside
/// the folder are not entered; hidden files and files that are no pictures are passed over.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  worker predict --checkpoint runs/demo/checkpoints/best --images photos --json\n  worker predict --checkpoint model.safetensors --images photos --json > predictions.jsonl\n  coordinator evaluate --predictions predictions.jsonl --annotations instances_val2017.json"
)]
pub(crate) struct Predict {
    /// A checkpoint's folder, its model.safetensors, or a .pth or .pth.tar of HGAT_FC
    #[arg(long, value_name = "DIR_OR_FILE")]
    checkpoint: PathBuf,
    /// Folder of pictures
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Where to compute: cpu, or cuda:0, …
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Least probability of a label
    #[arg(long, default_value_t = 0.5)]
    threshold: f64,
    /// Score each picture mirrored too, and give the mean of both logits
    #[arg(long)]
    flip: bool,
    #[command(flatten)]
    foreign: Foreign,
}

/// A model ready to score one picture after the other.
pub(super) struct Scorer {
    pub(super) model: HgatFc,
    pub(super) description: Description,
    normaliser: Normaliser,
    resampler: Resampler,
    /// Whether pictures are scored mirrored too.
    flip: bool,
}

/// Scores every picture.
///
/// # Errors
/// When the checkpoint or the folder cannot be used, or, at the end, when some pictures could not be read.
pub(crate) fn run(arguments: &Predict, out: &mut impl Write) -> Result<(), WorkerError> {
    let device = device::parse(&arguments.device)?;
    let mut scorer = Scorer::load(&arguments.checkpoint, &arguments.foreign, device)?;
    scorer.flip = arguments.flip;
    let folder = |reason: String| WorkerError::Input {
        what: "folder of pictures",
        path: arguments.images.display().to_string(),
        reason,
    };
    let images =
        files::list_images(&arguments.images).map_err(|error| folder(error.to_string()))?;
    if images.is_empty() {
        return Err(folder("holds no pictures (.jpg, .jpeg)".to_owned()));
    }
    let mut unreadable = 0;
    for path in &images {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (line, words) = match scorer.score(path)? {
            Ok(logits) => scorer.lines(&file, &logits, arguments.threshold),
            Err(reason) => {
                unreadable += 1;
                (
                    json!({ "file": file, "error": reason }),
                    format!("{file}  {reason}"),
                )
            }
        };
        let line = if arguments.json {
            line.to_string()
        } else {
            words
        };
        writeln!(out, "{line}")
            .map_err(|error| folder(format!("the output was closed: {error}")))?;
    }
    if unreadable > 0 {
        return Err(folder(format!(
            "{unreadable} of {} pictures could not be read; each says why above",
            images.len()
        )));
    }
    Ok(())
}

impl Scorer {
    pub(super) fn load(
        checkpoint: &Path,
        foreign: &Foreign,
        device: Device,
    ) -> Result<Self, WorkerError> {
        let path = if checkpoint.is_dir() {
            checkpoint.join("model.safetensors")
        } else {
            checkpoint.to_owned()
        };
        let file = weights::read(&path)?;
        let own = Description::read(&file.metadata);
        let is_foreign = own.is_none();
        let description = own.map_or_else(|| foreign.describe(&file), Ok)?;
        let kind = if file.tensors.values().any(|t| t.kind() == Kind::Double) {
            Kind::Double
        } else {
            Kind::Float
        };
        let mut model = HgatFc::new(&description.config(None)?, device, kind, 0)?;
        let matched = load(&mut model, &file, weights::Scope::Whole)?;
        if is_foreign {
            tracing::info!("{matched}");
        }
        let classes = description.classes.len();
        let normaliser = Normaliser::new(
            &description.mean,
            &description.std,
            description.size,
            classes,
            (kind, kind),
            device,
        )
        .map_err(|source| WorkerError::Torch { step: 0, source })?;
        Ok(Self {
            model,
            description,
            normaliser,
            resampler: Resampler::new(),
            flip: false,
        })
    }

    /// One picture as the model sees it `[1, 3, S, S]`, or why it cannot be read.
    pub(super) fn read(&mut self, path: &Path) -> Result<Result<Tensor, String>, WorkerError> {
        let torch = |source| WorkerError::Torch { step: 0, source };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let image = match jpeg::decode(&bytes) {
            Ok((image, _)) => image,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let size = self.description.size;
        let mut pixels = vec![0; 3 * (size as usize).pow(2)];
        let whole = Placement::whole(image.width, image.height);
        if let Err(error) = self.resampler.render(&image, &whole, size, &mut pixels) {
            return Ok(Err(error.to_string()));
        }
        Ok(Ok(self.normaliser.images(&pixels, 1).map_err(torch)?))
    }

    /// The logits of one picture in class order, or why it cannot be read.
    fn score(&mut self, path: &Path) -> Result<Result<Vec<f32>, String>, WorkerError> {
        let torch = |source| WorkerError::Torch { step: 0, source };
        let images = match self.read(path)? {
            Ok(images) => images,
            Err(reason) => return Ok(Err(reason)),
        };
        let logits = tch::no_grad(|| self.model.forward(&images, false))?;
        let logits = if self.flip {
            let mirrored = images.f_flip([3]).map_err(torch)?;
            let mirrored = tch::no_grad(|| self.model.forward(&mirrored, false))?;
            // Logits and not probabilities: what is written stays a logit, and a view that is sure of a class does not
            // outvote the other by being near 1, where probabilities have no room left.
            logits
                .f_add(&mirrored)
                .and_then(|sum| sum.f_mul_scalar(0.5))
                .map_err(torch)?
        } else {
            logits
        };
        let logits = logits
            .f_to_kind(Kind::Float)
            .and_then(|t| t.f_flatten(0, -1))
            .map_err(torch)?;
        Ok(Ok(logits
            .f_to_device(Device::Cpu)
            .and_then(Vec::<f32>::try_from)
            .map_err(torch)?))
    }

    fn lines(&self, file: &str, logits: &[f32], threshold: f64) -> (serde_json::Value, String) {
        let probability = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
        let mut labels: Vec<(&String, f64)> = self
            .description
            .classes
            .iter()
            .zip(logits)
            .map(|(class, &logit)| (class, probability(logit)))
            .filter(|(_, probability)| *probability >= threshold)
            .collect();
        labels.sort_by(|a, b| b.1.total_cmp(&a.1));
        let words: Vec<String> = labels
            .iter()
            .map(|(class, p)| format!("{class} {:.0} %", 100.0 * p))
            .collect();
        let by_name: serde_json::Map<String, serde_json::Value> = labels
            .iter()
            .map(|(class, p)| ((*class).clone(), json!(p)))
            .collect();
        let words = format!(
            "{file}  {}",
            if words.is_empty() {
                "nothing".to_owned()
            } else {
                words.join(", ")
            }
        );
        (
            json!({ "file": file, "logits": logits, "labels": by_name }),
            words,
        )
    }
}
