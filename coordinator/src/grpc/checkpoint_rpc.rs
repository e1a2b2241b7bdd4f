//! A checkpoint's bytes, up from rank 0 and down to ranks that resume.

use std::time::{Duration, Instant};

use proto::v1::{
    GetCheckpointRequest, GetCheckpointResponse, PutCheckpointRequest, PutCheckpointResponse,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Context;
use crate::checkpoint::{Checkpoints, Committed};
use crate::driver::Message;
use domain::run::Event;

/// Chunks that wait for the disk, or for a reader: about 2 MiB.
const IN_FLIGHT: usize = 4;

/// How often it is said that more of a checkpoint has come in.
const STILL_COMING: Duration = Duration::from_secs(5);

/// Writes the checkpoint that the stream carries. What goes wrong with the disk is an answer and not an error: the
/// worker trains on.
pub(super) async fn put(
    context: &Context,
    mut stream: Streaming<PutCheckpointRequest>,
) -> Result<PutCheckpointResponse, Status> {
    let Some(first) = stream.message().await? else {
        return Err(Status::invalid_argument(
            "an empty stream is no checkpoint: send its files",
        ));
    };
    context.check_run(&first.run_id)?;
    context.check_generation(first.generation)?;
    let step = first.step;
    context
        .tell(Message::Event(Event::CheckpointBegan { step }))
        .await?;
    let mut outcome = receive(context, first, &mut stream).await;
    let answer = match &outcome {
        Ok(committed) => PutCheckpointResponse {
            path: committed.path.display().to_string(),
            problem: String::new(),
        },
        Err(Problem::Local(problem)) => PutCheckpointResponse {
            path: String::new(),
            problem: problem.clone(),
        },
        Err(_) => PutCheckpointResponse::default(),
    };
    if let Ok(committed) = &mut outcome {
        catch_up_map(context, step, committed).await;
    }
    let (outcome, result) = match outcome {
        Ok(committed) => (Ok(committed), Ok(answer)),
        Err(Problem::Local(problem)) => (Err(problem), Ok(answer)),
        Err(Problem::Stream(status)) => (Err(status.message().to_owned()), Err(status)),
        Err(Problem::Cut(status)) => {
            tracing::debug!(step, %status, "a checkpoint's stream broke");
            let text = "the worker that sent it was lost, or its connection was";
            (Err(text.to_owned()), Err(status))
        }
        Err(Problem::Over(status)) => {
            let text = "the generation of the worker that sent it ended first";
            (Err(text.to_owned()), Err(status))
        }
    };
    context.tell(Message::Checkpoint { step, outcome }).await?;
    result
}

/// Why a checkpoint did not come to be.
enum Problem {
    /// Here: the disk, or bytes that are not what they should be.
    Local(String),
    /// There: the stream broke the rules.
    Stream(Status),
    /// The stream broke.
    Cut(Status),
    /// The generation that it is of is over.
    Over(Status),
}

async fn receive(
    context: &Context,
    first: PutCheckpointRequest,
    stream: &mut Streaming<PutCheckpointRequest>,
) -> Result<Committed, Problem> {
    let (generation, step) = (first.generation, first.step);
    let (chunks, incoming) = mpsc::channel(IN_FLIGHT);
    let checkpoints = context.checkpoints.clone();
    let (map, known_map) = std::sync::mpsc::channel();
    let writer = tokio::task::spawn_blocking(move || {
        write(&checkpoints, generation, step, incoming, &known_map)
    });
    let mut next = Some(first);
    let mut said = Instant::now();
    while let Some(chunk) = next {
        if said.elapsed() >= STILL_COMING {
            said = Instant::now();
            let more = Event::CheckpointBegan { step };
            let told = context.tell(Message::Event(more)).await;
            told.map_err(Problem::Stream)?;
        }
        if (chunk.generation, chunk.step) != (generation, step) {
            return Err(Problem::Stream(Status::invalid_argument(
                "one stream carries one checkpoint: generation and step must not change",
            )));
        }
        // Each time, since the generation may end meanwhile.
        context
            .check_generation(generation)
            .map_err(Problem::Over)?;
        let commit = chunk.commit;
        if commit {
            settled(context, step).await?;
            // It may have ended while the steps were waited for.
            context
                .check_generation(generation)
                .map_err(Problem::Over)?;
            // The writer has ended if this fails, and its result says why.
            let _ = map.send(context.evaluations.map_of(step).await);
        }
        if chunks.send(chunk).await.is_err() || commit {
            break;
        }
        next = stream.message().await.map_err(Problem::Cut)?;
    }
    drop(chunks);
    match writer.await {
        Ok(Ok(Some(committed))) => Ok(committed),
        Ok(Ok(None)) => Err(Problem::Stream(Status::invalid_argument(
            "the stream ended without a commit: the checkpoint is dropped",
        ))),
        Ok(Err(problem)) => {
            // The sender gets its answer when it has sent everything: a stream cut off on its way would be an error.
            while let Ok(Some(_)) = stream.message().await {}
            Err(Problem::Local(problem))
        }
        Err(_) => Err(Problem::Local(
            "writing the checkpoint was cut off".to_owned(),
        )),
    }
}

/// Waits until every step before the checkpoint is on disk.
async fn settled(context: &Context, step: u64) -> Result<(), Problem> {
    let (done, wait) = oneshot::channel();
    context
        .tell(Message::Settle { step, done })
        .await
        .map_err(Problem::Stream)?;
    match wait.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(problem)) => Err(Problem::Local(problem)),
        Err(_) => Err(Problem::Local("the run is over".to_owned())),
    }
}

/// The blocking half: chunks to files, then the commit.
fn write(
    checkpoints: &Checkpoints,
    generation: u64,
    step: u64,
    mut chunks: mpsc::Receiver<PutCheckpointRequest>,
    map: &std::sync::mpsc::Receiver<Option<f64>>,
) -> Result<Option<Committed>, String> {
    let mut writer = checkpoints
        .begin(generation, step)
        .map_err(|e| e.to_string())?;
    while let Some(chunk) = chunks.blocking_recv() {
        if !chunk.data.is_empty() {
            writer
                .write(&chunk.file, chunk.offset, &chunk.data)
                .map_err(|e| e.to_string())?;
        }
        if chunk.end_of_file {
            writer
                .end_file(&chunk.file, &chunk.sha256)
                .map_err(|e| e.to_string())?;
        }
        if chunk.commit {
            let map = map.recv().unwrap_or_default();
            return writer.commit(map).map(Some).map_err(|e| e.to_string());
        }
    }
    Ok(None)
}

/// Gives the checkpoint the mAP that became known while it was being committed.
async fn catch_up_map(context: &Context, step: u64, committed: &mut Committed) {
    if let Some(map) = context.evaluations.map_of(step).await {
        let checkpoints = context.checkpoints.clone();
        match tokio::task::spawn_blocking(move || checkpoints.set_map(step, map)).await {
            Ok(Ok(best)) => committed.best = best,
            Ok(Err(problem)) => {
                tracing::warn!(step, %problem, "the checkpoint does not carry its mAP");
            }
            Err(_) => {}
        }
    }
}

/// Streams the files of a committed checkpoint.
pub(super) async fn get(
    context: &Context,
    request: &GetCheckpointRequest,
) -> Result<ReceiverStream<Result<GetCheckpointResponse, Status>>, Status> {
    context.check_run(&request.run_id)?;
    let (checkpoints, step) = (context.checkpoints.clone(), request.step);
    let (chunks, stream) = mpsc::channel(IN_FLIGHT);
    let reader = tokio::task::spawn_blocking(move || checkpoints.reader(step))
        .await
        .map_err(|_| Status::internal("reading the checkpoint was cut off"))?
        .map_err(|problem| Status::not_found(problem.to_string()))?;
    tokio::task::spawn_blocking(move || {
        for chunk in reader {
            let message = match chunk {
                Ok(chunk) => Ok(GetCheckpointResponse {
                    file: chunk.file,
                    offset: chunk.offset,
                    data: chunk.data,
                    end_of_file: chunk.sha256.is_some(),
                    sha256: chunk.sha256.unwrap_or_default(),
                }),
                Err(problem) => Err(Status::data_loss(problem.to_string())),
            };
            let failed = message.is_err();
            // An error means that the reader has gone.
            if chunks.blocking_send(message).is_err() || failed {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}
