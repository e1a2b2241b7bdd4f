//! What this machine offers, and how workers are placed on it.

use std::fs;
use std::path::Path;

use crate::config::{Config, DeviceChoice, LaunchChoice};

/// The variable by which whoever starts several runs on one machine tells each how many processors are its.
pub const PROCESSORS: &str = "HGAT_PROCESSORS";

/// What this machine offers to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors this process may use: the least of affinity and cgroup quota.
    pub cpus: u32,
    /// CUDA devices, without asking the CUDA runtime: this process does not load it.
    pub cuda_devices: u32,
    /// `OMP_NUM_THREADS`, if it is a number.
    pub omp_threads: Option<u32>,
}

impl Machine {
    /// Looks around. The environment is given by the caller, which alone reads it.
    #[must_use]
    pub fn look(variable: impl Fn(&str) -> Option<String>) -> Self {
        // Covers sched_setaffinity and the quotas of cgroups v1 and v2.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        let allowed = variable(PROCESSORS).and_then(|text| text.trim().parse::<u32>().ok());
        let omp = variable("OMP_NUM_THREADS")
            .and_then(|text| text.split(',').next()?.trim().parse().ok());
        Self {
            cpus: allowed.map_or(cpus, |allowed| allowed.clamp(1, cpus)),
            cuda_devices: cuda_devices(Path::new("/"), variable("CUDA_VISIBLE_DEVICES").as_deref()),
            omp_threads: omp.filter(|threads| *threads > 0),
        }
    }
}

/// The driver's devices, as far as `CUDA_VISIBLE_DEVICES` leaves them.
fn cuda_devices(root: &Path, visible: Option<&str>) -> u32 {
    let count = |folder: &str, is_device: &dyn Fn(&str) -> bool| {
        let names = fs::read_dir(root.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        names
            .filter(|entry| entry.file_name().to_str().is_some_and(is_device))
            .count()
    };
    let numbered = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    // A container may see device files but not the driver's folder, or fewer files than the driver has devices.
    let files = count("dev", &numbered);
    let present = if files > 0 {
        files
    } else {
        count("proc/driver/nvidia/gpus", &|_| true)
    };
    let allowed = visible.map_or(present, |list| {
        // As the CUDA runtime reads it: what comes after the first impossible entry does not count.
        list.split(',')
            .map(str::trim)
            .take_while(|entry| !entry.is_empty() && !entry.starts_with('-'))
            .count()
    });
    u32::try_from(present.min(allowed)).unwrap_or(u32::MAX)
}

/// Where the workers of a run compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// `Cpu` or `Cuda`; for workers that someone else starts what `run.device` says.
    pub device: DeviceChoice,
    /// One per worker: `cpu` or `cuda:K`; or `its own` where that is up to whoever starts it.
    pub devices: Vec<String>,
    /// Compute threads of each worker.
    pub threads: u32,
    /// Decoding threads of each worker.
    pub loader_threads: u32,
    /// What was chosen and why, for people.
    pub device_reason: String,
    /// The same for threads.
    pub threads_reason: String,
}

/// More workers than devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "run.workers = {workers} ({origin}) but this machine has {devices} CUDA device{}: {}use --device cpu",
    if *.devices == 1 { "" } else { "s" },
    if *.devices == 0 { String::new() } else { format!("lower --workers to {}, or ", .devices) }
)]
pub struct TooFewDevices {
    /// How many workers were asked for.
    pub workers: u32,
    /// Where that number came from.
    pub origin: String,
    /// How many devices there are.
    pub devices: u32,
}

/// Places a run's workers on this machine.
///
/// # Errors
/// [`TooFewDevices`] when `run.device` is `cuda`.
pub fn place(config: &Config, machine: &Machine) -> Result<Placement, TooFewDevices> {
    let found = machine.cuda_devices;
    let asked = config.run.workers;
    if config.run.launch == LaunchChoice::External {
        return Ok(place_elsewhere(config, machine));
    }
    let refused = || TooFewDevices {
        workers: asked.unwrap_or(1),
        origin: config.origin("run.workers").to_owned(),
        devices: found,
    };
    let (device, device_reason) = match config.run.device {
        DeviceChoice::Cpu => (DeviceChoice::Cpu, "as asked".to_owned()),
        DeviceChoice::Cuda if found >= asked.unwrap_or(1) => {
            (DeviceChoice::Cuda, "as asked".to_owned())
        }
        DeviceChoice::Cuda => return Err(refused()),
        DeviceChoice::Auto if found == 0 => (
            DeviceChoice::Cpu,
            "auto: this machine has no CUDA device".to_owned(),
        ),
        DeviceChoice::Auto => match asked {
            Some(workers) if workers > found => (
                DeviceChoice::Cpu,
                format!("auto: {found} CUDA devices are too few for {workers} workers"),
            ),
            _ => (
                DeviceChoice::Cuda,
                format!("auto: this machine has {found} CUDA devices"),
            ),
        },
    };
    let workers = asked.unwrap_or(if device == DeviceChoice::Cuda {
        found
    } else {
        1
    });
    let devices = (0..workers).map(|k| match device {
        DeviceChoice::Cuda => format!("cuda:{k}"),
        _ => "cpu".to_owned(),
    });
    let share = (machine.cpus / workers.max(1)).max(1);
    let (asked, threads_reason) = match (config.train.threads, machine.omp_threads) {
        (Some(threads), _) => (Some(threads), "train.threads".to_owned()),
        (None, Some(threads)) => (Some(threads), "OMP_NUM_THREADS".to_owned()),
        (None, None) => (None, format!("{} processors shared out", machine.cpus)),
    };
    let (threads, loader_threads) = split_threads(share, device, asked, config.data.loader_threads);
    Ok(Placement {
        device,
        devices: devices.collect(),
        threads,
        loader_threads,
        device_reason,
        threads_reason,
    })
}

/// Compute and decoding threads of a worker whose share of the processors is `share`: together no more than that, but
/// for the one that each needs at least, and for what was asked for.
///
/// Where the CPU computes, decoding takes a hundredth of it: one thread for eight. On fewer than four processors all
/// compute, for a thread that hardly ever runs is not worth a quarter of them. A GPU needs one CPU thread to feed it for
/// seven that decode.
fn split_threads(
    share: u32,
    device: DeviceChoice,
    compute: Option<u32>,
    decoding: Option<u32>,
) -> (u32, u32) {
    let share = share.max(1);
    let rest = |taken: u32| share.saturating_sub(taken).max(1);
    let eighth = (share / 8).max(1);
    match (compute, decoding) {
        (Some(compute), Some(decoding)) => (compute, decoding),
        (Some(compute), None) => (compute, rest(compute)),
        (None, Some(decoding)) => (rest(decoding), decoding),
        (None, None) if device == DeviceChoice::Cuda => (eighth, rest(eighth)),
        (None, None) if share < 4 => (share, 1),
        (None, None) => (rest(eighth), eighth),
    }
}

/// Workers that someone else starts compute where they are.
fn place_elsewhere(config: &Config, machine: &Machine) -> Placement {
    let workers = config.run.workers.unwrap_or(1);
    let threads_reason = match config.train.threads {
        Some(_) => "train.threads",
        None => "the processors of this machine",
    };
    let (threads, loader_threads) = split_threads(
        machine.cpus,
        config.run.device,
        config.train.threads,
        config.data.loader_threads,
    );
    Placement {
        device: config.run.device,
        devices: vec!["its own".to_owned(); workers as usize],
        threads,
        loader_threads,
        device_reason: "run.launch = external".to_owned(),
        threads_reason: threads_reason.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Sources;

    /// The defaults with these settings.
    pub(crate) fn config(set: &[&str]) -> Config {
        let set = set.iter().map(ToString::to_string).collect();
        Config::load(&Sources {
            set,
            ..Sources::default()
        })
        .unwrap()
    }

    /// One of so many processors and devices.
    pub(crate) fn machine(cpus: u32, cuda_devices: u32) -> Machine {
        Machine {
            cpus,
            cuda_devices,
            omp_threads: None,
        }
    }

    #[test]
    fn cuda_with_fewer_devices_than_workers_is_refused_naming_both_counts() {
        let error = place(
            &config(&["run.device=cuda", "run.workers=8"]),
            &machine(64, 3),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "run.workers = 8 (--set) but this machine has 3 CUDA devices: lower --workers to 3, or use --device cpu"
        );
        let none = place(&config(&["run.device=cuda"]), &machine(2, 0))
            .unwrap_err()
            .to_string();
        assert!(
            none.ends_with("but this machine has 0 CUDA devices: use --device cpu"),
            "{none}"
        );
    }

    #[test]
    fn auto_takes_cuda_when_there_is_a_device_for_each_worker_and_says_why() {
        let placed = |set: &[&str], machine| {
            let placement = place(&config(set), &machine).unwrap();
            (
                placement.devices.join(" "),
                placement.threads,
                placement.device_reason,
            )
        };
        assert_eq!(
            placed(&[], machine(64, 4)),
            (
                "cuda:0 cuda:1 cuda:2 cuda:3".into(),
                2,
                "auto: this machine has 4 CUDA devices".into()
            )
        );
        assert_eq!(
            placed(&["run.workers=2"], machine(3, 0)),
            (
                "cpu cpu".into(),
                1,
                "auto: this machine has no CUDA device".into()
            )
        );
        assert_eq!(
            placed(&["run.workers=3"], machine(2, 1)),
            (
                "cpu cpu cpu".into(),
                1,
                "auto: 1 CUDA devices are too few for 3 workers".into()
            )
        );
    }

    #[test]
    fn workers_that_someone_else_starts_are_not_placed_on_this_machine() {
        let set = ["run.launch=external", "run.workers=4", "run.device=cuda"];
        let placement = place(&config(&set), &machine(2, 0)).unwrap();
        assert_eq!((placement.devices.len(), placement.threads), (4, 1));
        assert_eq!(placement.devices[0], "its own");
    }

    #[test]
    fn threads_are_the_budget_shared_out_unless_the_config_or_the_environment_says_otherwise() {
        let omp = Machine {
            omp_threads: Some(5),
            ..machine(16, 0)
        };
        assert_eq!(
            place(&config(&["run.workers=4"]), &machine(16, 0))
                .unwrap()
                .threads,
            3
        );
        assert_eq!(place(&config(&["run.workers=4"]), &omp).unwrap().threads, 5);
        assert_eq!(
            place(&config(&["run.workers=4", "train.threads=2"]), &omp)
                .unwrap()
                .threads,
            2
        );
    }

    #[test]
    fn compute_and_decoding_threads_of_all_workers_are_no_more_than_the_processors() {
        for cpus in 4..=130 {
            for workers in 1..=cpus / 4 {
                for cuda in [0, workers] {
                    let set = format!("run.workers={workers}");
                    let placed = place(&config(&[&set]), &machine(cpus, cuda)).unwrap();
                    let (compute, decoding) = (placed.threads, placed.loader_threads);
                    assert!(
                        (compute + decoding) * workers <= cpus && compute > 0 && decoding > 0,
                        "{compute} and {decoding} threads for each of {workers} workers, {cpus} processors"
                    );
                }
            }
        }
    }

    #[test]
    fn decoding_gets_what_compute_leaves_and_the_other_way_round() {
        use DeviceChoice::{Cpu, Cuda};
        for (share, device, asked, expected) in [
            (16, Cpu, (None, None), (14, 2)),
            (16, Cuda, (None, None), (2, 14)),
            (16, Cpu, (Some(4), None), (4, 12)),
            (16, Cpu, (None, Some(6)), (10, 6)),
            (16, Cpu, (Some(20), None), (20, 1)),
            (16, Cpu, (Some(20), Some(9)), (20, 9)),
            (1, Cpu, (None, None), (1, 1)),
            (2, Cpu, (None, None), (2, 1)),
            (2, Cuda, (None, None), (1, 1)),
        ] {
            assert_eq!(
                split_threads(share, device, asked.0, asked.1),
                expected,
                "{share} {device:?} {asked:?}"
            );
        }
    }

    #[test]
    fn devices_are_counted_as_the_runtime_would_see_them() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(cuda_devices(root.path(), None), 0);
        for gpu in ["0000:01:00.0", "0000:02:00.0"] {
            fs::create_dir_all(root.path().join("proc/driver/nvidia/gpus").join(gpu)).unwrap();
        }
        assert_eq!(cuda_devices(root.path(), None), 2);
        fs::create_dir_all(root.path().join("dev")).unwrap();
        for file in ["nvidia0", "nvidia1", "nvidia7", "nvidiactl", "nvidia-uvm"] {
            fs::write(root.path().join("dev").join(file), "").unwrap();
        }
        assert_eq!(cuda_devices(root.path(), None), 3);
        for (visible, count) in [
            ("0,7", 2),
            ("", 0),
            ("-1", 0),
            ("0,-1,1", 1),
            ("0,1,2,3,4", 3),
            ("GPU-aa, GPU-bb", 2),
        ] {
            assert_eq!(
                cuda_devices(root.path(), Some(visible)),
                count,
                "{visible:?}"
            );
        }
    }
}
