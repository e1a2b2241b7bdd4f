//! `coordinator report`, and the report that every run leaves at its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::coco::Dataset;

use super::failure::DATA;
use super::{BUG, Failure, LOST, OK, ReportArgs, USAGE, signals};
use crate::report::{Attention, Job, Material, ReportError};
use crate::run::Launch;
use crate::terminal::{Terminal, answer};

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        let exit_code = match &error {
            ReportError::Record(_) => USAGE,
            ReportError::Store(_) => DATA,
            ReportError::Write(_) | ReportError::Folder { .. } => LOST,
        };
        Self::new(exit_code, error.to_string())
    }
}

/// Makes the report of a run again.
pub(super) async fn report(args: &ReportArgs) -> Result<u8, Failure> {
    let run_dir = args.run_dir.canonicalize().map_err(|problem| {
        let what = format!("{}: {problem}: check --run-dir", args.run_dir.display());
        Failure::new(USAGE, what)
    })?;
    let worker = args.worker_binary.clone().or_else(beside_this);
    let measure = (!args.without_attention).then_some(worker).flatten();
    let why = if args.without_attention {
        "it was not asked for (--without-attention)"
    } else {
        "there is no worker binary beside this program (--worker-binary)"
    };
    let report = Report::make(run_dir, None, measure, why).await?;
    report.measure().await?;
    answer(&report.page.display().to_string());
    Ok(OK)
}

/// The worker binary that a run's local workers were started from, or the one beside this program.
pub(super) fn worker_of(launch: &Launch) -> Option<PathBuf> {
    match launch {
        Launch::Local { worker_binary, .. } => Some(worker_binary.clone()),
        Launch::External { .. } => beside_this(),
    }
}

/// Leaves a report at a run's end. A run that was told to end has no time for measurements: then there is no `worker`.
/// That there is no report is a warning: the run is what it is.
pub(super) async fn leave(
    run_dir: &Path,
    dataset: &Arc<Dataset>,
    worker: Option<PathBuf>,
    terminal: &Terminal,
) -> Option<Report> {
    let why = "the run ended before it had finished";
    match Report::make(run_dir.to_owned(), Some(Arc::clone(dataset)), worker, why).await {
        Ok(report) => Some(report),
        Err(failure) => {
            terminal.warn(&format!(
                "there is no report of this run: {failure}; `coordinator report --run-dir {}` tries again",
                run_dir.display()
            ));
            None
        }
    }
}

/// A report that is written, and what would complete it.
pub(super) struct Report {
    page: PathBuf,
    material: Arc<Material>,
    /// The measurement of attention, and the worker binary that makes it.
    pending: Option<(Box<Job>, PathBuf)>,
}

impl Report {
    /// Writes the report with what is known. Without a `worker` it says `why` attention is not measured.
    async fn make(
        run_dir: PathBuf,
        dataset: Option<Arc<Dataset>>,
        worker: Option<PathBuf>,
        why: &str,
    ) -> Result<Self, Failure> {
        let gathered = blocking(move || Material::gather(&run_dir, dataset.as_deref())).await??;
        let material = Arc::new(gathered);
        let (attention, pending) = match (material.attention(), worker) {
            (Ok(known), _) => (known, None),
            (Err(_), None) => (Attention::Missing(why.to_owned()), None),
            (Err(job), Some(worker)) => {
                let why = "this page was made before it was done".to_owned();
                (Attention::Missing(why), Some((job, worker)))
            }
        };
        let page = write(&material, attention).await?;
        Ok(Self {
            page,
            material,
            pending,
        })
    }

    /// Measures attention and writes the report once more with it; Ctrl-C or SIGTERM leaves that out.
    async fn measure(&self) -> Result<(), Failure> {
        let Some((job, worker)) = &self.pending else {
            return Ok(());
        };
        let attention = tokio::select! {
            attention = job.measure(worker) => attention,
            () = signals::either() => Attention::Missing("the measurement was interrupted".to_owned()),
        };
        write(&self.material, attention).await.map(|_| ())
    }

    /// The same at a run's end, where a failure is a warning.
    pub(super) async fn complete(&self, terminal: &Terminal) {
        if let Err(failure) = self.measure().await {
            terminal.warn(&format!(
                "the report lacks the model's attention: {failure}"
            ));
        }
    }
}

async fn write(material: &Arc<Material>, attention: Attention) -> Result<PathBuf, Failure> {
    let material = Arc::clone(material);
    Ok(blocking(move || material.write(&attention)).await??)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|problem| {
        Failure::new(
            BUG,
            format!("the report's maker broke off: {problem}; report this as a bug"),
        )
    })
}

fn beside_this() -> Option<PathBuf> {
    let worker = std::env::current_exe().ok()?.with_file_name("worker");
    worker.is_file().then_some(worker)
}
