//! `tb/`: one event file for TensorBoard, which grows while a run goes on and is written anew where steps became void.
//!
//! TensorBoard reads files in the order of their names, and takes one that begins for a restart: what it has read of older
//! ones it drops.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::v1::StepPoint;
use tokio::sync::oneshot;

use super::tensorboard::{events, head};
use crate::evaluation::Evaluated;
use crate::history::{History, Place};

/// How long a step may wait to be shown.
const PAUSE: Duration = Duration::from_secs(10);
const BEGINS: &str = "events.out.tfevents.";
const ENDS: &str = ".hgat";

/// Writes a file of all steps and evaluations into `folder`, made if it is not there; older ones go.
pub(super) fn write(
    folder: &Path,
    steps: &[StepPoint],
    evaluations: &[Evaluated],
) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let old: Vec<PathBuf> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
        .collect();
    let began = steps.first().map_or(0, |point| point.unix_millis);
    let mut bytes = head(began);
    bytes.extend(events(steps, evaluations));
    // Whoever looks meanwhile sees no half file; one that a full disk keeps from being whole is no file of events.
    let new = folder.join(".new");
    let path = folder.join(later_than(&old));
    let whole = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, &path)?;
        Ok(file)
    };
    let file = whole().inspect_err(|_: &io::Error| {
        let _ = fs::remove_file(&new);
    })?;
    for path in old {
        // One that stays is begun anew by the newer one.
        let _ = fs::remove_file(path);
    }
    Ok(file)
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(BEGINS) && name.ends_with(ENDS)
}

/// A name by the clock that sorts behind the others.
fn later_than(old: &[PathBuf]) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut millis = since.unwrap_or_default().as_millis();
    let name = |millis: u128| format!("{BEGINS}{:010}.{:03}{ENDS}", millis / 1000, millis % 1000);
    let taken = |name: &str| {
        old.iter()
            .any(|path| path.file_name().is_some_and(|old| old >= name))
    };
    for _ in 0..old.len() * 1000 {
        if !taken(&name(millis)) {
            break;
        }
        millis += 1;
    }
    name(millis)
}

/// Follows a run's history.
#[derive(Debug)]
pub(crate) struct Board {
    folder: PathBuf,
    history: Arc<History>,
    /// Ends with what is known up to `place`; `None`: to be written anew.
    file: Option<File>,
    place: Place,
}

impl Board {
    /// Of a run directory; nothing is written yet.
    pub(crate) fn new(run_dir: &Path, history: Arc<History>) -> Self {
        Self {
            folder: run_dir.join("tb"),
            history,
            file: None,
            place: Place::default(),
        }
    }

    /// Adds what is new every few seconds until the run is `over`. What cannot be written is tried again.
    pub(crate) async fn follow(mut self, mut over: oneshot::Receiver<()>) {
        let mut pauses = tokio::time::interval(PAUSE);
        loop {
            let last = tokio::select! {
                _ = pauses.tick() => false,
                _ = &mut over => true,
            };
            let caught_up = tokio::task::spawn_blocking(move || {
                let result = self.catch_up();
                (self, result)
            });
            let Ok((board, result)) = caught_up.await else {
                return;
            };
            self = board;
            if let Err(problem) = result {
                tracing::debug!(folder = %self.folder.display(), %problem, "steps wait to be shown in TensorBoard");
            }
            if last {
                return;
            }
        }
    }

    /// Adds what is new, or writes all anew where some of it became void.
    fn catch_up(&mut self) -> io::Result<()> {
        let news = self.history.since(self.place);
        let file = self.file.take();
        if let (Some(mut file), false) = (file, news.from_beginning) {
            // A part of it that is written alone would spoil the file: after a failure it is written anew.
            file.write_all(&events(&news.steps, &news.evaluations))?;
            self.file = Some(file);
        } else {
            let all = self.history.since(Place::default());
            self.file = Some(write(&self.folder, &all.steps, &all.evaluations)?);
            self.place = all.place;
            return Ok(());
        }
        self.place = news.place;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tensorboard;
    use super::*;

    fn point(step: u64) -> StepPoint {
        StepPoint {
            step,
            ..StepPoint::default()
        }
    }

    fn shown(folder: &Path) -> Vec<i64> {
        let files: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        // Behind the version and the session's start
        tensorboard::steps(&fs::read(files[0].path()).unwrap())[2..].to_vec()
    }

    #[test]
    fn a_board_grows_with_the_run_and_begins_anew_where_steps_became_void() {
        let folder = tempfile::tempdir().unwrap();
        let history = Arc::new(History::new(vec![point(0), point(1)], Vec::new(), 4));
        let mut board = Board::new(folder.path(), Arc::clone(&history));
        let tb = folder.path().join("tb");

        board.catch_up().unwrap();
        assert_eq!(shown(&tb), [0, 1]);
        history.push_step(point(2));
        history.push_step(point(3));
        board.catch_up().unwrap();
        board.catch_up().unwrap();
        assert_eq!(shown(&tb), [0, 1, 2, 3]);

        // When two steps become void and are done again, one of them before anybody looked
        history.void_from(2);
        history.push_step(point(2));
        board.catch_up().unwrap();
        assert_eq!(shown(&tb), [0, 1, 2]);
        history.push_step(point(3));
        board.catch_up().unwrap();
        assert_eq!(shown(&tb), [0, 1, 2, 3]);
    }
}
