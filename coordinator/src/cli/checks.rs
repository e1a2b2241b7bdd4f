//! What is checked before a worker starts, of a start and of a dry run alike: placement, data, plan.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::coco::Dataset;
use domain::run_plan::RunPlan;

use super::pictures::PictureCheck;
use super::{Environment, Failure, StartArgs, USAGE};
use crate::config::{Config, DeviceChoice, LaunchChoice};
use crate::descriptors;
use crate::machine::{Machine, Placement, place};
use crate::run::Launch;
use crate::terminal::{Terminal, figures};

/// A run that could begin, if a run directory and the port are free.
pub(super) struct Checked {
    /// Placement recorded.
    pub(super) config: Config,
    pub(super) placement: Placement,
    /// Where workers come from.
    pub(super) launch: Launch,
    pub(super) dataset: Arc<Dataset>,
    /// Of the picture files, under way.
    pub(super) check: PictureCheck,
    pub(super) plan: RunPlan,
}

impl Checked {
    /// Checks everything but the run directory; `image_cache` remembers good picture files for the next start.
    pub(super) fn new(
        args: &StartArgs,
        mut config: Config,
        environment: &Environment,
        terminal: &Terminal,
        image_cache: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let machine = Machine::look(|name| environment.get(name).cloned())?;
        let placement = place(&config, &machine)?;
        if let Some(text) = slow_bf16(&config, &placement, machine) {
            terminal.warn(&text);
        }
        let workers = u32::try_from(placement.devices.len()).unwrap_or(u32::MAX);
        config.record_placement(placement.device, workers, placement.threads);
        config.check_fewest()?;
        check_listen(&config, args.insecure)?;
        descriptors::make_room(workers).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let launch = launch(args, &config, &placement)?;
        let dataset = Arc::new(open_data(&config, terminal)?);
        let check = PictureCheck::begin(
            Arc::clone(&dataset),
            config.data.on_bad_image,
            machine.cpus,
            image_cache,
        );
        let plan = lay_out(&config, &dataset, workers, terminal)?;
        Ok(Self {
            config,
            placement,
            launch,
            dataset,
            check,
            plan,
        })
    }

    /// Takes the port.
    pub(super) fn listen(&self) -> Result<TcpListener, Failure> {
        listen(&self.config)
    }
}

/// What is said of bfloat16 on processors that have no instructions for it: each product is then made of conversions.
fn slow_bf16(config: &Config, placement: &Placement, machine: Machine) -> Option<String> {
    let here = placement.device == DeviceChoice::Cpu && placement.threads.is_some();
    let slow = here && config.train.precision == "bf16" && !machine.bf16;
    slow.then(|| {
        format!(
            "train.precision = \"bf16\" ({}): this machine's processors have no instructions for bfloat16; steps are likely to \
             take several times as long as with \"float32\"",
            config.origin("train.precision")
        )
    })
}

fn check_listen(config: &Config, insecure: bool) -> Result<(), Failure> {
    let address = config.run.listen;
    if address.ip().is_loopback() || insecure {
        return Ok(());
    }
    Err(Failure::new(
        USAGE,
        format!(
            "run.listen = {address} ({}) reaches beyond this machine, and there is neither encryption nor authentication \
         yet: listen at 127.0.0.1, or say --insecure if everyone who can reach it may control the run",
            config.origin("run.listen")
        ),
    ))
}

fn listen(config: &Config) -> Result<TcpListener, Failure> {
    let address = config.run.listen;
    TcpListener::bind(address).map_err(|error| {
        Failure::new(USAGE, format!(
            "run.listen = {address} ({}) cannot be listened at: {error}: choose another port, or port 0 for any free one",
            config.origin("run.listen")
        ))
    })
}

fn launch(args: &StartArgs, config: &Config, placement: &Placement) -> Result<Launch, Failure> {
    let workers = u32::try_from(placement.devices.len()).unwrap_or(u32::MAX);
    Ok(match config.run.launch {
        LaunchChoice::External => Launch::External { workers },
        LaunchChoice::Local => Launch::Local {
            worker_binary: worker_binary(args.worker_binary.as_deref())?,
            devices: placement.devices.clone(),
            threads: placement.threads.map_or(1, |threads| threads.compute),
        },
    })
}

fn worker_binary(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let (path, hint) = match given {
        Some(path) => (path.to_owned(), "check --worker-binary"),
        None => {
            let own = std::env::current_exe().map_err(|error| {
                Failure::new(
                    USAGE,
                    format!(
                        "this program does not know where it is ({error}): give --worker-binary"
                    ),
                )
            })?;
            (
                own.with_file_name("worker"),
                "build it (`make build`), or name it by --worker-binary",
            )
        }
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(Failure::new(
            USAGE,
            format!("{}: there is no worker binary here: {hint}", path.display()),
        ))
    }
}

fn open_data(config: &Config, terminal: &Terminal) -> Result<Dataset, Failure> {
    let dataset = Dataset::open(&config.data_paths(), &config.data_options())?;
    for split in [&dataset.train, &dataset.val] {
        for warning in &split.warnings {
            let times = if warning.count > 1 {
                format!(" ({} times)", figures::grouped(warning.count))
            } else {
                String::new()
            };
            terminal.warn(&format!(
                "{}: {}{times}",
                split.annotation_file.display(),
                warning.text
            ));
        }
    }
    Ok(dataset)
}

fn lay_out(
    config: &Config,
    dataset: &Dataset,
    workers: u32,
    terminal: &Terminal,
) -> Result<RunPlan, Failure> {
    let shape = config.run_shape(dataset);
    let mistakes: Vec<String> = shape
        .mistakes(workers)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !mistakes.is_empty() {
        return Err(Failure::new(USAGE, mistakes.join("\n")));
    }
    let micro_batches = shape.global_batch / shape.micro_batch;
    if workers > micro_batches {
        let idle = workers - micro_batches;
        terminal.warn(&format!(
            "{workers} workers share {} a step, so {idle} of them {} nothing to train on: raise train.global_batch or lower \
             train.micro_batch",
            figures::count(micro_batches.into(), "micro-batch", "micro-batches"),
            if idle == 1 { "has" } else { "have" }
        ));
    }
    RunPlan::new(shape, workers).map_err(|error| Failure::new(USAGE, error.to_string()))
}
