//! Scores that no coordinator has taken: while there is none they are kept, so that training goes on, and the next one gets
//! them first of all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message;
use proto::v1::SubmitScoresRequest;
use proto::v1::worker_service_client::WorkerServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Most that is kept, bytes: what a rank of one scores of COCO's validation split in five evaluations (of 2014's, 40,504 pictures).
/// Beyond that the ranks wait for a coordinator.
const MOST_BYTES: usize = 64 << 20;

/// Whose scores are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// What this rank has scored.
    Own,
    /// Another rank's, in case that one dies before it has given them to a coordinator.
    Peers,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct KeptScores(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether there is no coordinator.
    alone: bool,
    /// Oldest first.
    kept: Vec<(Whose, SubmitScoresRequest)>,
    bytes: usize,
}

impl KeptScores {
    /// The coordinator is lost: from here on scores are kept.
    pub(super) fn begin(&self) {
        self.lock().alone = true;
    }

    /// Keeps these if there is no coordinator to take them and there is room; says whether it did. Scores of training steps,
    /// which are a figure to look at, stop no training: they are dropped where there is no room.
    pub(super) fn keep(&self, requests: &[SubmitScoresRequest], whose: Whose) -> bool {
        let mut state = self.lock();
        if !state.alone {
            return false;
        }
        let bytes = state.bytes + requests.iter().map(Message::encoded_len).sum::<usize>();
        if bytes > MOST_BYTES {
            let online = requests.iter().all(|request| request.online);
            if online {
                tracing::warn!(
                    "scores of training steps are dropped: {MOST_BYTES} bytes are kept already"
                );
            }
            return online;
        }
        state.bytes = bytes;
        let requests = requests.iter().cloned();
        state.kept.extend(requests.map(|request| (whose, request)));
        true
    }

    /// What this rank keeps of its own scores of the state after `step` steps, as messages with their lengths before them.
    pub(super) fn own(&self, step: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (whose, request) in &self.lock().kept {
            if *whose == Whose::Own && request.step == step && !request.online {
                bytes.extend(request.encode_length_delimited_to_vec());
            }
        }
        bytes
    }

    /// Gives everything to the coordinator that has let this worker in; nothing is kept any more then. What it refuses, it
    /// would refuse again.
    ///
    /// # Errors
    /// When it is lost meanwhile: everything is still kept.
    pub(super) async fn deliver(
        &self,
        mut client: WorkerServiceClient<Channel>,
    ) -> Result<(), Status> {
        loop {
            // One evaluation at a time: what is refused of one says nothing of the others.
            let requests: Vec<_> = {
                let mut state = self.lock();
                // Under the same lock, or what is kept in between would stay behind.
                state.alone = !state.kept.is_empty();
                let mut alike = state.kept.chunk_by(|(_, one), (_, next)| {
                    (one.step, one.online) == (next.step, next.online)
                });
                let first = alike.next().unwrap_or_default().iter();
                first.map(|(_, request)| request.clone()).collect()
            };
            if requests.is_empty() {
                return Ok(());
            }
            let count = requests.len();
            match client.submit_scores(tokio_stream::iter(requests)).await {
                Ok(_) => {}
                Err(status) if is_refusal(&status) => {
                    tracing::warn!("kept scores were refused: {}", status.message());
                }
                Err(status) => return Err(status),
            }
            let mut state = self.lock();
            state.kept.drain(..count);
            let kept = state.kept.iter();
            state.bytes = kept.map(|(_, request)| request.encoded_len()).sum();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a coordinator that is there has said no.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unauthenticated
    )
}

/// The messages that [`KeptScores::own`] wrote; `None` if these are none.
pub(crate) fn read(mut bytes: &[u8]) -> Option<Vec<SubmitScoresRequest>> {
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        requests.push(SubmitScoresRequest::decode_length_delimited(&mut bytes).ok()?);
    }
    Some(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(step: u64, rows: u32, online: bool) -> SubmitScoresRequest {
        SubmitScoresRequest {
            step,
            sample_ids: (0..rows).collect(),
            logits: vec![0.5; rows as usize],
            online,
            ..Default::default()
        }
    }

    #[test]
    fn scores_are_kept_only_while_there_is_no_coordinator() {
        let kept = KeptScores::default();
        assert!(!kept.keep(&[scores(3, 2, false)], Whose::Own));
        kept.begin();
        assert!(kept.keep(&[scores(3, 2, false)], Whose::Own));
        assert_eq!(read(&kept.own(3)), Some(vec![scores(3, 2, false)]));
    }

    #[test]
    fn a_rank_tells_its_own_scores_of_that_evaluation_and_not_what_it_keeps_for_others() {
        let kept = KeptScores::default();
        kept.begin();
        assert!(kept.keep(&[scores(3, 1, false), scores(3, 2, true)], Whose::Own));
        assert!(kept.keep(&[scores(6, 3, false)], Whose::Peers));
        assert!(kept.keep(&[scores(6, 4, false), scores(6, 5, false)], Whose::Own));
        assert_eq!(read(&kept.own(3)), Some(vec![scores(3, 1, false)]));
        let newer = vec![scores(6, 4, false), scores(6, 5, false)];
        assert_eq!(read(&kept.own(6)), Some(newer));
        assert_eq!(read(&kept.own(9)), Some(Vec::new()));
    }

    #[test]
    fn without_room_nothing_is_kept_and_scores_of_training_steps_stop_nobody() {
        let kept = KeptScores::default();
        kept.begin();
        let much = scores(3, (MOST_BYTES / 8) as u32, false); // 4 bytes a logit and 1 to 5 an id
        assert!(kept.keep(&[much], Whose::Own));
        let more = |online| scores(6, (MOST_BYTES / 8) as u32, online);
        assert!(!kept.keep(&[more(false)], Whose::Own));
        assert!(kept.keep(&[more(true)], Whose::Own), "dropped");
        assert!(kept.own(6).is_empty());
        assert!(kept.keep(&[scores(6, 1, false)], Whose::Own));
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        assert_eq!(read(&[7, 1, 2]), None);
        assert_eq!(read(&[]), Some(Vec::new()));
    }
}
