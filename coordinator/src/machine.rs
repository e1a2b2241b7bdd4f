//! What this machine offers, and how workers are placed on it.

use std::fs;
use std::path::Path;

pub use data::threads::PROCESSORS;
use data::threads::{self, Consumer, NoNumber, Threads};

use crate::config::{Config, DeviceChoice, LaunchChoice};
use crate::terminal::figures::count;

/// What this machine offers to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors this process may use: the least of affinity, cgroup quota and [`PROCESSORS`].
    pub cpus: u32,
    /// CUDA devices, without asking the CUDA runtime: this process does not load it.
    pub cuda_devices: u32,
    /// `OMP_NUM_THREADS`, if it is a number.
    pub omp_threads: Option<u32>,
    /// Whether its processors compute in bfloat16, as far as that is told.
    pub bf16: bool,
}

impl Machine {
    /// Looks around. The environment is given by the caller, which alone reads it.
    ///
    /// # Errors
    /// [`NoNumber`] if [`PROCESSORS`] is none.
    pub fn look(variable: impl Fn(&str) -> Option<String>) -> Result<Self, NoNumber> {
        Ok(Self {
            cpus: threads::processors(&variable)?,
            cuda_devices: cuda_devices(Path::new("/"), variable("CUDA_VISIBLE_DEVICES").as_deref()),
            omp_threads: threads::asked(&variable),
            bf16: fs::read_to_string("/proc/cpuinfo").map_or(true, |text| computes_bf16(&text)),
        })
    }
}

/// Whether `/proc/cpuinfo` lists instructions for bfloat16: AVX-512's or AMX's on x86, "bf16" on ARM. Without flags nothing
/// is known.
fn computes_bf16(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter_map(|line| {
        let (key, flags) = line.split_once(':')?;
        matches!(key.trim(), "flags" | "Features").then_some(flags)
    });
    let has = |flags: &str| {
        let mut flags = flags.split_whitespace();
        flags.any(|flag| matches!(flag, "avx512_bf16" | "amx_bf16" | "bf16"))
    };
    flags.next().is_none_or(has)
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
    /// Of each worker; `None` for workers that someone else starts, who share out the processors of their machine.
    pub threads: Option<Threads>,
    /// What was chosen and why, for people.
    pub device_reason: String,
    /// The same for threads, and whether they are more than the machine has processors.
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
        return Ok(place_elsewhere(config));
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
                format!(
                    "auto: {} too few for {}",
                    match found {
                        1 => "1 CUDA device is".to_owned(),
                        found => format!("{found} CUDA devices are"),
                    },
                    count(workers.into(), "worker", "workers")
                ),
            ),
            _ => (
                DeviceChoice::Cuda,
                format!(
                    "auto: this machine has {}",
                    count(found.into(), "CUDA device", "CUDA devices")
                ),
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
    let consumer = match device {
        DeviceChoice::Cuda => Consumer::Device,
        _ => Consumer::Processors,
    };
    let threads = Threads::share_out(share, consumer, asked, config.data.loader_threads);
    let all = u64::from(threads.all()) * u64::from(workers);
    let threads_reason = if all > u64::from(machine.cpus) {
        let processors = count(machine.cpus.into(), "processor", "processors");
        format!("{threads_reason}; {all} threads take turns on {processors}")
    } else {
        threads_reason
    };
    Ok(Placement {
        device,
        devices: devices.collect(),
        threads: Some(threads),
        device_reason,
        threads_reason,
    })
}

/// Workers that someone else starts compute where they are, and alone know how many processors there are.
fn place_elsewhere(config: &Config) -> Placement {
    let workers = config.run.workers.unwrap_or(1);
    let threads_reason = match config.train.threads {
        Some(_) => "train.threads",
        None => "shared out by each worker's machine",
    };
    Placement {
        device: config.run.device,
        devices: vec!["its own".to_owned(); workers as usize],
        threads: None,
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
            bf16: true,
        }
    }

    #[test]
    fn instructions_for_bfloat16_are_read_from_the_processors_flags() {
        for (text, expected) in [
            (
                "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n",
                true,
            ),
            ("processor\t: 0\nflags\t\t: fpu avx2 fma\n", false),
            ("Features\t: fp asimd bf16 i8mm\n", true),
            ("Features\t: fp asimd\n", false),
            ("processor\t: 0\n", true),
        ] {
            assert_eq!(computes_bf16(text), expected, "{text}");
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
                placement.threads.unwrap().compute,
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
                "auto: 1 CUDA device is too few for 3 workers".into()
            )
        );
    }

    #[test]
    fn workers_that_someone_else_starts_are_not_placed_on_this_machine() {
        let set = ["run.launch=external", "run.workers=4", "run.device=cuda"];
        let placement = place(&config(&set), &machine(2, 0)).unwrap();
        assert_eq!((placement.devices.len(), placement.threads), (4, None));
        assert_eq!(placement.devices[0], "its own");
    }

    #[test]
    fn threads_are_the_budget_shared_out_unless_the_config_or_the_environment_says_otherwise() {
        let omp = Machine {
            omp_threads: Some(5),
            ..machine(16, 0)
        };
        let placed = |set: &[&str], machine: &Machine| {
            let placement = place(&config(set), machine).unwrap();
            let threads = placement.threads.unwrap();
            (threads.compute, threads.decoding, placement.threads_reason)
        };
        let four = "run.workers=4";
        let shared_out = "16 processors shared out".to_owned();
        assert_eq!(placed(&[four], &machine(16, 0)), (3, 1, shared_out));
        // What was asked for stays; that it is too much is said.
        let beyond = "OMP_NUM_THREADS; 20 threads take turns on 16 processors".to_owned();
        assert_eq!(placed(&[four], &omp), (5, 0, beyond));
        let asked = "train.threads".to_owned();
        assert_eq!(placed(&[four, "train.threads=2"], &omp), (2, 2, asked));
        let beyond = "2 processors shared out; 6 threads take turns on 2 processors".to_owned();
        let set = ["run.workers=2", "data.loader_threads=2"];
        assert_eq!(placed(&set, &machine(2, 0)), (1, 2, beyond));
    }

    #[test]
    fn threads_of_all_workers_are_no_more_than_the_processors_or_one_for_each_worker() {
        for cpus in (1..=33).chain([64, 130]) {
            for workers in 1..=cpus + 1 {
                for cuda in [0, workers] {
                    let set = format!("run.workers={workers}");
                    let placed = place(&config(&[&set]), &machine(cpus, cuda)).unwrap();
                    let threads = placed.threads.unwrap();
                    let all = threads.all() * workers;
                    assert!(
                        all <= cpus.max(workers) && threads.compute > 0,
                        "{threads:?} for each of {workers} workers, {cpus} processors"
                    );
                    assert_eq!(
                        placed.threads_reason.contains("take turns"),
                        all > cpus,
                        "{}",
                        placed.threads_reason
                    );
                }
            }
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
