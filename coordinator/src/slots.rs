//! Places for runs side by side on this machine: no device is in two of them, and processors are shared out.

use crate::config::{Config, DeviceChoice, LaunchChoice};
use crate::machine::{Machine, PROCESSORS, TooFewDevices, place};

/// How the machine is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Worker processes of each run.
    pub(crate) workers: u32,
    /// What is to be set in the environment of the run in each place.
    pub(crate) places: Vec<Vec<(&'static str, String)>>,
    /// More processes than processors: said where it is so.
    pub(crate) warning: Option<String>,
}

/// Why runs cannot be side by side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DivisionError {
    /// Devices are not shared by runs.
    #[error(
        "--at-once {at_once} runs of {workers} workers need {} CUDA devices, and this machine has {devices}: lower \
         --at-once or --workers, or use --device cpu", u64::from(*.at_once) * u64::from(*.workers)
    )]
    TooFewDevices {
        /// Runs side by side.
        at_once: u32,
        /// Workers of each.
        workers: u32,
        /// Devices there are.
        devices: u32,
    },
    /// Not even one run can be placed.
    #[error(transparent)]
    Placement(#[from] TooFewDevices),
    /// Workers come from elsewhere.
    #[error(
        "run.launch = external ({origin}): whoever starts workers needs to know each run's address, so --at-once is for \
         runs that start their own; leave it out"
    )]
    External {
        /// Where that was said.
        origin: String,
    },
    /// All would listen at one address.
    #[error(
        "run.listen = {address} ({origin}) is one address, and --at-once {at_once} runs need one each: choose port 0"
    )]
    OneAddress {
        /// As it was said.
        address: String,
        /// Where.
        origin: String,
        /// Runs side by side.
        at_once: u32,
    },
}

/// Divides the machine among `at_once` runs of `config`; `visible` is `CUDA_VISIBLE_DEVICES`.
///
/// # Errors
/// [`DivisionError`].
pub(crate) fn divide(
    config: &Config,
    machine: &Machine,
    visible: Option<&str>,
    at_once: u32,
) -> Result<Division, DivisionError> {
    let at_once = at_once.max(1);
    if config.run.launch == LaunchChoice::External {
        let origin = config.origin("run.launch").to_owned();
        return Err(DivisionError::External { origin });
    }
    if config.run.listen.port() != 0 {
        return Err(DivisionError::OneAddress {
            address: config.run.listen.to_string(),
            origin: config.origin("run.listen").to_owned(),
            at_once,
        });
    }
    let found = machine.cuda_devices;
    // `auto` with devices is refused like `cuda`: that some runs compute on the CPU is not what anybody asked for.
    if config.run.device != DeviceChoice::Cpu && found > 0 {
        let workers = config.run.workers.unwrap_or(found / at_once).max(1);
        if u64::from(workers) * u64::from(at_once) > u64::from(found) {
            return Err(DivisionError::TooFewDevices {
                at_once,
                workers,
                devices: found,
            });
        }
    }
    let part = Machine {
        cpus: (machine.cpus / at_once).max(1),
        cuda_devices: found / at_once,
        ..*machine
    };
    let placement = place(config, &part)?;
    let workers = u32::try_from(placement.devices.len()).unwrap_or(u32::MAX);
    let names: Vec<String> = match visible {
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
        None => (0..found).map(|number| number.to_string()).collect(),
    };
    let mut of_each = names.chunks(workers as usize);
    let places = (0..at_once).map(|_| {
        let mut variables = vec![(PROCESSORS, part.cpus.to_string())];
        if placement.device == DeviceChoice::Cuda {
            let mine = of_each.next().unwrap_or_default().join(",");
            variables.push(("CUDA_VISIBLE_DEVICES", mine));
        }
        variables
    });
    let places = places.collect();
    let of_each = placement.threads.map_or(1, |threads| threads.compute);
    let threads = u64::from(at_once) * u64::from(workers) * u64::from(of_each);
    let warning = (threads > u64::from(machine.cpus)).then(|| {
        format!(
            "{at_once} runs of {workers} workers with {} each compute on {threads} threads, and this machine has {}: they \
             take turns; lower --at-once, --workers or train.threads",
            crate::terminal::figures::count(of_each.into(), "thread", "threads"),
            crate::terminal::figures::count(machine.cpus.into(), "processor", "processors"),
        )
    });
    Ok(Division {
        workers,
        places,
        warning,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{config, machine};

    fn devices(division: &Division) -> Vec<String> {
        let of = |variables: &Vec<(&str, String)>| {
            let mut found = variables
                .iter()
                .filter(|(name, _)| *name == "CUDA_VISIBLE_DEVICES");
            found
                .next()
                .map_or_else(|| "none".to_owned(), |(_, list)| list.clone())
        };
        division.places.iter().map(of).collect()
    }

    #[test]
    fn no_device_is_in_two_places() {
        let two = config(&["run.workers=2"]);
        let divided = divide(&two, &machine(32, 8), None, 3).unwrap();
        assert_eq!(devices(&divided), ["0,1", "2,3", "4,5"]);
        // Those that this process may see, by the names it knows them by
        let visible = Some("7, 5,GPU-aa,2");
        assert_eq!(
            devices(&divide(&two, &machine(32, 4), visible, 2).unwrap()),
            ["7,5", "GPU-aa,2"]
        );
        // Without a number of workers, all that there are
        let any = divide(&config(&[]), &machine(32, 8), None, 3).unwrap();
        assert_eq!(
            (any.workers, devices(&any)),
            (2, vec!["0,1".into(), "2,3".into(), "4,5".into()])
        );
        let cpu = divide(
            &config(&["run.workers=2", "run.device=cpu"]),
            &machine(32, 8),
            None,
            2,
        )
        .unwrap();
        assert_eq!(devices(&cpu), ["none", "none"]);
    }

    #[test]
    fn too_few_devices_are_refused_with_both_numbers() {
        for device in ["run.device=cuda", "run.device=auto"] {
            let error = divide(
                &config(&["run.workers=3", device]),
                &machine(32, 8),
                None,
                3,
            );
            assert_eq!(
                error.unwrap_err().to_string(),
                "--at-once 3 runs of 3 workers need 9 CUDA devices, and this machine has 8: lower --at-once or --workers, \
                 or use --device cpu"
            );
        }
        assert!(divide(&config(&["run.device=cuda"]), &machine(32, 2), None, 3).is_err());
        assert!(divide(&config(&["run.device=cuda"]), &machine(32, 0), None, 2).is_err());
    }

    #[test]
    fn threads_of_all_runs_together_are_no_more_than_the_processors() {
        for cpus in 1..=64 {
            for at_once in 1..=8 {
                for workers in 1..=4 {
                    let config = config(&[&format!("run.workers={workers}")]);
                    let divided = divide(&config, &machine(cpus, 0), None, at_once).unwrap();
                    // As a run will find it
                    let cpus_of_one: u32 = divided.places[0][0].1.parse().unwrap();
                    let placed = place(&config, &machine(cpus_of_one, 0)).unwrap();
                    let threads = placed.threads.unwrap().all();
                    let all = at_once * workers * threads;
                    assert_eq!(all > cpus, divided.warning.is_some(), "{divided:?}");
                    assert!(
                        all <= cpus || threads == 1,
                        "{all} threads on {cpus}: {divided:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn runs_that_cannot_be_told_apart_are_refused() {
        let refused = |set: &str| {
            divide(&config(&[set]), &machine(8, 0), None, 2)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("run.listen=127.0.0.1:7000").contains("choose port 0"));
        assert!(refused("run.launch=external").contains("leave it out"));
    }
}
