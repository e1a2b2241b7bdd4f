//! What a person sees: bars on a terminal, plain lines in a pipe or a file, nothing but trouble with `--quiet`.
//!
//! Must not know: how a run works. Events come in, lines go out; what they say is decided by pure functions that tests
//! compare as whole outputs.

mod closing;
pub mod figures;
mod narrator;
mod opening;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

pub use closing::{closing, headline, last_words};
pub use narrator::{Line, Narrator};
pub use opening::Opening;

use crate::observer::RunEvent;

/// Where lines go, and how.
#[derive(Debug)]
pub struct Terminal {
    quiet: bool,
    color: bool,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// For this process's standard output and error.
    #[must_use]
    pub fn new(quiet: bool, no_color: bool) -> Self {
        let interactive = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = (interactive && !quiet)
            .then(|| ProgressBar::no_length().with_style(waiting(!no_color)));
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self {
            quiet,
            color: !no_color && std::io::stderr().is_terminal(),
            bar,
        }
    }

    /// Shows a line, unless quiet.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.above_bar(|| print(std::io::stdout(), line));
        }
    }

    /// Shows something odd, always.
    pub fn warn(&self, text: &str) {
        self.above_bar(|| {
            print(
                std::io::stderr(),
                &labelled("warning", "33", self.color, text),
            )
        });
    }

    /// Shows lines of a run.
    pub fn show(&self, line: &Line) {
        match (line, &self.bar) {
            (Line::Said(text), _) | (Line::Progress(text), None) => self.say(text),
            (Line::Progress(_), Some(_)) | (Line::Bar { .. }, None) => {}
            (Line::Warning(text), _) => self.warn(text),
            (
                Line::Bar {
                    what,
                    done,
                    total,
                    note,
                },
                Some(bar),
            ) => {
                if *total > 0 && bar.length() != Some(*total) {
                    bar.set_style(counting(self.color));
                }
                if *total > 0 {
                    bar.set_length(*total);
                }
                bar.set_position(*done);
                bar.set_prefix(what.clone());
                bar.set_message(note.clone());
            }
        }
    }

    /// Shows a run's events until there will be no more; gives the narrator back.
    pub async fn follow(
        &self,
        mut events: broadcast::Receiver<RunEvent>,
        mut narrator: Narrator,
    ) -> Narrator {
        loop {
            match events.recv().await {
                Ok(event) => {
                    let last = matches!(event, RunEvent::Ended { .. });
                    narrator
                        .tell(&event)
                        .iter()
                        .for_each(|line| self.show(line));
                    if last {
                        break;
                    }
                }
                // Progress is shown again with the next event; nothing waits for a slow terminal.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        narrator
    }

    fn above_bar(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows why the process ends with an error.
pub fn error(text: &str, no_color: bool) {
    let color = !no_color && std::io::stderr().is_terminal();
    print(std::io::stderr(), &labelled("error", "31", color, text));
}

/// Writes the answer of a command to standard output.
pub fn answer(text: &str) {
    print(std::io::stdout(), text);
}

/// Writes a line to standard error as it is.
pub fn aside(text: &str) {
    print(std::io::stderr(), text);
}

/// A label and what is said of it.
#[must_use]
pub fn row(label: &str, text: &str) -> String {
    format!("  {label:<11} {text}").trim_end().to_owned()
}

fn labelled(label: &str, code: &str, color: bool, text: &str) -> String {
    if color {
        format!("\u{1b}[1;{code}m{label}:\u{1b}[0m {text}")
    } else {
        format!("{label}: {text}")
    }
}

/// A reader that has gone (`| head`) is no reason to end a run.
fn print(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn waiting(color: bool) -> ProgressStyle {
    style(if color {
        "  {spinner:.cyan} {prefix}"
    } else {
        "  {spinner} {prefix}"
    })
}

fn counting(color: bool) -> ProgressStyle {
    style(if color {
        "  {prefix:<11} {bar:32.cyan/dim} {pos}/{len} · {msg}"
    } else {
        "  {prefix:<11} {bar:32} {pos}/{len} · {msg}"
    })
}

fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).expect("the templates above are well-formed");
    style.progress_chars("━━─")
}

#[cfg(test)]
mod tests;
