//! Tests with real processes: a test starts its own binary again, once a rank, and each of them runs
//! the same test's body as that rank. They meet at a key-value server in the first process.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

mod key_value;

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nccl_rs::{GlooOptions, ProcessGroup, ReduceOp, Reducer, Store};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tch::{Device, Kind, Tensor};

pub use key_value::{Client, Server};

/// Long enough for a loaded machine; only a test that fails waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What must be done within a second is measured against this.
pub const PROMPTLY: Duration = Duration::from_secs(1);

/// Under this the first process tells the time at which it kills a rank.
pub const KILLED: &str = "killed";

const RANK: &str = "NCCL_RS_TEST_RANK";
const WORLD_SIZE: &str = "NCCL_RS_TEST_WORLD_SIZE";
const SERVER: &str = "NCCL_RS_TEST_SERVER";
const SHARED: &str = "NCCL_RS_TEST_SHARED";

/// One rank of a test, in its own process.
pub struct Rank {
    pub rank: usize,
    pub world_size: usize,
    pub store: Client,
}

impl Rank {
    /// Joins the others in a group under a generation's keys.
    pub fn group(&self, generation: &str) -> ProcessGroup {
        self.group_as(generation, self.rank, self.world_size)
    }

    /// Returns once everybody is in: who left earlier would take the group away from those still connecting.
    pub fn group_as(&self, generation: &str, rank: usize, world_size: usize) -> ProcessGroup {
        self.group_with(generation, rank, world_size, options())
    }

    pub fn group_with(
        &self,
        generation: &str,
        rank: usize,
        world_size: usize,
        options: GlooOptions,
    ) -> ProcessGroup {
        let store: Arc<dyn Store> = Arc::new(self.store.with_prefix(generation));
        let group =
            ProcessGroup::gloo(store, rank, world_size, options).expect("the peers are alive");
        self.tell(&format!("{generation}: {rank} of {world_size} is in"));
        for other in 0..world_size {
            self.hear(&format!("{generation}: {other} of {world_size} is in"));
        }
        group
    }

    /// Tells the first process, or another rank, that something has happened here.
    pub fn tell(&self, what: &str) {
        self.store.set(what, b"yes").expect("the server is alive");
    }

    /// Waits for what another process tells.
    pub fn hear(&self, what: &str) -> Vec<u8> {
        self.store.get(what, PATIENCE).expect("the teller is alive")
    }

    /// Does nothing until the process is killed.
    pub fn wait_to_be_killed(&self) -> ! {
        loop {
            std::thread::park();
        }
    }

    /// How long ago the first process told `what` with the time.
    pub fn since(&self, what: &str) -> Duration {
        let told = String::from_utf8(self.hear(what)).unwrap().parse().unwrap();
        now().saturating_sub(Duration::from_nanos(told))
    }
}

/// Sums values whose sums are exact in every kind, at sizes around those at which messages are cut.
pub fn exact_sums(group: &ProcessGroup, rank: &Rank, device: Device) {
    for kind in [
        Kind::Float,
        Kind::Double,
        Kind::Half,
        Kind::BFloat16,
        Kind::Int8,
        Kind::Uint8,
        Kind::Int,
        Kind::Int64,
    ] {
        for count in [1, 7, 1_000, 70_001] {
            let place = Tensor::arange(count, (Kind::Int64, device)).remainder(5);
            let own = (&place + rank.rank as i64).to_kind(kind);

            group
                .all_reduce(&own, ReduceOp::Sum)
                .unwrap()
                .wait()
                .unwrap();

            let ranks = rank.world_size as i64;
            let expected = (place * ranks + (0..ranks).sum::<i64>()).to_kind(kind);
            let (own, expected) = (own.to_device(Device::Cpu), expected.to_device(Device::Cpu));
            assert_eq!(bits(&own), bits(&expected), "{kind:?}, {count} elements");
        }
    }
}

pub fn options() -> GlooOptions {
    GlooOptions {
        timeout: PATIENCE,
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        shared_memory: shares_memory(),
        compress_gradients: false,
    }
}

/// Whether this rank's group allows sums through shared memory.
pub fn shares_memory() -> bool {
    env::var(SHARED).is_ok_and(|shared| shared == "true")
}

/// Runs `body` in `world_size` processes and expects all of them to succeed.
pub fn on_ranks(test: &str, world_size: usize, body: impl FnOnce(Rank)) {
    on_ranks_watched(test, world_size, body, |ranks| ranks.all_succeed());
}

/// Runs `body` in `world_size` processes, and `director` in the first one, which decides about life
/// and death of the others. All of it twice: with sums over sockets, and through shared memory.
pub fn on_ranks_watched(
    test: &str,
    world_size: usize,
    body: impl FnOnce(Rank),
    director: impl Fn(Ranks),
) {
    if let Ok(rank) = env::var(RANK) {
        // One thread a rank, as the machine may have fewer cores than there are ranks.
        tch::set_num_threads(1);
        body(Rank {
            rank: rank.parse().unwrap(),
            world_size: env::var(WORLD_SIZE).unwrap().parse().unwrap(),
            store: Client::new(env::var(SERVER).unwrap().parse().unwrap()),
        });
        return;
    }
    for shared in [false, true] {
        director(start(test, world_size, shared));
    }
}

fn start(test: &str, world_size: usize, shared: bool) -> Ranks {
    let server = Server::start();
    let processes = (0..world_size)
        .map(|rank| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture", "--test-threads=1"])
                .env(RANK, rank.to_string())
                .env(WORLD_SIZE, world_size.to_string())
                .env(SERVER, server.address().to_string())
                .env(SHARED, shared.to_string())
                .stdin(Stdio::null())
                // Its summary would be taken for this test's; a panic's message goes to stderr.
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    Ranks {
        processes,
        store: Client::new(server.address()),
    }
}

/// The processes of a test, seen from the first one. None outlives it.
pub struct Ranks {
    processes: Vec<Child>,
    pub store: Client,
}

impl Ranks {
    pub fn hear(&self, what: &str) {
        self.store.get(what, PATIENCE).expect("the rank tells it");
    }

    /// Tells the ranks the time.
    pub fn tell_the_time(&self, what: &str) {
        self.store
            .set(what, now().as_nanos().to_string().as_bytes())
            .unwrap();
    }

    pub fn kill(&mut self, rank: usize) {
        self.processes[rank].kill().unwrap();
    }

    /// Stops a process as a debugger would; returns when it stands still.
    pub fn stop(&self, rank: usize) {
        let pid = Pid::from_child(&self.processes[rank]);
        kill_process(pid, Signal::STOP).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(
            status.stopped(),
            "rank {rank} has not stopped but ended: {status:?}"
        );
    }

    pub fn resume(&self, rank: usize) {
        kill_process(Pid::from_child(&self.processes[rank]), Signal::CONT).unwrap();
    }

    pub fn end_of(&mut self, rank: usize) -> ExitStatus {
        self.processes[rank].wait().unwrap()
    }

    pub fn succeeds(&mut self, rank: usize) {
        let status = self.end_of(rank);
        assert!(
            status.success(),
            "rank {rank} failed: {status}; its message is above"
        );
    }

    pub fn was_killed(&mut self, rank: usize) {
        assert_eq!(
            self.end_of(rank).signal(),
            Some(9),
            "rank {rank} was to be killed"
        );
    }

    /// The last rank dies once all are where they wanted to be; all others succeed.
    pub fn lose_the_last(mut self, world_size: usize) {
        let victim = world_size - 1;
        for rank in 0..world_size {
            self.hear(&format!("rank {rank} is there"));
        }
        self.tell_the_time(KILLED);
        self.kill(victim);
        self.was_killed(victim);
        for rank in 0..victim {
            self.succeeds(rank);
        }
    }

    pub fn all_succeed(mut self) {
        for rank in 0..self.processes.len() {
            self.succeeds(rank);
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Fails for those that have ended, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The sums over all ranks, in the order of the parameters and of their shape and memory format.
pub fn summed(reducer: &Reducer, parameters: &[Tensor]) -> Vec<Tensor> {
    let gather = |(index, parameter): (usize, &Tensor)| {
        let flat: Vec<Tensor> = reducer
            .sums()
            .unwrap()
            .into_iter()
            .filter(|stretch| stretch.parameter == index)
            .scan(0, |next, stretch| {
                assert_eq!(stretch.from, *next, "one stretch behind the other");
                *next += stretch.sums.numel();
                Some(stretch.sums)
            })
            .collect();
        Tensor::cat(&flat, 0).as_strided(parameter.size(), parameter.stride(), None)
    };
    let all = parameters.iter().enumerate().map(gather).collect();
    reducer.require_whole().unwrap();
    all
}

/// Bytes of a tensor, for comparison to the bit.
pub fn bits(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.detach().contiguous().view([-1]);
    let mut bytes = vec![0; flat.numel() * flat.kind().elt_size_in_bytes()];
    flat.copy_data_u8(&mut bytes, flat.numel());
    bytes
}

/// Largest absolute difference, as part of the largest absolute value expected.
pub fn relative_difference(found: &Tensor, expected: &Tensor) -> f64 {
    let scale = expected
        .abs()
        .max()
        .double_value(&[])
        .max(f64::MIN_POSITIVE);
    (found - expected)
        .abs()
        .max()
        .to_kind(Kind::Double)
        .double_value(&[])
        / scale
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
