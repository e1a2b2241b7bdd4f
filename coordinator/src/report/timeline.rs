//! What happened, as a table with the reasons in words.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::events::{Happening, Kind};
use super::record::Record;
use crate::terminal::figures::{count, grouped};

/// Rows, at most: the first and the last of many.
const ROWS: usize = 240;
/// Characters of a row's words.
const WORDS: usize = 600;

pub(super) fn section(record: &Record) -> Markup {
    let history = &record.history;
    // Of checkpoints only the last is in the table; every one is a mark in the curves.
    let happenings: Vec<&Happening> = {
        let all = &history.happenings;
        let last = all.iter().rposition(|one| one.kind == Kind::Checkpoint);
        let kept = |(number, one): &(usize, &Happening)| {
            one.kind != Kind::Checkpoint || Some(*number) == last
        };
        all.iter()
            .enumerate()
            .filter(kept)
            .map(|(_, one)| one)
            .collect()
    };
    let number = |kind| {
        history
            .happenings
            .iter()
            .filter(|one| one.kind == kind)
            .count() as u64
    };
    let left_out = happenings.len().saturating_sub(ROWS);
    let (first, last) = if left_out == 0 {
        (&happenings[..], &[][..])
    } else {
        (
            &happenings[..ROWS / 2],
            &happenings[happenings.len() - ROWS / 2..],
        )
    };
    html! {
        p {
            (count(number(Kind::Failure), "failure", "failures")) ", "
            (count(record.ledger.generations().len() as u64, "generation", "generations")) ", "
            (count(number(Kind::Checkpoint), "checkpoint", "checkpoints")) ". Times are UTC; steps are those committed by then."
        }
        @if let Some(problem) = &history.problem { p { "Not all events could be read: " (problem) "." } }
        table class="events" {
            thead { tr { @for name in ["time", "steps", "what", "in words"] { th scope="col" { (name) } } } }
            tbody {
                @for one in first { (row(one)) }
                @if left_out > 0 {
                    tr { td {} td {} td {} td { (grouped(left_out as u64)) " more are in events.jsonl" } }
                }
                @for one in last { (row(one)) }
            }
        }
    }
}

fn row(one: &Happening) -> Markup {
    let mut words: String = one.text.chars().take(WORDS).collect();
    if words.len() < one.text.len() {
        words.push('…');
    }
    html! {
        tr class=(one.kind.word()) {
            td { (clock(one.unix_millis)) }
            td { (grouped(one.step)) }
            td { (one.kind.word()) }
            td { (words) }
        }
    }
}

/// `2026-03-01 14:05:09`, UTC; nothing for a time that is not known.
pub(super) fn clock(unix_millis: u64) -> String {
    let seconds = i64::try_from(unix_millis / 1000).unwrap_or(0);
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) if unix_millis > 0 => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(clock(1_709_215_509_999), "2024-02-29 14:05:09");
        assert_eq!(clock(0), "");
    }
}
