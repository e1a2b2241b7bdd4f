//! What a step's ranks tell each other beside gradients, in one small vector that is summed with the gradients: the loss, the samples
//! really read, requests to stop or to snapshot, and the batch statistics of batch normalisation.
//!
//! Summed over ranks, so every rank reads the same: that is how all of them stop at the same step boundary without a
//! vote, and why running statistics are the same everywhere.

use nccl_rs::{ProcessGroup, ReduceOp};
use tch::{Device, Kind, TchError, Tensor};

const LOSS: i64 = 0;
const SAMPLES: i64 = 1;
const STOP: i64 = 2;
const SNAPSHOT: i64 = 3;
const REGROUP: i64 = 4;
const DRAIN: i64 = 5;
const LANES: i64 = 6;

/// What this rank was asked for and all must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wishes {
    /// To stop.
    pub(crate) stop: bool,
    /// To take a snapshot.
    pub(crate) snapshot: bool,
    /// To leave the generation, because others come in or its members change.
    pub(crate) regroup: bool,
    /// To end this process.
    pub(crate) drain: bool,
}

/// The vector: `[6 + S]`, S batch statistics.
#[derive(Debug)]
pub(crate) struct Tally {
    values: Tensor,
    samples_in_step: f64,
}

/// The first lanes, read by the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    /// Mean over the samples that were read.
    pub(crate) loss: f64,
    /// Samples read by all ranks.
    pub(crate) samples: u64,
    /// Some rank was asked to stop.
    pub(crate) stop: bool,
    /// Some rank was asked for a snapshot.
    pub(crate) snapshot: bool,
    /// Some rank was asked to leave the generation.
    pub(crate) regroup: bool,
    /// How many ranks were told to end.
    pub(crate) draining: usize,
}

impl Tally {
    /// A vector for S batch statistics.
    ///
    /// # Errors
    /// When it cannot be allocated.
    pub(crate) fn new(statistics: i64, kind: Kind, device: Device) -> Result<Self, TchError> {
        Ok(Self {
            values: Tensor::f_zeros([LANES + statistics], (kind, device))?,
            samples_in_step: 1.0,
        })
    }

    /// Begins a step of so many samples over all ranks.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn begin(&mut self, samples_in_step: u32) -> Result<(), TchError> {
        self.samples_in_step = f64::from(samples_in_step.max(1));
        let _ = self.values.f_zero_()?;
        Ok(())
    }

    /// Writes down what this rank was asked for.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn wish(&mut self, wishes: Wishes) -> Result<(), TchError> {
        let lanes = [
            (STOP, wishes.stop),
            (SNAPSHOT, wishes.snapshot),
            (REGROUP, wishes.regroup),
            (DRAIN, wishes.drain),
        ];
        for (lane, raised) in lanes {
            // A snapshot that was asked for in a generation before is still wanted.
            if raised || lane != SNAPSHOT {
                let _ = self.lane(lane)?.f_fill_(f64::from(u8::from(raised)))?;
            }
        }
        Ok(())
    }

    /// Adds a micro-batch: its share of the loss (already divided by the step's samples) and its batch statistics
    /// `[S]`, weighted by samples. Nothing is read back.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn add(
        &mut self,
        loss: &Tensor,
        statistics: &Tensor,
        samples: usize,
    ) -> Result<(), TchError> {
        let weight = samples as f64 / self.samples_in_step;
        let _ = self.lane(LOSS)?.f_add_(&loss.f_detach()?)?;
        let _ = self.lane(SAMPLES)?.f_add_scalar_(samples as f64)?;
        let _ = self
            .statistics()?
            .f_add_(&statistics.f_mul_scalar(weight)?)?;
        Ok(())
    }

    /// The vector itself: what the ranks sum.
    pub(crate) fn values(&self) -> &Tensor {
        &self.values
    }

    /// Sums over all ranks.
    ///
    /// # Errors
    /// When a peer is gone.
    pub(crate) fn all_reduce(&self, group: &ProcessGroup) -> Result<(), nccl_rs::Error> {
        group.all_reduce(&self.values, ReduceOp::Sum)?.wait()
    }

    /// Reads the lanes. The host waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn read(&self) -> Result<Seen, TchError> {
        let lanes: Vec<f64> = self
            .values
            .f_narrow(0, 0, LANES)?
            .f_to_kind(Kind::Double)?
            .try_into()?;
        let at = |lane: i64| lanes.get(lane as usize).copied().unwrap_or(f64::NAN);
        let samples = at(SAMPLES);
        Ok(Seen {
            loss: at(LOSS) * self.samples_in_step / samples.max(1.0),
            samples: samples as u64,
            stop: at(STOP) > 0.0,
            snapshot: at(SNAPSHOT) > 0.0,
            regroup: at(REGROUP) > 0.0,
            draining: at(DRAIN) as usize,
        })
    }

    /// By what gradients and statistics must be multiplied because pictures were skipped: 1 unless some were.
    pub(crate) fn correction(&self, seen: &Seen) -> f64 {
        if seen.samples == 0 {
            0.0
        } else {
            self.samples_in_step / seen.samples as f64
        }
    }

    /// The mean batch statistics `[S]` over the step's samples.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn statistics(&self) -> Result<Tensor, TchError> {
        let (size, lanes) = (self.values.size1()?, LANES);
        self.values.f_narrow(0, lanes, size - lanes)
    }

    fn lane(&self, lane: i64) -> Result<Tensor, TchError> {
        self.values.f_select(0, lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_uneven_micro_batches_add_up_to_the_mean_over_their_samples() {
        let mut tally = Tally::new(2, Kind::Double, Device::Cpu).unwrap();
        let wishes = Wishes {
            snapshot: true,
            ..Wishes::default()
        };
        tally.begin(5).unwrap();
        tally.wish(wishes).unwrap();

        // Mean losses 1.0 over 3 samples and 2.0 over 2, as shares of a step of 5.
        tally
            .add(
                &Tensor::from(3.0 / 5.0),
                &Tensor::from_slice(&[1.0, 10.0]),
                3,
            )
            .unwrap();
        tally
            .add(
                &Tensor::from(4.0 / 5.0),
                &Tensor::from_slice(&[2.0, 20.0]),
                2,
            )
            .unwrap();

        let seen = tally.read().unwrap();
        assert!((seen.loss - 1.4).abs() < 1e-12);
        assert_eq!((seen.samples, seen.stop, seen.snapshot), (5, false, true));
        let statistics: Vec<f64> = tally.statistics().unwrap().try_into().unwrap();
        assert!((statistics[0] - 1.4).abs() < 1e-12 && (statistics[1] - 14.0).abs() < 1e-12);
        assert_eq!(tally.correction(&seen), 1.0);
    }

    #[test]
    fn a_skipped_picture_is_no_sample_of_the_mean() {
        let mut tally = Tally::new(1, Kind::Double, Device::Cpu).unwrap();
        tally.begin(4).unwrap();

        // Three of four were read, each with loss 2.
        tally
            .add(&Tensor::from(6.0 / 4.0), &Tensor::from_slice(&[8.0]), 3)
            .unwrap();

        let seen = tally.read().unwrap();
        assert!((seen.loss - 2.0).abs() < 1e-12);
        let correction = tally.correction(&seen);
        let statistics: Vec<f64> = (tally.statistics().unwrap() * correction)
            .try_into()
            .unwrap();
        assert!((statistics[0] - 8.0).abs() < 1e-12);
    }
}
