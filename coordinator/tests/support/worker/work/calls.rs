//! The calls beside the stream: the split's index down, scores and checkpoints up.

use proto::v1::{GetDatasetRequest, PutCheckpointRequest, Split, SubmitScoresRequest};
use sha2::{Digest, Sha256};

use super::super::super::{CLASSES, dataset};
use super::super::session::End;
use super::super::{checkpoint_files, logit};
use super::Worker;

impl Worker {
    pub(super) async fn fetch_index(&mut self, split: Split) -> Result<(), End> {
        let run_id = self
            .session
            .wait(0, |inbox| {
                (!inbox.run_id.is_empty()).then(|| inbox.run_id.clone())
            })
            .await?;
        let request = GetDatasetRequest {
            run_id,
            split: split.into(),
        };
        let mut stream = self.client.get_dataset(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            bytes.extend(part.chunk);
        }
        let index = data::coco::Split::decode(&bytes).unwrap();
        let sent = dataset();
        let wanted = if split == Split::Train {
            sent.train
        } else {
            sent.val
        };
        if std::env::var_os("HGAT_FAKE_PICKED").is_some() {
            // A dry run sends a part of them, in its own order and some more than once.
            let known = |sample| wanted.samples.contains(sample);
            assert!(!index.samples.is_empty() && index.samples.iter().all(known));
        } else {
            assert_eq!(index.samples, wanted.samples);
        }
        Ok(())
    }

    pub(super) async fn evaluate(&mut self, step: u64, sample_ids: &[u32]) -> Result<(), End> {
        let run_id = self.session.now(|inbox| inbox.run_id.clone());
        let generation = self.generation;
        // In several messages, and the first one twice: a retry changes nothing.
        let mut requests: Vec<_> = sample_ids
            .chunks(2)
            .map(|ids| SubmitScoresRequest {
                online: false,
                run_id: run_id.clone(),
                generation,
                step,
                sample_ids: ids.to_vec(),
                logits: ids
                    .iter()
                    .flat_map(|&id| (0..CLASSES).map(move |class| logit(id, class)))
                    .collect(),
                skipped: Vec::new(),
            })
            .collect();
        requests.extend(requests.first().cloned());
        let sent = self
            .client
            .submit_scores(tokio_stream::iter(requests))
            .await;
        self.unless_released(sent).await?;
        self.seen.scored.extend(sample_ids);
        Ok(())
    }

    pub(super) async fn snapshot(&mut self, step: u64) -> Result<(), End> {
        if self.seen.rank != 0 {
            return Ok(());
        }
        let run_id = self.session.now(|inbox| inbox.run_id.clone());
        let request = PutCheckpointRequest {
            run_id,
            generation: self.generation,
            step,
            ..Default::default()
        };
        let mut requests: Vec<_> = checkpoint_files(step)
            .into_iter()
            .map(|(file, data)| PutCheckpointRequest {
                file: file.to_owned(),
                sha256: Sha256::digest(&data).to_vec(),
                data,
                end_of_file: true,
                ..request.clone()
            })
            .collect();
        requests.push(PutCheckpointRequest {
            commit: true,
            ..request
        });
        // The answer needs the reports of other ranks: it may not come before their generation is over.
        let answer = tokio::select! {
            answer = self.client.put_checkpoint(tokio_stream::iter(requests)) => answer,
            over = self.session.wait(self.generation, |_| None::<()>) => return over,
        };
        let answer = self.unless_released(answer).await?;
        assert_eq!(answer.into_inner().problem, "");
        Ok(())
    }

    /// A call that fails because the run has ended is no news: the release is.
    async fn unless_released<T>(&self, answer: Result<T, tonic::Status>) -> Result<T, End> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(status) => {
                let generation = self.generation;
                self.session.wait(generation, |_| None::<()>).await?;
                panic!("refused without a release: {status}")
            }
        }
    }
}
