//! What happened in a run, from `events.jsonl`: its events are put through the domain's decisions again, whose words
//! are those that people were told at the time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use domain::run::{Config, Effect, Event, Millis, ProcessEnd, Source, State, step};
use serde::Deserialize;
use serde_json::Value;

use crate::terminal::figures::{count, grouped};

/// Of what kind something is that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A coordinator began to serve the run, or went on with it.
    Start,
    /// A generation began.
    Generation,
    /// A worker or the run failed.
    Failure,
    /// People were told of something odd.
    Warning,
    /// A checkpoint is in place.
    Checkpoint,
    /// Someone asked for something.
    Request,
    /// The run came to an end.
    End,
}

impl Kind {
    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Generation => "generation",
            Self::Failure => "failure",
            Self::Warning => "warning",
            Self::Checkpoint => "checkpoint",
            Self::Request => "request",
            Self::End => "end",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Happening {
    /// By the coordinator's wall clock; 0: not known.
    pub(super) unix_millis: u64,
    /// Steps committed by then; of a checkpoint, those that it holds.
    pub(super) step: u64,
    pub(super) kind: Kind,
    /// In words.
    pub(super) text: String,
}

/// A worker, as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkerSeen {
    pub(super) host: String,
    pub(super) device: String,
}

/// What happened, in order.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) happenings: Vec<Happening>,
    /// By the worker's name, as it was last seen.
    pub(super) workers: BTreeMap<String, WorkerSeen>,
    /// Coordinators that served the run, one after the other.
    pub(super) parts: u64,
    /// Wall clock of the first of them.
    pub(super) began_unix_millis: Option<u64>,
    /// Why there is nothing, or not all.
    pub(super) problem: Option<String>,
}

/// A line as far as it decides something.
#[derive(Deserialize)]
struct Line {
    at_ms: Millis,
    #[serde(flatten)]
    event: Event,
}

/// Reads the file; what cannot be read of it is said and passed over.
pub(super) fn read(path: &Path) -> History {
    let mut reader = Reader::default();
    match File::open(path) {
        Ok(file) => {
            for line in BufReader::new(file).lines() {
                // A coordinator that was killed may have left a line unfinished.
                if let Ok(value) = line.and_then(|line| Ok(serde_json::from_str::<Value>(&line)?)) {
                    reader.take(value);
                }
            }
        }
        Err(problem) => {
            reader.history.problem = Some(format!("{}: {problem}", path.display()));
        }
    }
    reader.history
}

#[derive(Default)]
struct Reader {
    history: History,
    state: Option<State>,
    began: u64,
    /// The reason before the last one, to tell what a generation goes back to.
    cause: String,
}

impl Reader {
    fn take(&mut self, mut value: Value) {
        if let Some(part) = value.get_mut("part").map(Value::take) {
            let began = value["began_unix_ms"].as_u64().unwrap_or(0);
            self.begin(part, began);
            return;
        }
        if let Some(text) = skipped(&value) {
            let at = value["at_ms"].as_u64().unwrap_or(0);
            self.note(Millis(at), Kind::Warning, text);
        } else if let Ok(Line { at_ms, event }) = serde_json::from_value(value) {
            self.event(at_ms, &event);
        }
    }

    fn begin(&mut self, part: Value, began: u64) {
        let config: Result<Config, _> = serde_json::from_value(part);
        let state = match config {
            Ok(config) => State::new(config).map_err(|problem| problem.to_string()),
            Err(problem) => Err(problem.to_string()),
        };
        self.began = began;
        self.history.parts += 1;
        if began > 0 {
            self.history.began_unix_millis.get_or_insert(began);
        }
        match state {
            Ok(state) => {
                let config = state.config();
                let text = match (self.history.parts, &config.adopted) {
                    (1, _) => format!("the run begins, with {} wanted", workers(config.workers)),
                    (_, Some(_)) => {
                        "a coordinator goes on in the place of one that was lost; its workers may be training still"
                            .to_owned()
                    }
                    _ => format!("a coordinator resumes after step {}", config.begins_at_step),
                };
                self.state = Some(state);
                self.note(Millis(0), Kind::Start, text);
            }
            Err(problem) => {
                self.state = None;
                self.history.problem = Some(format!(
                    "events.jsonl was written by another version ({problem})"
                ));
            }
        }
    }

    fn event(&mut self, at: Millis, event: &Event) {
        let Some(state) = self.state.take() else {
            return;
        };
        // Of two things in one moment the cause comes first.
        let told = told(event);
        let (state, effects, reason) = step(state, event, at);
        self.state = Some(state);
        if let Event::Joined {
            worker,
            host,
            device,
            ..
        } = event
        {
            let seen = WorkerSeen {
                host: host.clone(),
                device: device.clone(),
            };
            self.history.workers.insert(worker.to_string(), seen);
        }
        // What people were warned of says more than the event by itself.
        let warned = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Warn { .. }));
        let failed = told
            .as_ref()
            .is_some_and(|(kind, _)| *kind == Kind::Failure);
        if let Some((kind, text)) = told.filter(|_| !(failed && warned)) {
            // Writing takes a while, in which further steps are committed.
            let of = match event {
                Event::CheckpointEnded { step, .. } => *step,
                _ => self.steps_done(),
            };
            self.note_of(of, at, kind, text);
        }
        for effect in &effects {
            if let Some((kind, text)) = self.consequence(effect) {
                let kind = match kind {
                    Kind::Warning if failed => Kind::Failure,
                    kind => kind,
                };
                self.note(at, kind, text);
            }
        }
        self.cause = reason.to_string();
    }

    /// What a decision tells people.
    fn consequence(&self, effect: &Effect) -> Option<(Kind, String)> {
        Some(match effect {
            Effect::BeginGeneration(beginning) => {
                let members: Vec<_> = beginning.members.iter().map(ToString::to_string).collect();
                let from = match &beginning.source {
                    Source::Seed => "from its seed".to_owned(),
                    Source::Checkpoint => {
                        format!("from the checkpoint of step {}", beginning.begins_at_step)
                    }
                    Source::Peers(_) => format!(
                        "from the state after step {} that its members hold",
                        beginning.begins_at_step
                    ),
                };
                let why = self
                    .cause
                    .strip_prefix("regrouping (")
                    .and_then(|rest| rest.rsplit_once("): "))
                    .map(|(cause, _)| format!(", because {cause}"))
                    .unwrap_or_default();
                let text = format!(
                    "generation {} with {} begins {from}{why}",
                    beginning.number,
                    few(&members)
                );
                (Kind::Generation, text)
            }
            Effect::PassOver { step, .. } => (
                Kind::Warning,
                format!(
                    "the step after {} was passed over: its loss or gradient was not finite",
                    count(*step, "step", "steps")
                ),
            ),
            Effect::Warn { text } => (Kind::Warning, text.clone()),
            Effect::End(ending) => (Kind::End, ending.reason.clone()),
            _ => return None,
        })
    }

    fn steps_done(&self) -> u64 {
        self.state.as_ref().map_or(0, State::steps_done)
    }

    fn note(&mut self, at: Millis, kind: Kind, text: String) {
        self.note_of(self.steps_done(), at, kind, text);
    }

    fn note_of(&mut self, step: u64, at: Millis, kind: Kind, text: String) {
        let same = |last: &Happening| last.text == text && last.step == step;
        if self.history.happenings.last().is_some_and(same) {
            return;
        }
        self.history.happenings.push(Happening {
            unix_millis: if self.began > 0 { self.began + at.0 } else { 0 },
            step,
            kind,
            text,
        });
    }
}

/// What an event says by itself, before anything is decided about it.
fn told(event: &Event) -> Option<(Kind, String)> {
    Some(match event {
        // How it ended was told when it did.
        Event::Exited {
            end: ProcessEnd::Known,
            ..
        } => return None,
        Event::Exited { worker, end, .. } if *end != ProcessEnd::Code(0) => {
            (Kind::Failure, format!("{worker} {end}"))
        }
        Event::Fault {
            worker, message, ..
        } => (Kind::Failure, format!("{worker}: {message}")),
        Event::LaunchFailed { worker, problem } => (
            Kind::Failure,
            format!("{worker} could not be started: {problem}"),
        ),
        Event::CheckpointEnded {
            step,
            problem: None,
        } => (
            Kind::Checkpoint,
            format!("the checkpoint of step {} is in place", grouped(*step)),
        ),
        Event::CheckpointEnded {
            step,
            problem: Some(problem),
        } => (
            Kind::Failure,
            format!(
                "there is no checkpoint of step {}: {problem}",
                grouped(*step)
            ),
        ),
        Event::Evaluated {
            step,
            problem: Some(problem),
            ..
        } => (
            Kind::Failure,
            format!("there are no figures of step {}: {problem}", grouped(*step)),
        ),
        Event::StopAsked { by } => (Kind::Request, format!("a stop was asked for by {by}")),
        Event::SnapshotAsked => (Kind::Request, "a checkpoint was asked for".to_owned()),
        Event::BadData { problem } | Event::Broken { problem } => (Kind::Failure, problem.clone()),
        _ => return None,
    })
}

/// A line about a sample that was left out.
fn skipped(value: &Value) -> Option<String> {
    if value["note"] != "sample_skipped" {
        return None;
    }
    Some(format!(
        "a picture of the {} split was left out: {}",
        value["split"].as_str().unwrap_or("?"),
        value["reason"].as_str().unwrap_or("no reason was given")
    ))
}

fn workers(number: u32) -> String {
    crate::terminal::figures::count(u64::from(number), "worker", "workers")
}

/// Names, the first few of many.
fn few(names: &[String]) -> String {
    const NAMED: usize = 4;
    if names.len() <= NAMED {
        return names.join(", ");
    }
    format!(
        "{} and {} more",
        names[..NAMED].join(", "),
        names.len() - NAMED
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::smallest_config;

    #[test]
    fn what_happened_is_told_in_words_also_where_a_line_was_cut_off() {
        // Given a worker that is killed before it joins, a line that a killed coordinator left unfinished, and a second
        // coordinator
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let part = |began: u64| serde_json::json!({ "part": smallest_config(), "run_id": "a", "began_unix_ms": began });
        let exited = serde_json::json!({
            "at_ms": 40, "event": "exited", "worker": "worker-0", "end": { "signal": 9 }, "log": [], "decided": "",
        });
        let lines = [
            part(1000).to_string(),
            r#"{"at_ms":5,"event":"started","decided":""}"#.to_owned(),
            exited.to_string(),
            r#"{"at_ms":40,"event":"checkpoint_ended","step":3,"problem":null,"decided":""}"#.to_owned(),
            r#"{"at_ms":41,"event":"tic"#.to_owned(),
            part(9000).to_string(),
            r#"{"at_ms":7,"note":"sample_skipped","split":"train","sample":3,"reason":"3.jpg ends early"}"#.to_owned(),
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();

        let history = read(&path);

        assert_eq!((history.parts, history.began_unix_millis), (2, Some(1000)));
        assert_eq!(history.problem, None);
        let told = |kind: Kind, part: &str| {
            let is = |one: &&Happening| one.kind == kind && one.text.contains(part);
            history
                .happenings
                .iter()
                .find(is)
                .map(|one| one.unix_millis)
        };
        assert_eq!(
            told(Kind::Start, "the run begins, with 1 worker wanted"),
            Some(1000)
        );
        assert_eq!(
            told(Kind::Failure, "worker-0"),
            Some(1040),
            "{:?}",
            history.happenings
        );
        let checkpoint = |one: &&Happening| one.kind == Kind::Checkpoint;
        let checkpoint = history.happenings.iter().find(checkpoint);
        assert_eq!(
            checkpoint.map(|one| one.step),
            Some(3),
            "a checkpoint is shown at the step that it holds, not where the run has got to meanwhile"
        );
        assert_eq!(
            told(Kind::Start, "a coordinator resumes after step 0"),
            Some(9000)
        );
        assert_eq!(
            told(
                Kind::Warning,
                "of the train split was left out: 3.jpg ends early"
            ),
            Some(9007)
        );

        assert!(read(&folder.path().join("none")).problem.is_some());
    }
}
