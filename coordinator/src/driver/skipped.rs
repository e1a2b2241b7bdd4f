//! Samples that could not be read and were left out (`data.on_bad_image = "skip"`): none is lost without a line.

use proto::v1::Progress;

use super::Driver;
use crate::observer::RunEvent;

impl Driver {
    /// Training samples that a worker left out: into the ledger, and listed once.
    pub(super) fn note_skipped(&mut self, progress: &Progress) {
        for skipped in &progress.skipped {
            let (step, sample) = (progress.step, skipped.sample_id);
            let news = self
                .parts
                .ledger
                .skip(progress.generation, step, sample, &skipped.reason);
            if news.unwrap_or(false) {
                self.ledger_changed = true;
                self.list_skipped("train", sample, skipped.reason.clone());
            }
        }
    }

    /// Names a sample in events.jsonl and to whoever watches.
    pub(super) fn list_skipped(&mut self, split: &'static str, sample: u32, reason: String) {
        let now = self.now();
        let problem = self.parts.recorder.skipped((split, sample), &reason, now);
        self.warn_if(problem);
        self.parts.observer.tell(RunEvent::SampleSkipped {
            split,
            sample,
            reason,
        });
    }
}
