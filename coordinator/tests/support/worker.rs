//! A worker that follows its plan, computing nothing: what it is told (`session`), and what it does (`work`).

mod session;
mod work;

use std::future::Future;
use std::sync::Arc;

use domain::average_precision::mean_average_precision;
use domain::labels::Labels;
use domain::scores::{Layout, ScoreMatrix};
use proto::v1::StepPlan;
use proto::v1::fault::Class;
use tokio::sync::Notify;

use super::collective::Collective;
use super::{CLASSES, VAL};
use session::End;
use work::Worker;

/// What a worker does wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Misbehaviour {
    /// Drop the stream instead of doing this step, as a death does.
    pub(crate) die_at: Option<u64>,
    /// The same in the middle of the evaluation after so many steps.
    pub(crate) die_in_evaluation: Option<u64>,
    /// End the process by SIGKILL instead of doing this step.
    pub(crate) kill_at: Option<u64>,
    /// Report this fault instead of doing this step.
    pub(crate) fault_at: Option<(u64, Class, String)>,
    /// Report another loss than the others for this step.
    pub(crate) differ_at: Option<u64>,
    /// Wait for a stop before doing this step.
    pub(crate) await_stop_at: Option<u64>,
    /// Wait here until told before doing this step.
    pub(crate) pause_at: Option<(u64, Arc<Notify>)>,
}

/// What became of a worker.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) exit_code: Option<u32>,
    pub(crate) reason: String,
    pub(crate) rank: u32,
    /// With the generation that did each.
    pub(crate) steps: Vec<(u64, StepPlan)>,
    pub(crate) scored: Vec<u32>,
    pub(crate) died: bool,
}

/// The score that every worker gives to a sample: with ties, and not in the order of the labels.
pub(crate) fn logit(sample: u32, class: usize) -> f32 {
    ((sample * 7 + class as u32 * 3) % 5) as f32 - 2.0
}

/// The mAP of those scores, straight from the domain.
pub(crate) fn expected_map() -> f64 {
    let scores: Vec<f32> = (0..VAL)
        .flat_map(|sample| (0..CLASSES).map(move |class| logit(sample, class)))
        .collect();
    let mut labels = Labels::new(VAL, CLASSES as u32);
    for (sample, picture) in (0..).zip(&super::dataset().val.samples) {
        for &class in &picture.labels {
            labels.insert(sample, u32::from(class)).unwrap();
        }
    }
    let matrix = ScoreMatrix::new(&scores, VAL, CLASSES as u32, Layout::SampleMajor).unwrap();
    mean_average_precision(&matrix, &labels)
        .unwrap()
        .map
        .unwrap()
}

/// A worker of its world. `id` is its name; `collective` joins it to its peers.
pub(crate) fn spawn(
    address: &str,
    id: &str,
    collective: &Collective,
    misbehaviour: Misbehaviour,
) -> tokio::task::JoinHandle<Seen> {
    let (address, id, collective) = (address.to_owned(), id.to_owned(), collective.clone());
    tokio::spawn(async move {
        let mut worker = Worker::join(&address, &id, collective, misbehaviour).await;
        match worker.work().await {
            End::Released((code, reason)) => {
                (worker.seen.exit_code, worker.seen.reason) = (Some(code), reason);
            }
            _ => worker.seen.died = true,
        }
        worker.seen
    })
}

/// A whole world of well-behaved workers.
pub(crate) fn spawn_all(address: &str, world_size: u32) -> Vec<tokio::task::JoinHandle<Seen>> {
    spawn_world(address, world_size, |_| Misbehaviour::default())
}

/// A whole world of workers `worker-0`, `worker-1`, …, each doing wrong what `misbehaviour` says of its number.
pub(crate) fn spawn_world(
    address: &str,
    world_size: u32,
    misbehaviour: impl Fn(u32) -> Misbehaviour,
) -> Vec<tokio::task::JoinHandle<Seen>> {
    let collective = Collective::default();
    (0..world_size)
        .map(|n| {
            spawn(
                address,
                &format!("worker-{n}"),
                &collective,
                misbehaviour(n),
            )
        })
        .collect()
}

/// All of some workers' fates, in the order given.
pub(crate) async fn fates(
    workers: Vec<impl Future<Output = Result<Seen, tokio::task::JoinError>>>,
) -> Vec<Seen> {
    let mut seen = Vec::new();
    for worker in workers {
        let fate = tokio::time::timeout(super::PATIENCE, worker).await;
        seen.push(fate.expect("every worker must be let go").unwrap());
    }
    seen
}

/// Files that a checkpoint of `step` could consist of.
pub(crate) fn checkpoint_files(step: u64) -> [(&'static str, Vec<u8>); 3] {
    let tensors = |value: f32| {
        let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(value.to_le_bytes());
        bytes.extend((-value).to_le_bytes());
        bytes
    };
    let state = format!(
        r#"{{"format":1,"run_id":"test-run","step":{step},"epoch":0,"step_in_epoch":0,"seed":7,"generation":1,"rng":{{"scheme":"none"}},"samples_in_epoch":0}}"#
    );
    [
        ("model.safetensors", tensors(step as f32)),
        ("optimizer.safetensors", tensors(0.5)),
        ("state.json", state.into_bytes()),
    ]
}
