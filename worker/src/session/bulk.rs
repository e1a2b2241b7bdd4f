//! Bulk bytes: the data set's index and checkpoints down, scores and checkpoints up, in chunks below the message limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::{CHUNK_BYTES, v1};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::inbox::{Answer, Break};
use super::kept::{self, Whose};
use super::link::{Link, LinkError};

/// Largest index or checkpoint file this worker takes in, bytes. A resnet152 with its optimizer state in float64 is a
/// quarter of it.
const MOST_BYTES: usize = 8 << 30;

/// Chunks on their way; the sender waits when this many have not been taken.
const CHUNKS_AHEAD: usize = 4;

/// A checkpoint on its way to the coordinator, which goes on being sent when this is dropped.
#[derive(Debug)]
pub(crate) struct Upload(Arc<Answer<Result<v1::PutCheckpointResponse, tonic::Status>>>);

impl Link {
    /// The encoded index of one split.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) fn dataset(&self, split: v1::Split) -> Result<Vec<u8>, LinkError> {
        const CALL: &str = "GetDataset";
        let request = v1::GetDatasetRequest {
            run_id: self.run_id.clone(),
            split: split.into(),
        };
        self.runtime.block_on(async {
            let mut chunks = self
                .client()
                .get_dataset(request)
                .await
                .map_err(failed(CALL))?
                .into_inner();
            let mut bytes = Vec::new();
            while let Some(part) = chunks.message().await.map_err(failed(CALL))? {
                append(CALL, &mut bytes, &part.chunk)?;
            }
            Ok(bytes)
        })
    }

    /// The files of a committed checkpoint by name, each checked against its SHA-256.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) fn checkpoint(&self, step: u64) -> Result<BTreeMap<String, Vec<u8>>, LinkError> {
        const CALL: &str = "GetCheckpoint";
        let request = v1::GetCheckpointRequest {
            run_id: self.run_id.clone(),
            step,
        };
        self.runtime.block_on(async {
            let mut chunks = self
                .client()
                .get_checkpoint(request)
                .await
                .map_err(failed(CALL))?
                .into_inner();
            let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            while let Some(part) = chunks.message().await.map_err(failed(CALL))? {
                let bytes = files.entry(part.file.clone()).or_default();
                if part.offset != bytes.len() as u64 {
                    let reason = format!("{} has a gap at byte {}", part.file, bytes.len());
                    return Err(LinkError::Answer { call: CALL, reason });
                }
                append(CALL, bytes, &part.data)?;
                if part.end_of_file && Sha256::digest(&bytes[..]).as_slice() != part.sha256 {
                    let reason = format!(
                        "{} of step {step} does not have the SHA-256 of its manifest",
                        part.file
                    );
                    return Err(LinkError::Answer { call: CALL, reason });
                }
            }
            Ok(files)
        })
    }

    /// Sends scores of an evaluation's rows, or with `online` of training samples, `logits` being
    /// `[sample_ids.len(), classes]`. Without a coordinator they are kept for the next one.
    ///
    /// # Errors
    /// [`LinkError`], where they cannot be kept either.
    pub(crate) fn scores(
        &self,
        (generation, step): (u64, u64),
        (sample_ids, logits): (&[u32], &[f32]),
        skipped: &[v1::SkippedSample],
        online: bool,
    ) -> Result<(), LinkError> {
        let classes = logits.len() / sample_ids.len().max(1);
        let rows = (CHUNK_BYTES / 4 / (classes + 1).max(1)).max(1);
        let mut requests: Vec<_> = sample_ids
            .chunks(rows)
            .zip(logits.chunks((rows * classes).max(1)))
            .map(|(ids, logits)| v1::SubmitScoresRequest {
                run_id: self.run_id.clone(),
                generation,
                step,
                sample_ids: ids.to_vec(),
                logits: logits.to_vec(),
                skipped: Vec::new(),
                online,
            })
            .collect();
        requests.extend(skipped.chunks(1000).map(|skipped| v1::SubmitScoresRequest {
            run_id: self.run_id.clone(),
            generation,
            step,
            sample_ids: Vec::new(),
            logits: Vec::new(),
            skipped: skipped.to_vec(),
            online,
        }));
        self.give(&requests, Whose::Own)
    }

    /// What this rank keeps of its scores of the state after `step` steps, for another rank's [`Link::hold`].
    pub(crate) fn unsent(&self, step: u64) -> Vec<u8> {
        self.kept().own(step)
    }

    /// Takes what another rank keeps, in case it dies before the next coordinator is there. Says whether it can be read.
    ///
    /// # Errors
    /// As for [`Link::scores`].
    pub(crate) fn hold(&self, unsent: &[u8]) -> Result<bool, LinkError> {
        let Some(requests) = kept::read(unsent) else {
            return Ok(false);
        };
        self.give(&requests, Whose::Peers).map(|()| true)
    }

    fn give(&self, requests: &[v1::SubmitScoresRequest], whose: Whose) -> Result<(), LinkError> {
        if requests.is_empty() || self.kept().keep(requests, whose) {
            return Ok(());
        }
        let stream = tokio_stream::iter(requests.to_vec());
        let mut client = self.client();
        match self.runtime.block_on(client.submit_scores(stream)) {
            Ok(_) => Ok(()),
            Err(status)
                if !kept::is_refusal(&status)
                    && self.is_lost_soon()
                    && self.kept().keep(requests, whose) =>
            {
                Ok(())
            }
            Err(status) => Err(failed("SubmitScores")(status)),
        }
    }

    /// Starts to send a checkpoint's files, in order; training goes on meanwhile.
    pub(crate) fn upload(
        &self,
        generation: u64,
        step: u64,
        files: Vec<(String, Vec<u8>)>,
    ) -> Upload {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let head = v1::PutCheckpointRequest {
            run_id: self.run_id.clone(),
            generation,
            step,
            ..Default::default()
        };
        self.runtime.spawn(async move {
            for (name, bytes) in files {
                let sha256 = Sha256::digest(&bytes).to_vec();
                let mut offset = 0;
                loop {
                    let end = (offset + CHUNK_BYTES).min(bytes.len());
                    let last = end == bytes.len();
                    let part = v1::PutCheckpointRequest {
                        file: name.clone(),
                        offset: offset as u64,
                        data: bytes[offset..end].to_vec(),
                        end_of_file: last,
                        sha256: if last { sha256.clone() } else { Vec::new() },
                        ..head.clone()
                    };
                    if sender.send(part).await.is_err() {
                        return;
                    }
                    if last {
                        break;
                    }
                    offset = end;
                }
            }
            let _ = sender
                .send(v1::PutCheckpointRequest {
                    commit: true,
                    ..head
                })
                .await;
        });
        let (mut client, inbox) = (self.client(), Arc::clone(&self.inbox));
        let answer = Arc::new(Answer::default());
        let place = Arc::clone(&answer);
        self.runtime.spawn(async move {
            let answer = client.put_checkpoint(ReceiverStream::new(receiver)).await;
            inbox.answer(&place, answer.map(tonic::Response::into_inner));
        });
        Upload(answer)
    }

    /// Waits for a checkpoint to be committed, and says where; a problem is a value, since training goes on. So is a
    /// coordinator that cannot be talked to.
    ///
    /// # Errors
    /// When this generation is over first: the coordinator waits for other ranks' reports of the step before it commits.
    pub(crate) fn uploaded(
        &self,
        upload: Upload,
    ) -> Result<Result<v1::PutCheckpointResponse, LinkError>, Break> {
        let answer = self.inbox.answered(&upload.0)?;
        Ok(answer.map_err(failed("PutCheckpoint")))
    }
}

fn append(call: &'static str, bytes: &mut Vec<u8>, part: &[u8]) -> Result<(), LinkError> {
    if bytes.len() + part.len() > MOST_BYTES {
        return Err(LinkError::Answer {
            call,
            reason: format!("more than {MOST_BYTES} bytes"),
        });
    }
    bytes.extend_from_slice(part);
    Ok(())
}

fn failed(call: &'static str) -> impl Fn(tonic::Status) -> LinkError {
    move |status| LinkError::Call {
        call,
        message: status.message().to_owned(),
    }
}
