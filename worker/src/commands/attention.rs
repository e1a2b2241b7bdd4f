//! `worker attention`: what the nodes of a trained model attend to, as a mean over pictures.
//!
//! The coordinator runs it for a run's report, since it knows no tensors itself.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::predict::Scorer;
use crate::describe::Foreign;
use crate::device;
use crate::error::WorkerError;

/// Mean attention of a checkpoint over pictures: between groups, and between the classes of each group.
///
/// Prints one JSON object. A row is a node, and holds the weights that it gives to each node of its graph, which sum to 1
/// (Veličković et al. 2017, equation 3).
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker attention --checkpoint runs/demo/checkpoints/last photos/1.jpg photos/2.jpg"
)]
pub(crate) struct Attention {
    /// A checkpoint's folder, its model.safetensors, or a .pth or .pth.tar of HGAT_FC
    #[arg(long, value_name = "DIR_OR_FILE")]
    checkpoint: PathBuf,
    /// Pictures; one that cannot be read is left out and counted
    #[arg(required = true, value_name = "FILE")]
    pictures: Vec<PathBuf>,
    /// Where to compute: cpu, or cuda:0, …
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Begin no further picture after so many seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    #[command(flatten)]
    foreign: Foreign,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Answer {
    /// Pictures that the means are over.
    pictures: u32,
    /// Those that could not be read.
    unreadable: u32,
    /// Those that there was no time for.
    not_begun: u32,
    groups: Vec<Group>,
    /// `[groups][groups]`
    between: Vec<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    /// In the order of rows and columns.
    classes: Vec<String>,
    /// `[classes][classes]`
    within: Vec<Vec<f64>>,
}

/// Sums over pictures.
struct Sums {
    /// `[G, G]`
    between: Tensor,
    /// `[G, P, P]`
    within: Tensor,
    pictures: u32,
}

/// Looks at every picture.
///
/// # Errors
/// When the checkpoint cannot be used, its variant has no attention, or no picture can be read.
pub(crate) fn run(arguments: &Attention, out: &mut impl Write) -> Result<(), WorkerError> {
    let began = Instant::now();
    let limit = Duration::try_from_secs_f64(arguments.seconds).unwrap_or(Duration::MAX);
    let device = device::parse(&arguments.device)?;
    let mut scorer = Scorer::load(&arguments.checkpoint, &arguments.foreign, device)?;
    let input = |what, reason: String| WorkerError::Input {
        what,
        path: arguments.checkpoint.display().to_string(),
        reason,
    };
    let torch = |source| WorkerError::Torch { step: 0, source };
    let (mut sums, mut unreadable, mut first_problem) = (None::<Sums>, 0, String::new());
    for path in &arguments.pictures {
        if began.elapsed() > limit {
            break;
        }
        let picture = match scorer.read(path)? {
            Ok(picture) => picture,
            Err(reason) => {
                if unreadable == 0 {
                    first_problem = format!("{}: {reason}", path.display());
                }
                unreadable += 1;
                continue;
            }
        };
        let seen = tch::no_grad(|| scorer.model.attention(&picture))?.ok_or_else(|| {
            input(
                "checkpoint",
                "has no attention: model.graph is not \"gat\"".to_owned(),
            )
        })?;
        let one = |of: &Tensor| {
            of.f_squeeze_dim(0)
                .and_then(|t| t.f_to_kind(Kind::Double))
                .and_then(|t| t.f_to_device(Device::Cpu))
        };
        let (between, within) = (
            one(&seen.between).map_err(torch)?,
            one(&seen.within).map_err(torch)?,
        );
        sums = Some(match sums {
            None => Sums {
                between,
                within,
                pictures: 1,
            },
            Some(sums) => Sums {
                between: sums.between.f_add(&between).map_err(torch)?,
                within: sums.within.f_add(&within).map_err(torch)?,
                pictures: sums.pictures + 1,
            },
        });
    }
    let sums = sums.ok_or_else(|| {
        let reason = format!(
            "no picture of {} could be looked at: {first_problem}",
            arguments.pictures.len()
        );
        input("pictures for", reason)
    })?;
    let answer = answer(&scorer, &sums, unreadable, arguments.pictures.len()).map_err(torch)?;
    let text = serde_json::to_string(&answer).unwrap_or_default();
    writeln!(out, "{text}")
        .map_err(|error| input("checkpoint", format!("the output was closed: {error}")))
}

fn answer(
    scorer: &Scorer,
    sums: &Sums,
    unreadable: u32,
    asked: usize,
) -> Result<Answer, tch::TchError> {
    let description = &scorer.description;
    let mean = 1.0 / f64::from(sums.pictures.max(1));
    let groups = description.groups.iter().enumerate();
    let groups = groups.map(|(number, (name, classes))| {
        let class = |&class: &u32| description.classes.get(class as usize).cloned();
        let within = sums.within.f_select(0, number as i64)?;
        Ok(Group {
            name: name.clone(),
            classes: classes.iter().filter_map(class).collect(),
            within: rows(&within, classes.len(), mean)?,
        })
    });
    Ok(Answer {
        pictures: sums.pictures,
        unreadable,
        not_begun: u32::try_from(asked)
            .unwrap_or(u32::MAX)
            .saturating_sub(sums.pictures + unreadable),
        groups: groups.collect::<Result<_, tch::TchError>>()?,
        between: rows(&sums.between, description.groups.len(), mean)?,
    })
}

/// The first `n` rows and columns of a square.
fn rows(square: &Tensor, n: usize, factor: f64) -> Result<Vec<Vec<f64>>, tch::TchError> {
    let n = n as i64;
    let part = square.f_narrow(0, 0, n)?.f_narrow(1, 0, n)?;
    let values = Vec::<f64>::try_from(part.f_contiguous()?.f_flatten(0, -1)?)?;
    let row = |row: &[f64]| row.iter().map(|value| value * factor).collect();
    Ok(values.chunks(n.max(1) as usize).map(row).collect())
}
