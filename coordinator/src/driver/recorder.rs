//! `events.jsonl`: what happened and when, so that a run's decisions can be replayed through the same function.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use domain::run::{Config, Effect, Event, Millis, Reason};
use serde::Serialize;

/// The first line of a process's part.
#[derive(Serialize)]
struct Head<'a> {
    part: &'a Config,
    run_id: &'a str,
    /// The wall clock where `at_ms` is 0, for people who compare with other records. Nothing is decided by it.
    began_unix_ms: u64,
}

/// A sample that was left out: decides nothing, and is what people look for.
#[derive(Serialize)]
struct Skipped<'a> {
    at_ms: Millis,
    note: &'a str,
    split: &'a str,
    sample: u32,
    reason: &'a str,
}

/// Every other line.
#[derive(Serialize)]
struct Line<'a> {
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

fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Appends events to the file; buffered, flushed by the driver every second and at the end.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: Option<BufWriter<File>>,
    path: PathBuf,
}

impl Recorder {
    /// Opens the file and begins a part.
    pub(crate) fn open(path: &Path, run_id: &str, config: &Config) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let mut recorder = Self {
            file: Some(BufWriter::new(file)),
            path: path.to_owned(),
        };
        recorder.line(&Head {
            part: config,
            run_id,
            began_unix_ms: unix_millis(),
        })?;
        Ok(recorder)
    }

    /// Records an event and a digest of what was decided about it. After a failure, which is returned once, nothing more is recorded: a record with a hole could
    /// not be replayed.
    pub(crate) fn event(
        &mut self,
        event: &Event,
        at_ms: Millis,
        effects: &[Effect],
        reason: &Reason,
    ) -> Option<String> {
        let result = self.line(&Line {
            at_ms,
            event,
            decided: digest(effects, reason),
        });
        self.stop_on(result)
    }

    /// Lists a sample that was left out; `reason` names its file. A replay passes over lines without an `event`.
    pub(crate) fn skipped(
        &mut self,
        (split, sample): (&str, u32),
        reason: &str,
        at_ms: Millis,
    ) -> Option<String> {
        let result = self.line(&Skipped {
            at_ms,
            note: "sample_skipped",
            split,
            sample,
            reason,
        });
        self.stop_on(result)
    }

    /// Hands what is buffered to the operating system.
    pub(crate) fn flush(&mut self) -> Option<String> {
        let result = self.file.as_mut().map_or(Ok(()), Write::flush);
        self.stop_on(result)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        serde_json::to_writer(&mut *file, line)?;
        file.write_all(b"\n")
    }

    fn stop_on(&mut self, result: io::Result<()>) -> Option<String> {
        let problem = result.err()?;
        self.file = None;
        Some(format!(
            "events are no longer recorded in {}: {problem}",
            self.path.display()
        ))
    }
}
