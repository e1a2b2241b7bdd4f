//! The scores that training computes anyway, kept for a training mAP as many programs print it: under augmentation, by
//! batch statistics, by weights that move. Only what is committed is sent.

use tch::Tensor;

use crate::error::WorkerError;
use crate::evaluate::on_host;
use crate::train::replica::Replica;

/// Scores of this rank's steps that are not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Online {
    wanted: bool,
    steps_per_epoch: u64,
    /// Sample ids with their logits `[B, C]` on the device, of the step in flight.
    in_flight: Vec<(Vec<u32>, Tensor)>,
    /// Committed ones: step, sample ids, logits.
    kept: Vec<(u64, Vec<u32>, Vec<f32>)>,
}

impl Online {
    /// Keeps nothing unless the run wants it.
    pub(crate) fn new(wanted: bool, steps_per_epoch: u64) -> Self {
        Self {
            wanted,
            steps_per_epoch: steps_per_epoch.max(1),
            ..Self::default()
        }
    }

    /// A generation begins after so many steps: what was done beyond is void.
    pub(crate) fn begin(&mut self, step: u64) {
        self.kept.retain(|(kept, _, _)| *kept < step);
    }

    /// A step begins anew.
    pub(crate) fn begin_step(&mut self) {
        self.in_flight.clear();
    }

    /// Notes what a forward pass gave. The host does not wait.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn note(&mut self, sample_ids: &[u32], logits: &Tensor) -> Result<(), WorkerError> {
        if self.wanted {
            let logits = logits
                .f_detach()
                .map_err(|source| WorkerError::Torch { step: 0, source })?;
            self.in_flight.push((sample_ids.to_vec(), logits));
        }
        Ok(())
    }

    /// Keeps the scores of the step that `replica` has just ended, or forgets them if it changed nothing. Those of epochs
    /// before are of no use any more.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn end_step(
        &mut self,
        replica: &Replica,
        committed: bool,
    ) -> Result<(), WorkerError> {
        let step = replica.step() - 1;
        let begins = step - step % self.steps_per_epoch;
        self.kept.retain(|(kept, _, _)| *kept >= begins);
        for (sample_ids, logits) in std::mem::take(&mut self.in_flight) {
            if committed {
                let logits =
                    on_host(&logits).map_err(|source| WorkerError::Torch { step, source })?;
                self.kept.push((step, sample_ids, logits));
            }
        }
        Ok(())
    }

    /// Sends the scores of the epoch that has ended, before its evaluation: while steps are done, nothing waits for the
    /// coordinator.
    ///
    /// # Errors
    /// When the coordinator cannot be reached.
    pub(crate) fn send(&mut self, replica: &Replica) -> Result<(), WorkerError> {
        let kept = std::mem::take(&mut self.kept);
        if kept.is_empty() {
            return Ok(());
        }
        let ids: Vec<u32> = kept.iter().flat_map(|(_, ids, _)| ids).copied().collect();
        let logits: Vec<f32> = kept
            .iter()
            .flat_map(|(_, _, logits)| logits)
            .copied()
            .collect();
        let at = (replica.generation(), replica.step());
        Ok(replica.link().scores(at, (&ids, &logits), &[], true)?)
    }
}
