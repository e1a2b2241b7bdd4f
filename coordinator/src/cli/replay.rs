//! `coordinator replay`: puts a run's recorded events through the domain again and compares every decision.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use domain::run::{Config, Event, Millis, Phase, State, step};
use serde::Deserialize;

use super::failure::DATA;
use super::{Failure, OK, ReplayArgs, USAGE};
use crate::driver::digest;
use crate::terminal::{answer, figures};

/// A line of `events.jsonl` as far as decisions rest on it.
#[derive(Deserialize)]
struct Line {
    at_ms: Millis,
    decided: String,
    #[serde(flatten)]
    event: Event,
}

/// The first line of a process's part.
#[derive(Deserialize)]
struct Head {
    part: Config,
    /// The last line of the part before, by its number there.
    #[serde(default)]
    after: Option<u64>,
}

pub(super) fn replay(args: &ReplayArgs) -> Result<u8, Failure> {
    let mut replay = Replay::default();
    for (number, line) in (1u64..).zip(lines(&args.events)?) {
        let line = line.map_err(|problem| {
            Failure::new(
                USAGE,
                format!("{}, line {number}: {problem}", args.events.display()),
            )
        })?;
        replay
            .line(number, &line)
            .map_err(|text| Failure::new(DATA, format!("{}, {text}", args.events.display())))?;
    }
    answer(&replay.verdict());
    Ok(OK)
}

fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<String>>, Failure> {
    let file = File::open(path)
        .map_err(|problem| Failure::new(USAGE, format!("{}: {problem}", path.display())))?;
    Ok(BufReader::new(file).lines())
}

#[derive(Default)]
struct Replay {
    state: Option<State>,
    parts: u64,
    events: u64,
    /// A line that cannot be read: only a part that was killed may end with one.
    torn: Option<String>,
    /// Lines of the present part, its head not counted.
    lines: u64,
}

impl Replay {
    /// Takes one line; an error says where the decision differs.
    fn line(&mut self, number: u64, line: &str) -> Result<(), String> {
        let value: serde_json::Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(problem) => {
                self.torn.get_or_insert(format!("line {number}: {problem}"));
                return Ok(());
            }
        };
        if value.get("part").is_some() {
            self.torn = None;
            let Head { part, after } = serde_json::from_value(value)
                .map_err(|problem| format!("line {number}: {problem}"))?;
            if let Some(after) = after.filter(|after| *after != self.lines) {
                return Err(format!(
                    "line {number}: the part that begins here was begun after number {after} of the one before, and number \
                     {} is the last that is here: lines are missing, twice or not in their order",
                    self.lines
                ));
            }
            let state = State::new(part).map_err(|problem| format!("line {number}: {problem}"))?;
            self.state = Some(state);
            self.parts += 1;
            self.lines = 0;
            return Ok(());
        }
        if let Some(torn) = self.torn.take() {
            return Err(torn);
        }
        self.lines += 1;
        // Records of older versions have no numbers.
        if let Some(found) = value["n"].as_u64().filter(|found| *found != self.lines) {
            return Err(format!(
                "line {number}: it is number {found} of its part where number {} was next: lines are missing, twice or not \
                 in their order",
                self.lines
            ));
        }
        if value.get("event").is_none() {
            return Ok(()); // a note for people
        }
        let Line {
            at_ms,
            decided,
            event,
        } = serde_json::from_value(value).map_err(|problem| format!("line {number}: {problem}"))?;
        let state = self
            .state
            .take()
            .ok_or_else(|| format!("line {number}: an event before the first part's config"))?;
        let (state, effects, reason) = step(state, &event, at_ms);
        self.state = Some(state);
        self.events += 1;
        let now = digest(&effects, &reason);
        if now == decided {
            return Ok(());
        }
        let effects = serde_json::to_string(&effects).unwrap_or_default();
        Err(format!(
            "line {number}: the decision about this event was another one ({decided}, now {now})\n  event   {line}\n  \
             now     {effects}\n  reason  {reason}"
        ))
    }

    /// What a record says whose every line was taken.
    fn verdict(&self) -> String {
        let events = figures::count(self.events, "event", "events");
        let parts = figures::count(self.parts, "part", "parts");
        let same = format!("every decision of {events} in {parts} is the one that was made");
        match self.state.as_ref().map(State::phase) {
            Some(Phase::Over(_)) => same,
            Some(_) => format!(
                "{same}; the record ends before the run does: it goes on, its coordinator was killed, or lines are missing"
            ),
            None => format!("{same}: the record is empty"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::smallest_config;

    #[test]
    fn a_lost_line_is_missed_although_it_decided_nothing() {
        let head = serde_json::json!({ "part": smallest_config(), "run_id": "a" }).to_string();
        let note = |n: u64| {
            serde_json::json!({ "n": n, "at_ms": 1, "note": "sample_skipped" }).to_string()
        };
        let replayed = |lines: &[String]| {
            let mut replay = Replay::default();
            (1..)
                .zip(lines)
                .try_for_each(|(number, line)| replay.line(number, line))
        };
        let whole = [head.clone(), note(1), note(2), head.clone(), note(1)];
        assert_eq!(replayed(&whole), Ok(()));
        let lost = replayed(&[head.clone(), note(1), note(3)]).unwrap_err();
        assert!(
            lost.starts_with("line 3: it is number 3 of its part where number 2 was next"),
            "{lost}"
        );
        // The last line of a part that another one follows, and the whole part
        let next =
            serde_json::json!({ "part": smallest_config(), "run_id": "a", "after": 2 }).to_string();
        let whole = [head.clone(), note(1), note(2), next.clone()];
        assert_eq!(replayed(&whole), Ok(()));
        let lost = replayed(&[head.clone(), note(1), next.clone()]).unwrap_err();
        assert!(
            lost.starts_with(
                "line 3: the part that begins here was begun after number 2 of the one before, and number 1 is the last"
            ),
            "{lost}"
        );
        assert!(replayed(&[next]).is_err());
        // As older versions wrote them
        let unnumbered = r#"{"at_ms":1,"note":"sample_skipped"}"#.to_owned();
        assert_eq!(replayed(&[head, unnumbered.clone(), unnumbered]), Ok(()));
    }

    #[test]
    fn an_event_whose_decision_differs_is_the_first_to_be_named() {
        let config = smallest_config();
        let (_, effects, reason) = step(
            State::new(config.clone()).unwrap(),
            &Event::Started,
            Millis(1),
        );
        let head = serde_json::json!({ "part": config, "run_id": "a" }).to_string();
        let line = |decided: &str| {
            serde_json::json!({ "at_ms": 1, "event": "started", "decided": decided }).to_string()
        };

        let mut replay = Replay::default();
        replay.line(1, &head).unwrap();
        replay.line(2, &line(&digest(&effects, &reason))).unwrap();
        assert!(replay.verdict().contains("ends before the run does"));
        let mut other = Replay::default();
        other.line(1, &head).unwrap();
        let differs = other.line(2, &line("0000000000000000")).unwrap_err();

        assert!(
            differs.starts_with("line 2: the decision about this event was another one"),
            "{differs}"
        );
        assert!(differs.contains(r#"{"effect":"launch","worker":"worker-0","index":0}"#));
    }
}
