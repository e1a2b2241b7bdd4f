//! What a run does when a micro-batch does not fit a device's memory.

use super::restart::LossClass;
use super::{Effect, Millis, State};
use crate::membership::WorkerId;

/// Batch normalisation has no statistics of a single sample.
const SMALLEST_PART: u32 = 2;

impl State {
    /// A worker has no memory left for several micro-batches side by side. It has its state and does them one by one from
    /// here on, which is the same to batch normalisation: nothing is to be decided but that the step is done again.
    pub(super) fn on_passes_too_wide(&mut self, text: String, now: Millis) -> Vec<Effect> {
        self.explained = true;
        let mut effects = vec![Effect::Warn { text: text.clone() }];
        effects.extend(self.regroup(text, now));
        effects
    }

    /// A worker has no memory left for its part of a step. Its state is as it was: with micro-batches cut in two for
    /// their forward passes everyone goes on, where that is allowed and something is left to cut; otherwise the run
    /// cannot do without the worker and ends, saying what would fit.
    pub(super) fn on_out_of_memory(
        &mut self,
        worker: &WorkerId,
        text: String,
        now: Millis,
    ) -> Vec<Effect> {
        let micro_batch = self.plan.shape().micro_batch;
        let part = micro_batch / self.forward_parts;
        let half = part / 2;
        if self.config.halve_when_out_of_memory && self.is_member(worker) && half >= SMALLEST_PART {
            self.forward_parts *= 2;
            self.explained = true;
            let text = format!(
                "{text}; from here on every micro-batch of {micro_batch} goes forward in {} parts, and batch \
                 normalisation sees one part at a time (train.on_out_of_memory = \"halve\")",
                self.forward_parts
            );
            let mut effects = vec![Effect::Warn { text: text.clone() }];
            effects.extend(self.regroup(text, now));
            return effects;
        }
        let advice = if half < SMALLEST_PART {
            format!(
                "parts of {part} samples do not fit either: use a smaller data.size or model.backbone, or another device"
            )
        } else {
            format!(
                "about half of it would fit with train.micro_batch = {half}, which is what batch normalisation then sees \
                 (train.on_out_of_memory = \"halve\" does so by itself)"
            )
        };
        self.give_up_on(worker, LossClass::Memory, format!("{text}; {advice}"), now)
    }
}
