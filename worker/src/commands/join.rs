//! `worker join`: one rank of a run, from the first connection to the last word.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use data::cache::Cache;
use data::coco::Split;
use data::loader::{Loader, LoaderOptions};
use model::{HgatFc, Operations, weights};
use nccl_rs::Lifeline;
use proto::v1::{self, session_request::Message};
use tch::Device;

use crate::again::execute_again;
use crate::describe::Description;
use crate::device::{self, Budget};
use crate::error::WorkerError;
use crate::load::load;
use crate::member::Member;
use crate::rows::Rows;
use crate::session::{Identity, Link};
use crate::snapshot::About;
use crate::train::average::Average;
use crate::train::batch::Normaliser;
use crate::train::feed::{Feed, together};
use crate::train::held::Held;
use crate::train::online::Online;
use crate::train::optimizer::Optimizer;
use crate::train::restore::kinds;
use crate::train::transform;
use crate::train::work::Work;

/// How long a worker tries to reach a coordinator that may not be listening yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// Join a run: train on one device until the coordinator says it is done.
///
/// `coordinator start` does this for every worker on its own machine. By hand it is for workers on other machines.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker join --coordinator http://10.0.0.7:50051 --device cuda:0"
)]
pub(crate) struct Join {
    /// Address of the coordinator, as it printed it
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// The run to join; without it, whichever this coordinator serves
    #[arg(long, default_value = "", value_name = "ID")]
    run_id: String,
    /// A name of this worker that no other has
    #[arg(long, value_name = "NAME")]
    worker_id: Option<String>,
    /// Folder where a coordinator of this machine writes its address, in case it is started again at another one
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Where to compute: cpu, or cuda:0, cuda:1, …
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Standard input is a socket by which whoever started this process learns of its end
    #[arg(long, hide = true)]
    lifeline: bool,
}

/// Joins, trains, leaves.
///
/// # Errors
/// [`WorkerError`]; the coordinator has been told.
pub(crate) fn run(arguments: &Join) -> Result<(), WorkerError> {
    if arguments.lifeline && matches!(Lifeline::until_noted(), Ok(false)) {
        return Err(WorkerError::NotNoted);
    }
    // Before anything is opened that peers wait for.
    let lifeline = arguments.lifeline.then(Lifeline::take_standard_input);
    let lifeline = match lifeline.transpose() {
        Ok(lifeline) => lifeline,
        Err(problem) => {
            tracing::warn!(
                "no lifeline ({problem}): a sudden end shows when this process's connections close"
            );
            None
        }
    };
    if let Some(problem) = lifeline.as_ref().and_then(Lifeline::late) {
        tracing::info!(
            "a sudden end shows a tenth of a second late: no descriptors of its own for a thread ({problem})"
        );
    }
    let done = join(arguments);
    if let Some(lifeline) = lifeline {
        lifeline.farewell();
    }
    done
}

fn join(arguments: &Join) -> Result<(), WorkerError> {
    let device = device::parse(&arguments.device)?;
    let host = device::host();
    let budget = Budget::look(device)?;
    let identity = Identity {
        run_id: arguments.run_id.clone(),
        worker_id: arguments
            .worker_id
            .clone()
            .unwrap_or_else(|| format!("{host}-{}", std::process::id())),
        host,
        device: arguments.device.clone(),
        device_name: device::name(device),
        threads: budget.threads(None, None).compute,
        run_dir: arguments.run_dir.clone(),
    };
    let mut link = Link::join(&arguments.coordinator, &identity, PATIENCE)?;
    let welcome = link.inbox.welcome()?;
    link.reach("welcomed");
    link.beat(&welcome);
    link.now(0, 0, v1::Activity::Setup);
    link.drain_on_sigterm();
    let link = Arc::new(link);
    match take_part(&link, &arguments.coordinator, (device, budget), &welcome) {
        Ok(()) => Ok(()),
        Err(WorkerError::Ended(ended)) if ended.exit_code == 0 => Ok(()),
        // What the coordinator said is the cause; a call that failed because of it is not.
        Err(error) => Err(match link.inbox.ended() {
            Some(ended) if ended.exit_code == 0 => return Ok(()),
            Some(ended) => ended.into(),
            None if device != Device::Cpu && error.is_of_device() => {
                execute_again(&link, &error.to_string());
                error
            }
            None => report(&link, error),
        }),
    }
}

/// Tells the coordinator why this worker fails, and waits for its word: it knows the first cause.
fn report(link: &Link, error: WorkerError) -> WorkerError {
    let Some(class) = error.class() else {
        return error;
    };
    tracing::error!("{error}");
    let (generation, step) = link.position();
    link.send(Message::Fault(v1::Fault {
        generation,
        step,
        class: class.into(),
        message: error.to_string(),
    }));
    match link.inbox.released_within(Duration::from_secs(10)) {
        Some(ended) if ended.exit_code != 0 => ended.into(),
        _ => error,
    }
}

fn take_part(
    link: &Arc<Link>,
    coordinator: &str,
    (device, budget): (Device, Budget),
    welcome: &v1::Welcome,
) -> Result<(), WorkerError> {
    let missing = |what: &str| {
        WorkerError::Config(format!(
            "the coordinator's welcome has no {what}; are both of one version"
        ))
    };
    let spec = welcome.spec.as_ref().ok_or_else(|| missing("spec"))?;
    let model_spec = spec.model.as_ref().ok_or_else(|| missing("model"))?;
    let data_spec = spec.data.as_ref().ok_or_else(|| missing("data"))?;
    let train_spec = spec.train.as_ref().ok_or_else(|| missing("train"))?;
    let (kind, compute) = kinds(&train_spec.precision);
    let threads = budget.threads(train_spec.threads, data_spec.loader_threads);
    budget.tell(threads);
    tch::set_num_threads(i32::try_from(threads.compute).unwrap_or(1));
    if device != Device::Cpu {
        // Repeating to the bit is promised on the CPU alone; here convolutions take the fastest way that is found.
        nccl_rs::allow_tf32(true);
        tch::Cuda::cudnn_set_benchmark(true);
    } else {
        // The model shall lie there already.
        nccl_rs::keep_memory();
    }

    // Set up while others are still joining.
    let description = Description::of(model_spec, data_spec);
    let config = description.config(model_spec.last_bias)?;
    let mut model = if device == Device::Cpu {
        let operations = Operations {
            product: nccl_rs::stacked_product,
            convolution: nccl_rs::convolution,
            norm: nccl_rs::norm,
        };
        HgatFc::with_operations(&config, device, kind, spec.seed, operations)
    } else {
        HgatFc::new(&config, device, kind, spec.seed)
    }?;
    let mut initial = format!("first values from seed {}", spec.seed);
    if !train_spec.init.is_empty() {
        initial = start_from(&mut model, train_spec)?;
    }
    if train_spec.freeze_trunk {
        model.freeze_trunk()?;
        initial.push_str("; the trunk is frozen");
    }
    let (train, val) = (split(link, v1::Split::Train)?, split(link, v1::Split::Val)?);
    let rows = Rows::new(spec.scoring.as_ref(), val.samples.len() as u32);
    let loader = Loader::start(
        Arc::new(train),
        Arc::new(val),
        options(spec.seed, data_spec, threads.decoding)?,
    )
    .map_err(|source| WorkerError::Threads {
        threads: threads.decoding as usize,
        source,
    })?;

    let torch = |source| WorkerError::Torch { step: 0, source };
    let parameters = model.trainable().map(|p| (&p.tensor, p.role));
    let optimizer = Optimizer::new(train_spec, parameters).map_err(torch)?;
    let average = Average::new(&model, train_spec).map_err(torch)?;
    let about = About {
        run_id: welcome.run_id.clone(),
        seed: spec.seed,
        steps_per_epoch: train_spec.steps_per_epoch,
        metadata: description.metadata(),
    };
    let classes = model_spec.classes.len();
    let normaliser = Normaliser::new(
        &data_spec.mean,
        &data_spec.std,
        data_spec.size,
        classes,
        (kind, compute),
        device,
    )
    .map_err(torch)?;
    let online = Online::new(rows.online, train_spec.steps_per_epoch);
    let feed = Feed::new(
        Arc::clone(&link.inbox),
        loader,
        normaliser,
        train_spec.micro_batch as usize,
        rows,
        train_spec.micro_batches_per_pass.map_or_else(
            || together(device, train_spec.micro_batch, data_spec.size),
            |given| given as usize,
        ),
    )
    .map_err(torch)?;
    let mut member = Member {
        link: Arc::clone(link),
        coordinator: coordinator.to_owned(),
        device,
        train: train_spec.clone(),
        about: Arc::new(about),
        held: Held {
            work: Work::new(&model).map_err(torch)?,
            kept: None,
            model,
            optimizer,
            average,
            steps: None,
        },
        feed,
        online,
        initial,
    };
    if device == Device::Cpu {
        // What setting up needed for a moment is given back; from here on freed memory is soon wanted again.
        nccl_rs::release_unused_memory();
        nccl_rs::keep_memory();
    }
    member.take_part()
}

/// Starts from a weight file; says what matched.
fn start_from(model: &mut HgatFc, spec: &v1::TrainSpec) -> Result<String, WorkerError> {
    let file = weights::read(&PathBuf::from(&spec.init))?;
    let scope = if spec.init_mode == "whole" {
        weights::Scope::Whole
    } else {
        weights::Scope::Trunk
    };
    load(model, &file, scope)
}

fn split(link: &Link, which: v1::Split) -> Result<Split, WorkerError> {
    loop {
        match link.dataset(which) {
            Ok(index) => return Ok(Split::decode(&index)?),
            Err(_) if link.is_found_again() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn options(seed: u64, spec: &v1::DataSpec, threads: u32) -> Result<LoaderOptions, WorkerError> {
    Ok(LoaderOptions {
        size: spec.size,
        seed,
        train: transform::parse(spec)?,
        flip: spec.flip,
        cache: cache(spec)?,
        pixels: transform::pixels(spec),
        on_bad_image: transform::on_bad_image(spec),
        threads: threads as usize,
        prefetch: spec.prefetch_batches as usize,
    })
}

/// The cache of decoded pictures, if there is to be one; its troubles are said in the log and end nothing.
fn cache(spec: &v1::DataSpec) -> Result<Option<Arc<Cache>>, WorkerError> {
    if spec.cache.is_empty() {
        return Ok(None);
    }
    let tell = |text: &str| tracing::warn!("data.cache: {text}");
    Cache::open(spec.cache.as_ref(), spec.cache_bytes, tell)
        .map(|cache| Some(Arc::new(cache)))
        .map_err(|error| WorkerError::Input {
            what: "data.cache",
            path: spec.cache.clone(),
            reason: error.to_string(),
        })
}
