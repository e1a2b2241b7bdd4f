//! `events.jsonl`: what happened and when, so that a run's decisions can be replayed through the same function.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use domain::run::{Config, Effect, Event, Millis, Reason};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The first line of a process's part.
#[derive(Serialize)]
struct Head<'a> {
    part: &'a Config,
    run_id: &'a str,
    /// The number of the last line of the part before, as this process found it: a replay then sees that lines of it were
    /// lost since. Absent in the first part, and after one of an older version, whose lines have no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// The wall clock where `at_ms` is 0, for people who compare with other records. Nothing is decided by it.
    began_unix_ms: u64,
}

/// A sample that was left out: decides nothing, and is what people look for.
#[derive(Serialize)]
struct Skipped<'a> {
    n: u64,
    at_ms: Millis,
    note: &'a str,
    split: &'a str,
    sample: u32,
    reason: &'a str,
}

/// Every other line. Lines of a part are numbered from 1 in `n`, so that a replay sees that one is missing also where it
/// decides nothing.
#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    at_ms: Millis,
    #[serde(flatten)]
    event: &'a Event,
    decided: String,
}

/// A digest of a decision, which a replay compares with its own: 64 bits in hexadecimal over the effects as JSON and
/// the reason's words.
pub(crate) fn digest(effects: &[Effect], reason: &Reason) -> String {
    // Effects are plain values: text, numbers and lists.
    let mut text = serde_json::to_string(effects).unwrap_or_default();
    text.push_str(&reason.to_string());
    format!("{:016x}", proto::digest(text.as_bytes()))
}

/// The wall clock, for people who compare with other records. Nothing is decided by it.
pub(crate) fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Lines are handed to the operating system at the latest when there are so many bytes of them.
const BUFFER_BYTES: usize = 64 << 10;
/// What may wait for a full disk; then the record is given up.
const KEPT_BYTES: usize = 64 << 20;

/// How much of the file's end is looked through at first for its last whole line.
const TAIL_BYTES: u64 = 64 << 10;

/// A line of an earlier part, as far as its number goes.
#[derive(Deserialize)]
struct Numbered {
    n: Option<u64>,
    part: Option<IgnoredAny>,
}

/// The number of the last whole line, 0 for a part's head. Nothing in a new file, and where lines are not numbered.
fn last_number(file: &mut File) -> io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    let mut span = TAIL_BYTES;
    loop {
        let from = length.saturating_sub(span);
        file.seek(io::SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(span).read_to_end(&mut tail)?;
        // The first of a tail may be the end of a line, the last may be cut off: neither reads as an object.
        let mut lines = tail.rsplit(|byte| *byte == b'\n');
        if let Some(last) = lines.find_map(|line| serde_json::from_slice::<Numbered>(line).ok()) {
            return Ok(last.n.or(last.part.map(|_| 0)));
        }
        if from == 0 {
            return Ok(None);
        }
        span *= 16;
    }
}

/// Appends events to the file; buffered, flushed by the driver every second and at the end.
///
/// What cannot be written waits until it can: a record with a hole could not be replayed.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: Option<File>,
    /// Lines, the first of which may be written in part.
    kept: Vec<u8>,
    /// Whether people were told that lines wait.
    told: bool,
    /// Lines of this part, its head not counted.
    lines: u64,
    path: PathBuf,
}

impl Recorder {
    /// Opens the file and begins a part.
    pub(crate) fn open(path: &Path, run_id: &str, config: &Config) -> io::Result<Self> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(path)?;
        let mut recorder = Self {
            kept: Vec::new(),
            told: false,
            lines: 0,
            path: path.to_owned(),
            file: None,
        };
        let after = last_number(&mut file)?;
        // A coordinator that was killed may have left a line unfinished.
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(io::SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            recorder.kept.push(b'\n');
        }
        recorder.file = Some(file);
        recorder.line(&Head {
            part: config,
            run_id,
            after,
            began_unix_ms: unix_millis(),
        })?;
        recorder.write()?;
        Ok(recorder)
    }

    /// Records an event and a digest of what was decided about it.
    pub(crate) fn event(
        &mut self,
        event: &Event,
        at_ms: Millis,
        effects: &[Effect],
        reason: &Reason,
    ) -> Option<String> {
        let n = self.next();
        let result = self.line(&Line {
            n,
            at_ms,
            event,
            decided: digest(effects, reason),
        });
        self.after(result)
    }

    /// Lists a sample that was left out; `reason` names its file. A replay passes over lines without an `event`.
    pub(crate) fn skipped(
        &mut self,
        (split, sample): (&str, u32),
        reason: &str,
        at_ms: Millis,
    ) -> Option<String> {
        let n = self.next();
        let result = self.line(&Skipped {
            n,
            at_ms,
            note: "sample_skipped",
            split,
            sample,
            reason,
        });
        self.after(result)
    }

    /// Hands what is buffered to the operating system.
    pub(crate) fn flush(&mut self) -> Option<String> {
        let result = self.write();
        self.after(result)
    }

    fn next(&mut self) -> u64 {
        self.lines += 1;
        self.lines
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        serde_json::to_writer(&mut self.kept, line)?;
        self.kept.push(b'\n');
        if self.kept.len() >= BUFFER_BYTES && !self.told {
            return self.write();
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let (mut done, mut result) = (0, Ok(()));
        while done < self.kept.len() && result.is_ok() {
            match file.write(&self.kept[done..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => done += more,
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => result = Err(problem),
            }
        }
        self.kept.drain(..done);
        result
    }

    /// What people are to be told, if anything.
    fn after(&mut self, result: io::Result<()>) -> Option<String> {
        let Err(problem) = result else {
            self.told &= !self.kept.is_empty();
            return None;
        };
        let path = self.path.display();
        if self.kept.len() > KEPT_BYTES {
            self.file = None;
            self.kept = Vec::new();
            return Some(format!(
                "events are no longer recorded in {path}, since too many of them waited: {problem}"
            ));
        }
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(format!(
            "events wait to be recorded in {path}: {problem}; make room on this disk"
        ))
    }
}

/// A run of one worker and two steps, for tests that need any config.
#[cfg(test)]
pub(crate) fn smallest_config() -> Config {
    let config = serde_json::json!({
        "workers": 1, "min_workers": 1, "world": "elastic", "local": true,
        "budgets": { "crash": 1, "hang": 1, "preemption": 1, "memory": 0 },
        "shape": { "seed": 0, "samples": 8, "val_samples": 2, "global_batch": 4, "micro_batch": 2, "epochs": 1,
            "evaluate_every_epochs": 1, "snapshot_every_steps": null, "snapshot_every_epochs": 1 },
        "begins_at_step": 0, "from_checkpoint": false, "evaluate_first": false, "last_generation": 0,
        "stop_after": null,
        "timeouts": domain::run::Timeouts::from_fault_timeout(Millis(5000)),
    });
    serde_json::from_value(config).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_does_not_swallow_the_next_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(
            &path,
            "{\"at_ms\":1,\"event\":\"started\"}\n{\"at_ms\":2,\"ev",
        )
        .unwrap();
        let config = smallest_config();

        Recorder::open(&path, "run", &config).unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with("{\"part\":"), "{text}");
    }

    #[test]
    fn a_part_says_after_which_line_of_the_one_before_it_begins() {
        // Given parts of two lines, of none, and of three with a fourth that was cut off
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let config = smallest_config();
        let part = |lines: u32| {
            let mut recorder = Recorder::open(&path, "run", &config).unwrap();
            for sample in 0..lines {
                let long = "x".repeat(TAIL_BYTES as usize);
                assert_eq!(recorder.skipped(("train", sample), &long, Millis(1)), None);
            }
            assert_eq!(recorder.flush(), None);
        };
        part(2);
        part(0);
        part(3);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(br#"{"n":4,"at_ms":2,"ev"#).unwrap();

        // When one more begins
        part(0);

        // Then each but the first names the last whole line before it
        let text = std::fs::read_to_string(&path).unwrap();
        let heads = text.lines().filter(|line| line.starts_with("{\"part\":"));
        let after: Vec<_> = heads
            .map(|head| serde_json::from_str::<serde_json::Value>(head).unwrap()["after"].as_u64())
            .collect();
        assert_eq!(after, [None, Some(2), Some(0), Some(3)]);
    }
}
