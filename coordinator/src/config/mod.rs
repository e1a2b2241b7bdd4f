//! The run's config: what was said (layers of keys and values, each with its origin) and what it means ([`Config`],
//! checked and trusted by everyone else).
//!
//! ```text
//! defaults < --config FILE < HGAT_SECTION__KEY < --set section.key=value < --workers, --data, ...
//!       (a flag and --set that say different things of one key are refused)
//!       \________________ layers ________________/          |
//!                            Settings (key -> value, origin) --- one check ---> Config | Mistakes
//! ```
//!
//! The environment is an argument ([`Sources::with_environment`]); nothing here reads it.

mod keys;
mod layers;
mod mistake;
mod sections;
mod settings;
mod spec;
mod text;

use std::path::Path;

use data::threads::Threads;
use domain::plan::EpochShape;

pub use keys::{KEYS, Key, Kind, SECTIONS};
pub use layers::Sources;
pub use mistake::{Mistake, Mistakes};
pub use sections::{Data, DeviceChoice, Fault, LaunchChoice, Model, Run, Train};
pub use settings::Setting;
use settings::{Settings, refuse};
pub use text::reference;

/// Origin of a value nobody gave.
const DEFAULT: &str = "default";
/// Origin of a value that was worked out at the start.
const MACHINE: &str = "this machine";

/// A checked config.
#[derive(Clone, Debug, PartialEq)]
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
    settings: Settings,
}

impl Config {
    /// The config that `sources` make over the defaults.
    ///
    /// # Errors
    /// [`Mistakes`]: all of them.
    pub fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let mut settings = Settings::defaults();
        let mistakes = settings.apply(sources.merge()?);
        Self::check(settings, mistakes)
    }

    /// The config recorded in a run directory's `config.toml`, with what `sources` may change on a resume.
    ///
    /// # Errors
    /// [`Mistakes`]: all of them, a key among `sources` that would change what the run computes included.
    pub fn resume(recorded: &Path, sources: &Sources) -> Result<Self, Mistakes> {
        let record = Sources {
            file: Some(recorded.to_owned()),
            ..Sources::default()
        };
        let mut settings = Settings::defaults();
        refuse(settings.apply(record.merge()?))?;
        let mut changed = settings.clone();
        let mut mistakes = changed.apply(sources.merge()?);
        for key in KEYS.iter().filter(|key| !key.may_change) {
            let (was, is) = (settings.get(key.name), changed.get(key.name));
            if was.value != is.value {
                let was = was
                    .value
                    .as_ref()
                    .map_or_else(|| "not set".to_owned(), ToString::to_string);
                let problem = format!(
                    "this run was started with {was}, and a resumed run keeps that: leave it out, or start a new \
                     run in another --run-dir"
                );
                mistakes.push(changed.mistake(key.name, problem));
            }
        }
        Self::check(changed, mistakes)
    }

    /// Records what was left to the machine: from here on the run and every resume of it use these. Without `threads`,
    /// each worker works its own out on the machine where it is.
    pub fn record_placement(
        &mut self,
        device: DeviceChoice,
        workers: u32,
        threads: Option<Threads>,
    ) {
        if self.run.device == DeviceChoice::Auto {
            self.run.device = device;
            self.settings
                .put("run.device", device.as_str().into(), MACHINE);
        }
        if self.run.workers.is_none() {
            self.run.workers = Some(workers);
            self.settings
                .put("run.workers", i64::from(workers).into(), MACHINE);
        }
        let Some(Threads { compute, decoding }) = threads else {
            return;
        };
        if self.train.threads.is_none() {
            self.train.threads = Some(compute);
            self.settings
                .put("train.threads", i64::from(compute).into(), MACHINE);
        }
        // Not recorded: a run that goes on elsewhere decodes with what it finds there.
        self.data.loader_threads.get_or_insert(decoding);
    }

    /// Every key with its value and origin, in the order of [`KEYS`].
    pub fn settings(&self) -> impl Iterator<Item = (&'static Key, &Setting)> {
        KEYS.iter().map(|key| (key, self.settings.get(key.name)))
    }

    /// Every key whose value is not the default, whoever said so: a recorded config says every key.
    pub fn beside_defaults(&self) -> impl Iterator<Item = (&'static Key, &toml::Value)> {
        let defaults = Settings::defaults();
        self.settings().filter_map(move |(key, setting)| {
            let value = setting.value.as_ref()?;
            (defaults.get(key.name).value.as_ref() != Some(value)).then_some((key, value))
        })
    }

    /// The origin of one key's value.
    #[must_use]
    pub fn origin(&self, key: &str) -> &str {
        &self.settings.get(key).origin
    }

    /// That an elastic run can have as many workers as it must not go below: with the number of them only now known.
    ///
    /// # Errors
    /// [`Mistakes`]: the one.
    pub(crate) fn check_fewest(&self) -> Result<(), Mistakes> {
        refuse(self.too_few_workers().into_iter().collect())
    }

    fn too_few_workers(&self) -> Option<Mistake> {
        let workers = self.run.workers?;
        let fewest = self.run.min_workers;
        (fewest > workers).then(|| {
            let problem = format!(
                "the run has run.workers = {workers} ({}) and could never go on: lower run.min_workers to {workers} or less, \
                 or raise run.workers",
                self.origin("run.workers")
            );
            self.settings.mistake("run.min_workers", problem)
        })
    }

    fn check(settings: Settings, mut mistakes: Vec<Mistake>) -> Result<Self, Mistakes> {
        let config = Self::from_settings(settings);
        // A key that is wrong by itself holds its default here: a second complaint about it would mislead.
        let wrong: Vec<String> = mistakes.iter().map(|mistake| mistake.key.clone()).collect();
        let fine = |keys: &[&str]| {
            keys.iter()
                .all(|key| !wrong.iter().any(|wrong| wrong == key))
        };
        mistakes.extend(
            config
                .contradictions()
                .into_iter()
                .filter(|(keys, _)| fine(keys))
                .map(|(_, mistake)| mistake),
        );
        refuse(mistakes)?;
        Ok(config)
    }

    /// Values that are fine by themselves but not together, each with all keys it is about.
    fn contradictions(&self) -> Vec<(&'static [&'static str], Mistake)> {
        let mut found: Vec<(&'static [&'static str], Mistake)> = Vec::new();
        let (size, resize) = (self.data.size, self.data.resize);
        if self.data.transform == "squash_crop" && resize < size {
            let problem = format!(
                "a crop of data.size = {size} does not fit: set data.resize to {size} or more"
            );
            found.push((
                &["data.resize", "data.size", "data.transform"],
                self.settings.mistake("data.resize", problem),
            ));
        }
        if self.train.balance && self.train.world == domain::run::World::Fixed {
            let problem = "a fixed world repeats to the bit, and shares by speed depend on the clock: set train.balance = \
                           \"even\" or train.world = \"elastic\""
                .to_owned();
            found.push((
                &["train.balance", "train.world"],
                self.settings.mistake("train.balance", problem),
            ));
        }
        if self.train.schedule == "one_cycle" && self.train.warmup > 0.0 {
            let problem = "schedule one_cycle rises by itself: set train.one_cycle_rise instead, and train.warmup = 0"
                .to_owned();
            found.push((
                &["train.warmup", "train.schedule"],
                self.settings.mistake("train.warmup", problem),
            ));
        }
        if self.train.freeze_trunk && self.train.freeze_trunk_epochs > 0 {
            let problem = "the trunk is frozen for the whole run already: set train.freeze_trunk = false, or leave \
                           train.freeze_trunk_epochs out"
                .to_owned();
            found.push((
                &["train.freeze_trunk_epochs", "train.freeze_trunk"],
                self.settings.mistake("train.freeze_trunk_epochs", problem),
            ));
        }
        if let Some(mistake) = self.too_few_workers() {
            found.push((&["run.min_workers", "run.workers"], mistake));
        }
        // Any split larger than a step will do here: what depends on the split's size is checked when it is known.
        let workers = self.run.workers.unwrap_or(1);
        let (global, micro) = (self.train.global_batch, self.train.micro_batch);
        for mistake in EpochShape::mistakes(u32::MAX, global, micro, workers) {
            let keys: &[&str] = &["train.micro_batch", "train.global_batch"];
            found.push((
                keys,
                self.settings
                    .mistake("train.micro_batch", mistake.to_string()),
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests;
