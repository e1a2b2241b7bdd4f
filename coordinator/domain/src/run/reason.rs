//! The sentence that says what a run is doing or waiting for. Worded here and nowhere else.

use std::fmt;

use super::words::counted;
use crate::membership::Crowd;

/// What a run is doing or waiting for, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Not all workers are here.
    WaitingForWorkers {
        /// How many the run wants.
        wanted: u32,
        /// How many have joined.
        joined: u32,
        /// Those that have not, where their names are known.
        missing: Crowd,
        /// Those that have and are not done loading what they need.
        setting_up: Crowd,
    },
    /// A generation is over and the next one has not begun.
    Regrouping {
        /// Why it is over.
        cause: String,
        /// Its number.
        generation: u64,
        /// Who has not left it yet.
        inside: Crowd,
        /// How many could be in the next one.
        here: u32,
        /// How many it needs at least.
        fewest: u32,
    },
    /// A generation was announced and its ranks set up.
    Forming {
        /// Its number.
        generation: u64,
        /// How many ranks it has.
        wanted: u32,
        /// Those that are not ready.
        missing: Crowd,
    },
    /// Steps are being done.
    Training {
        /// The epoch under way, from 1.
        epoch: u32,
        /// Of how many.
        epochs: u32,
        /// Workers that have not been heard from for longer than they should.
        silent: Crowd,
    },
    /// The validation split is being scored.
    Evaluating {
        /// The epoch that has ended, from 1.
        epoch: u32,
        /// Of how many.
        epochs: u32,
        /// Workers that have not been heard from for longer than they should.
        silent: Crowd,
    },
    /// A stop was asked for.
    Stopping {
        /// By whom.
        by: String,
        /// Who has not left yet.
        missing: Crowd,
    },
    /// It is decided how the run ends, and workers leave.
    Ending {
        /// How it ends.
        ending: String,
        /// Who is still here; empty while only figures or files are waited for.
        waiting: Crowd,
        /// What was done about those.
        measure: &'static str,
    },
    /// The run is over.
    Over {
        /// How it ended.
        ending: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingForWorkers {
                wanted,
                joined,
                setting_up,
                ..
            } if joined >= wanted => {
                write!(f, "waiting for {} to set up", setting_up)
            }
            Self::Regrouping {
                cause,
                generation,
                inside,
                ..
            } if !inside.is_empty() => {
                write!(
                    f,
                    "regrouping ({cause}): waiting for {} to leave generation {generation}",
                    inside
                )
            }
            Self::Regrouping {
                cause,
                here,
                fewest,
                ..
            } if here <= fewest => {
                let workers = counted((*fewest).into(), "worker");
                let are = if *fewest == 1 { "is" } else { "are" };
                write!(f, "regrouping ({cause}): {here} of {workers} {are} here")
            }
            Self::Regrouping { cause, here, .. } => {
                write!(f, "regrouping ({cause}): {here} workers are here")
            }
            Self::WaitingForWorkers {
                wanted,
                joined,
                missing,
                ..
            } => {
                let wanting = wanted.saturating_sub(*joined);
                let workers = counted((*wanted).into(), "worker");
                let have = Have(*joined, "joined");
                write!(f, "waiting for {wanting} of {workers}: {have}")?;
                if missing.is_empty() {
                    Ok(())
                } else {
                    write!(f, ", {} not", NamesHave(missing))
                }
            }
            Self::Forming {
                generation,
                wanted,
                missing,
            } => {
                // There are no more missing ranks than ranks.
                let ready = wanted - (missing.len() as u32).min(*wanted);
                write!(
                    f,
                    "forming generation {generation}: {ready} of {} ready, waiting for ",
                    match wanted {
                        1 => "1 rank is".to_owned(),
                        wanted => format!("{wanted} ranks are"),
                    }
                )?;
                write!(f, "{}", missing)
            }
            Self::Training {
                epoch,
                epochs,
                silent,
            } => {
                write!(f, "training epoch {epoch} of {epochs}{}", Silent(silent))
            }
            Self::Evaluating {
                epoch,
                epochs,
                silent,
            } => {
                write!(
                    f,
                    "evaluating after epoch {epoch} of {epochs}{}",
                    Silent(silent)
                )
            }
            Self::Stopping { by, missing } => {
                write!(f, "stopping (asked by {by}): waiting for {} ", missing)?;
                f.write_str("to reach a step boundary, hand over a checkpoint and leave")
            }
            Self::Ending {
                ending,
                waiting,
                measure,
            } if waiting.is_empty() => {
                write!(f, "ending ({ending}): {measure}")
            }
            Self::Ending {
                ending,
                waiting,
                measure,
            } => {
                write!(f, "ending ({ending}): waiting for {}, {measure}", waiting)
            }
            Self::Over { ending } => f.write_str(ending),
        }
    }
}

/// "6 have joined", "1 has joined", "none has joined".
struct Have(u32, &'static str);

impl fmt::Display for Have {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "none has {}", self.1),
            1 => write!(f, "1 has {}", self.1),
            n => write!(f, "{n} have {}", self.1),
        }
    }
}

/// "worker-3 and worker-7 have", "worker-3 has".
struct NamesHave<'a>(&'a Crowd);

impl fmt::Display for NamesHave<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.0,
            if self.0.len() == 1 { "has" } else { "have" }
        )
    }
}

/// The rider about workers that are not heard from.
struct Silent<'a>(&'a Crowd);

impl fmt::Display for Silent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(
            f,
            "; nothing is heard from {}, but the connection stands",
            self.0
        )
    }
}
