//! The durable record of the lineage: which stretch of steps was committed under which generation.
//!
//! The lineage is a chain: every generation begins at a step that the ones before it had reached,
//! and what they reported beyond that step becomes void (the only state that held those steps died)
//! and is done again. So the committed steps are always `0..steps_done`, each owned by exactly one
//! generation. A generation that is no longer the newest can change nothing.
//!
//! The ledger is a plain value that can be stored whole. [`Ledger::verify`] trusts nothing that was
//! read back: it counts samples.

use serde::{Deserialize, Serialize};

use crate::assignment::{Assignment, FirstStep};
use crate::shares::Shares;

mod error;
mod verify;

pub use error::LedgerError;
pub use verify::{Defect, EpochState, EpochStretch, EpochVerification, Verification};

/// Steps from `first` to `last`, both included, numbered over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first step.
    pub first: u64,
    /// The last step.
    pub last: u64,
}

impl Stretch {
    /// The stretch of the steps `first..end`, if there are any.
    #[must_use]
    pub fn until(first: u64, end: u64) -> Option<Self> {
        (first < end).then(|| Self {
            first,
            last: end - 1,
        })
    }

    /// One past the last step.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.last.saturating_add(1)
    }
}

/// A numbered membership and what it committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number; later ones have higher numbers, not necessarily by one.
    pub number: u64,
    /// The step its state stands before: the first it may commit.
    pub begins_at_step: u64,
    /// The workers' ids by rank.
    pub members: Vec<String>,
    /// How it shared out micro-batches; `None`: evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// How it shared out its first step, where a generation before had done parts of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_step: Option<FirstStep>,
    /// What it committed and no later generation voided; contiguous from `begins_at_step`.
    pub committed: Option<Stretch>,
}

impl Generation {
    /// How many ranks it has.
    #[must_use]
    pub fn world_size(&self) -> usize {
        self.members.len()
    }

    /// How it handed out micro-batches.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        let even = || Shares::even(u32::try_from(self.members.len()).unwrap_or(u32::MAX));
        let shares = self.shares.clone().unwrap_or_else(even);
        Assignment::new(shares, self.first_step.clone())
    }

    /// One past the last step that counts of this generation.
    fn end(&self) -> u64 {
        self.committed
            .map_or(self.begins_at_step, |stretch| stretch.end())
    }
}

/// Steps that a generation had reported and that do not count, because a later one began before
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoidStretch {
    /// The generation that reported them.
    pub generation: u64,
    /// The steps.
    pub steps: Stretch,
    /// The generation whose beginning voided them.
    pub voided_by: u64,
}

/// A sample that its step went without, because it could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedSample {
    /// The step that should have trained on it.
    pub step: u64,
    /// The sample's position in the training split.
    pub sample: u32,
    /// The generation that met it.
    pub generation: u64,
    /// What is wrong with it, in words that name the file.
    pub reason: String,
}

/// What a commit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The steps are new.
    Recorded(Stretch),
    /// Known already: every rank reports each step, and reports are repeated.
    AlreadyRecorded,
}

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// In order of their numbers.
    generations: Vec<Generation>,
    /// In the order in which they became void.
    void: Vec<VoidStretch>,
    /// By (step, sample).
    skipped: Vec<SkippedSample>,
    /// Committed steps that changed nothing, ascending.
    #[serde(default)]
    passed_over: Vec<u64>,
}

impl Ledger {
    /// A ledger of a run that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many steps of the run are committed: the steps `0..steps_done`.
    #[must_use]
    pub fn steps_done(&self) -> u64 {
        self.current().map_or(0, Generation::end)
    }

    /// The newest generation.
    #[must_use]
    pub fn current(&self) -> Option<&Generation> {
        self.generations.last()
    }

    /// All generations, oldest first.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// What does not count, in the order in which it became void.
    #[must_use]
    pub fn void(&self) -> &[VoidStretch] {
        &self.void
    }

    /// The samples that steps went without, by (step, sample). Some may be of a step that is not
    /// committed yet: workers decode ahead.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedSample] {
        &self.skipped
    }

    /// Begins a generation whose state stands before step `at_step`. Every step that older ones
    /// committed from there on becomes void, and so do the samples skipped in them: they are done
    /// again.
    ///
    /// Returns what became void, oldest generation first. Of what a survivor committed and had not
    /// yet reported, tell the ledger first, under the generation that committed it.
    ///
    /// # Errors
    /// [`LedgerError::NumberNotGrowing`]; [`LedgerError::NoMembers`]; [`LedgerError::Gap`] if the
    /// lineage has not reached `at_step`.
    pub fn begin_generation(
        &mut self,
        number: u64,
        at_step: u64,
        members: Vec<String>,
        assignment: impl Into<Assignment>,
    ) -> Result<Vec<VoidStretch>, LedgerError> {
        if let Some(current) = self.current()
            && number <= current.number
        {
            return Err(LedgerError::NumberNotGrowing {
                generation: number,
                current: current.number,
            });
        }
        if members.is_empty() {
            return Err(LedgerError::NoMembers { generation: number });
        }
        let steps_done = self.steps_done();
        if at_step > steps_done {
            return Err(LedgerError::Gap {
                generation: number,
                step: at_step,
                steps_done,
            });
        }
        let voided = self.void_from(at_step, number);
        let assignment = assignment.into();
        let shares = assignment.shares();
        self.generations.push(Generation {
            number,
            begins_at_step: at_step,
            members,
            shares: (!shares.is_even()).then(|| shares.clone()),
            first_step: assignment.first().cloned(),
            committed: None,
        });
        Ok(voided)
    }

    /// Records that `generation` committed `step` and every step before it that is still missing.
    ///
    /// A rank that applied step n has applied all before it, so reports may be coalesced.
    ///
    /// # Errors
    /// [`LedgerError::StaleGeneration`], [`LedgerError::UnknownGeneration`] or
    /// [`LedgerError::BeforeBeginning`].
    pub fn commit_through(&mut self, generation: u64, step: u64) -> Result<Commit, LedgerError> {
        let current = self.current_for(generation, step)?;
        let done = current.end();
        if step < done {
            return Ok(Commit::AlreadyRecorded);
        }
        current.committed = Some(Stretch {
            first: current.begins_at_step,
            last: step,
        });
        Ok(Commit::Recorded(Stretch {
            first: done,
            last: step,
        }))
    }

    /// Records that `generation` committed exactly the next step, `step`.
    ///
    /// # Errors
    /// Those of [`Ledger::commit_through`], and [`LedgerError::Gap`] if a step before is missing.
    pub fn commit(&mut self, generation: u64, step: u64) -> Result<Commit, LedgerError> {
        let steps_done = self.current_for(generation, step)?.end();
        if step > steps_done {
            return Err(LedgerError::Gap {
                generation,
                step,
                steps_done,
            });
        }
        self.commit_through(generation, step)
    }

    /// Records that `step` goes without `sample`. Returns whether that is news.
    ///
    /// # Errors
    /// [`LedgerError::StaleGeneration`], [`LedgerError::UnknownGeneration`] or
    /// [`LedgerError::BeforeBeginning`].
    pub fn skip(
        &mut self,
        generation: u64,
        step: u64,
        sample: u32,
        reason: &str,
    ) -> Result<bool, LedgerError> {
        self.current_for(generation, step)?;
        match self
            .skipped
            .binary_search_by_key(&(step, sample), |known| (known.step, known.sample))
        {
            Ok(_) => Ok(false),
            Err(place) => {
                let reason = reason.to_owned();
                self.skipped.insert(
                    place,
                    SkippedSample {
                        step,
                        sample,
                        generation,
                        reason,
                    },
                );
                Ok(true)
            }
        }
    }

    /// Committed steps whose loss or gradient was not finite and that changed nothing, ascending.
    #[must_use]
    pub fn passed_over(&self) -> &[u64] {
        &self.passed_over
    }

    /// Records that `step` was committed and changed nothing.
    ///
    /// # Errors
    /// [`LedgerError::StaleGeneration`], [`LedgerError::UnknownGeneration`] or
    /// [`LedgerError::BeforeBeginning`].
    pub fn pass_over(&mut self, generation: u64, step: u64) -> Result<(), LedgerError> {
        self.current_for(generation, step)?;
        if let Err(place) = self.passed_over.binary_search(&step) {
            self.passed_over.insert(place, step);
        }
        Ok(())
    }

    /// The newest generation, if it is the one that reports and `step` is its to report.
    fn current_for(&mut self, generation: u64, step: u64) -> Result<&mut Generation, LedgerError> {
        let current = match self.generations.last_mut() {
            Some(current) if generation <= current.number => current,
            newest => {
                let current = newest.map(|newest| newest.number);
                return Err(LedgerError::UnknownGeneration {
                    generation,
                    current,
                });
            }
        };
        if generation < current.number {
            return Err(LedgerError::StaleGeneration {
                generation,
                current: current.number,
            });
        }
        let begins_at_step = current.begins_at_step;
        if step < begins_at_step {
            return Err(LedgerError::BeforeBeginning {
                generation,
                step,
                begins_at_step,
            });
        }
        Ok(current)
    }

    fn void_from(&mut self, at_step: u64, voided_by: u64) -> Vec<VoidStretch> {
        let mut voided = Vec::new();
        for generation in &mut self.generations {
            let Some(committed) = generation.committed.filter(|steps| steps.end() > at_step) else {
                continue;
            };
            let first = committed.first.max(at_step);
            voided.push(VoidStretch {
                generation: generation.number,
                steps: Stretch {
                    first,
                    last: committed.last,
                },
                voided_by,
            });
            generation.committed = Stretch::until(committed.first, first);
        }
        self.void.extend_from_slice(&voided);
        self.skipped.retain(|skipped| skipped.step < at_step);
        self.passed_over.retain(|step| *step < at_step);
        voided
    }
}

#[cfg(test)]
mod tests;
