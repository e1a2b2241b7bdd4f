//! `RunService`: what people and tools ask.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::run::Event;
use proto::v1::run_service_server::RunService;
use proto::v1::{
    CheckpointEntry, GetHistoryRequest, GetHistoryResponse, GetStacksRequest, GetStacksResponse,
    GetStatusRequest, GetStatusResponse, ListCheckpointsRequest, ListCheckpointsResponse, Phase,
    SnapshotRunRequest, SnapshotRunResponse, StopRequest, StopResponse, WatchStatusRequest,
    WatchStatusResponse, WorkerStatus,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Context;
use crate::driver::{Message, StacksAsked, StacksOf as Asked};
use crate::status::{cut, is_final};
use crate::terminal::figures::patience;

/// The shortest time between two statuses on one stream.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Checkpoints in one answer; retention keeps far fewer.
const CHECKPOINTS_LIMIT: usize = 2000;
/// How long workers are waited for to say where their threads are.
const STACKS_WITHIN: Duration = Duration::from_secs(3);

/// Why a worker does not say where its threads are; of one on this machine the system is asked.
fn unanswered(worker: &WorkerStatus, local: bool) -> String {
    let text = format!("it did not answer within {}", patience(STACKS_WITHIN));
    let read = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", worker.pid)).ok();
    let state = local.then(|| read("status")).flatten().and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("State:"))?;
        Some(line.trim_start_matches("State:").trim().to_owned())
    });
    match state {
        Some(state) => format!("{text}; the system says its state is {state}"),
        None => format!("{text}: it is stopped, or out of reach"),
    }
}

/// See the module's description.
pub(crate) struct Run(pub(crate) Arc<Context>);

#[tonic::async_trait]
impl RunService for Run {
    type GetStacksStream = Pin<Box<dyn Stream<Item = Result<GetStacksResponse, Status>> + Send>>;
    type WatchStatusStream =
        Pin<Box<dyn Stream<Item = Result<WatchStatusResponse, Status>> + Send>>;

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let status = Some(self.0.status.borrow().clone());
        Ok(Response::new(GetStatusResponse { status }))
    }

    async fn watch_status(
        &self,
        _request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let mut newest = self.0.status.clone();
        // One status waits for the reader; a slow one finds the newest behind it, not all.
        let (statuses, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let Ok(place) = statuses.reserve().await else {
                    return;
                };
                let status = newest.borrow_and_update().clone();
                let last = is_final(status.phase());
                place.send(Ok(WatchStatusResponse {
                    status: Some(status),
                }));
                if last {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(WATCH_INTERVAL) => {}
                    // The end is not held back, and a reader that has gone is not waited for.
                    () = ended(newest.clone()) => continue,
                    () = statuses.closed() => return,
                }
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return },
                    () = statuses.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let StopRequest { reason, by } = request.into_inner();
        let by = match (by.as_str(), reason.as_str()) {
            ("", "") => "a request over gRPC".to_owned(),
            ("", reason) => format!("a request over gRPC: {}", cut(reason)),
            (by, "") => cut(by),
            (by, reason) => format!("{}: {}", cut(by), cut(reason)),
        };
        let (phase, has_stepped) = {
            let status = self.0.status.borrow();
            (status.phase(), status.step > 0)
        };
        self.0.tell(Message::Event(Event::StopAsked { by })).await?;
        let reason = match phase {
            Phase::Training | Phase::Evaluating => {
                "the run stops at the next step boundary with a checkpoint and can be resumed"
            }
            Phase::Stopping => "the run was stopping already and now ends at once",
            Phase::Forming | Phase::Regrouping if has_stepped => {
                "the run stops once its workers are in a generation again, with a checkpoint, and can be resumed; another \
                 request ends it at once"
            }
            Phase::Waiting if has_stepped => {
                "the run ends and can be resumed from its last checkpoint"
            }
            _ => "the run ends before its first step",
        };
        Ok(Response::new(StopResponse {
            reason: reason.to_owned(),
        }))
    }

    async fn snapshot(
        &self,
        _request: Request<SnapshotRunRequest>,
    ) -> Result<Response<SnapshotRunResponse>, Status> {
        let status = self.0.status.borrow().clone();
        if !matches!(status.phase(), Phase::Training | Phase::Evaluating) {
            return Err(Status::failed_precondition(format!(
                "no checkpoint can be taken now: {}",
                status.reason
            )));
        }
        self.0.tell(Message::Event(Event::SnapshotAsked)).await?;
        let reason = "a checkpoint is taken at the next step boundary".to_owned();
        Ok(Response::new(SnapshotRunResponse { reason }))
    }

    async fn list_checkpoints(
        &self,
        _request: Request<ListCheckpointsRequest>,
    ) -> Result<Response<ListCheckpointsResponse>, Status> {
        let checkpoints = self.0.checkpoints.clone();
        let entries = tokio::task::spawn_blocking(move || checkpoints.list())
            .await
            .map_err(|_| Status::internal("listing the checkpoints was cut off"))?
            .map_err(|problem| Status::internal(problem.to_string()))?;
        let newest = entries.len().saturating_sub(CHECKPOINTS_LIMIT);
        let checkpoints = entries
            .into_iter()
            .skip(newest)
            .map(|entry| CheckpointEntry {
                step: entry.step,
                path: entry.path.display().to_string(),
                bytes: entry.bytes,
                map: entry.map,
                last: entry.last,
                best: entry.best,
            })
            .collect();
        Ok(Response::new(ListCheckpointsResponse { checkpoints }))
    }

    async fn get_stacks(
        &self,
        _request: Request<GetStacksRequest>,
    ) -> Result<Response<Self::GetStacksStream>, Status> {
        let (told, asked) = oneshot::channel();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let asking = StacksAsked { told, answers };
        self.0.tell(Message::Stacks(asking)).await?;
        let over = |_| Status::unavailable("the run is over");
        let Asked { mut workers, local } = asked.await.map_err(over)?;
        let (responses, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let give_up = tokio::time::Instant::now() + STACKS_WITHIN;
            while !workers.is_empty() {
                let Ok(Some((worker_id, threads))) =
                    tokio::time::timeout_at(give_up, answered.recv()).await
                else {
                    break;
                };
                let known = workers.iter().position(|one| one.worker_id == worker_id);
                let worker = known.map(|at| workers.remove(at));
                let problem = String::new();
                let response = GetStacksResponse {
                    worker,
                    threads,
                    problem,
                };
                if responses.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            for worker in workers {
                let problem = unanswered(&worker, local);
                let worker = Some(worker);
                let response = GetStacksResponse {
                    worker,
                    threads: Vec::new(),
                    problem,
                };
                if responses.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_history(
        &self,
        request: Request<GetHistoryRequest>,
    ) -> Result<Response<GetHistoryResponse>, Status> {
        let GetHistoryRequest {
            from_step,
            page_size,
        } = request.into_inner();
        Ok(Response::new(self.0.history.page(from_step, page_size)))
    }
}

/// Done once the run is over.
async fn ended(mut status: tokio::sync::watch::Receiver<proto::v1::Status>) {
    // An error means that the run's own side is gone, which is an end too.
    let _ = status.wait_for(|status| is_final(status.phase())).await;
}
