//! The check of all picture files while the workers start: presence, header, end marker.
//!
//! A small set is known within [`HEAD_START`], before any worker is started. A large one is read on while the first
//! steps run, and what is wrong then ends the run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data::coco::Dataset;
use data::files::{CheckOptions, OnBadImage, check_files, shared_pictures};
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{mpsc, oneshot};

use super::Failure;
use super::failure::DATA;
use crate::run::Shutdown;
use crate::terminal::Terminal;

/// How long a start waits for the check before it goes on without.
const HEAD_START: Duration = Duration::from_secs(1);

/// What a check found: what people are warned of, such as pictures that are left out; or why the set cannot be used.
type Found = Result<Vec<String>, String>;

/// A check under way in a thread of its own.
#[derive(Debug)]
pub(super) struct PictureCheck(oneshot::Receiver<Found>);

impl PictureCheck {
    /// Begins to read the files of both splits; `cache` remembers good ones for the next start.
    pub(super) fn begin(
        dataset: Arc<Dataset>,
        on_bad_image: OnBadImage,
        threads: u32,
        cache: Option<PathBuf>,
    ) -> Self {
        let (found, receiver) = oneshot::channel();
        std::thread::spawn(move || {
            let options = CheckOptions {
                on_bad_image,
                threads: threads as usize,
                cache: cache.as_deref(),
            };
            // Nobody may be listening any more: the run has ended.
            let _ = found.send(check(&dataset, &options));
        });
        Self(receiver)
    }

    /// Waits a moment for the check. Gives itself back if it takes longer.
    ///
    /// # Errors
    /// [`DATA`] when pictures cannot be used.
    pub(super) async fn soon(mut self, terminal: &Terminal) -> Result<Option<Self>, Failure> {
        match tokio::time::timeout(HEAD_START, &mut self.0).await {
            Ok(found) => tell(found, terminal).map_err(|text| Failure::new(DATA, text))?,
            Err(_) => return Ok(Some(self)),
        }
        Ok(None)
    }

    /// Waits for the check to its end.
    ///
    /// # Errors
    /// [`DATA`] when pictures cannot be used.
    pub(super) async fn whole(self, terminal: &Terminal) -> Result<(), Failure> {
        tell(self.0.await, terminal).map_err(|text| Failure::new(DATA, text))
    }

    /// Waits for the check while the run goes on, and ends the run if pictures cannot be used.
    pub(super) async fn watch(self, requests: mpsc::Sender<Shutdown>, terminal: &Terminal) {
        let found = tokio::select! {
            found = self.0 => found,
            () = requests.closed() => return,
        };
        if let Err(text) = tell(found, terminal) {
            // A run that has ended takes no more requests.
            let _ = requests.send(Shutdown::BadPictures(text)).await;
        }
    }
}

/// Warns of what is odd; gives back why the set cannot be used.
fn tell(found: Result<Found, RecvError>, terminal: &Terminal) -> Result<(), String> {
    match found {
        Ok(warnings) => warnings?.iter().for_each(|text| terminal.warn(text)),
        Err(_) => terminal.warn("the picture files could not be checked"),
    }
    Ok(())
}

/// Both splits, so that all is told at once.
fn check(dataset: &Dataset, options: &CheckOptions<'_>) -> Found {
    let (mut warnings, mut bad) = (Vec::new(), Vec::new());
    for split in [&dataset.train, &dataset.val] {
        match check_files(split, options) {
            Ok(report) => {
                let left_out = report.bad.iter();
                warnings.extend(left_out.map(|image| format!("left out: {image}")));
            }
            Err(found) => bad.push(found.to_string()),
        }
    }
    if bad.is_empty() {
        warnings.extend(shared_pictures(&dataset.train, &dataset.val).warning());
        Ok(warnings)
    } else {
        Err(bad.join("\n"))
    }
}
