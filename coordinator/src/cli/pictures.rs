//! The check of all picture files while the workers start: presence, header, end marker.
//!
//! A small set is known within [`HEAD_START`], before any worker is started. A large one is read on while the first
//! steps run, and what is wrong then ends the run.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use data::coco::Dataset;
use data::files::{CheckOptions, OnBadImage, check_files};
use tokio::sync::oneshot;

use super::Failure;
use super::failure::DATA;
use crate::run::Shutdown;
use crate::terminal::Terminal;

/// How long a start waits for the check before it goes on without.
const HEAD_START: Duration = Duration::from_secs(1);

/// What a check found: the pictures that are left out, or why the set cannot be used.
type Found = Result<Vec<String>, String>;

/// A check under way in a thread of its own.
#[derive(Debug)]
pub(super) struct PictureCheck {
    done: mpsc::Receiver<()>,
    found: oneshot::Receiver<Found>,
}

impl PictureCheck {
    /// Begins to read the files of both splits; `cache` remembers good ones for the next start.
    pub(super) fn begin(
        dataset: Arc<Dataset>,
        on_bad_image: OnBadImage,
        threads: u32,
        cache: PathBuf,
    ) -> Self {
        let (tell_done, done) = mpsc::channel();
        let (tell_found, found) = oneshot::channel();
        std::thread::spawn(move || {
            let options = CheckOptions {
                on_bad_image,
                threads: threads as usize,
                cache: Some(&cache),
            };
            // Nobody may be listening any more: the run has ended.
            let _ = tell_found.send(check(&dataset, &options));
            let _ = tell_done.send(());
        });
        Self { done, found }
    }

    /// Waits a moment for the check. Gives itself back if it takes longer.
    ///
    /// # Errors
    /// [`DATA`] when pictures cannot be used.
    pub(super) fn soon(mut self, terminal: &Terminal) -> Result<Option<Self>, Failure> {
        if self.done.recv_timeout(HEAD_START).is_err() {
            return Ok(Some(self));
        }
        match self.found.try_recv() {
            Ok(found) => tell(found, terminal).map_err(|text| Failure::new(DATA, text))?,
            Err(_) => terminal.warn("the picture files could not be checked"),
        }
        Ok(None)
    }

    /// Waits for the check while the run goes on, and ends the run if pictures cannot be used.
    pub(super) async fn watch(
        self,
        requests: tokio::sync::mpsc::Sender<Shutdown>,
        terminal: &Terminal,
    ) {
        let found = tokio::select! {
            found = self.found => found,
            () = requests.closed() => return,
        };
        if let Ok(Err(text)) = found.map(|found| tell(found, terminal)) {
            // A run that has ended takes no more requests.
            let _ = requests.send(Shutdown::BadPictures(text)).await;
        }
    }
}

fn tell(found: Found, terminal: &Terminal) -> Result<(), String> {
    let left_out = found?;
    left_out
        .iter()
        .for_each(|image| terminal.warn(&format!("left out: {image}")));
    Ok(())
}

/// Both splits, so that all is told at once.
fn check(dataset: &Dataset, options: &CheckOptions<'_>) -> Found {
    let (mut left_out, mut bad) = (Vec::new(), Vec::new());
    for split in [&dataset.train, &dataset.val] {
        match check_files(split, options) {
            Ok(report) => left_out.extend(report.bad.iter().map(ToString::to_string)),
            Err(found) => bad.push(found.to_string()),
        }
    }
    if bad.is_empty() {
        Ok(left_out)
    } else {
        Err(bad.join("\n"))
    }
}
