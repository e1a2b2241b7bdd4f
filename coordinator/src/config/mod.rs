//! The run's config: what was said (layers of keys and values, each with its origin) and what it means ([`Config`],
//! checked and trusted by everyone else).
//!
//! ```text
//! defaults < --config FILE < HGAT_SECTION__KEY < --set section.key=value < --workers, --data, ...
//!       \________________ layers ________________/          |
//!                            Settings (key -> value, origin) --- one check ---> Config | Mistakes
//! ```

mod mistake;
mod sections;

use domain::run_plan::{RunPlan, RunShape};
use proto::v1::RunSpec;

pub use mistake::{Mistake, Mistakes};
pub use sections::{Data, DeviceChoice, Fault, Model, Run, Train};

/// A checked config. Make one with [`Config::load`].
#[derive(Clone, Debug)]
pub struct Config {
    /// `model.*`
    pub model: Model,
    /// `data.*`
    pub data: Data,
    /// `train.*`
    pub train: Train,
    /// `run.*`
    pub run: Run,
    /// `fault.*`
    pub fault: Fault,
}

impl Config {
    /// What the domain needs to lay out the run.
    #[must_use]
    pub fn run_shape(&self, dataset: &data::coco::Dataset) -> RunShape {
        let _ = dataset;
        todo!()
    }

    /// What workers need to know; `plan` gives the schedule its length.
    #[must_use]
    pub fn run_spec(&self, dataset: &data::coco::Dataset, plan: &RunPlan) -> RunSpec {
        let _ = (dataset, plan);
        todo!()
    }
}
